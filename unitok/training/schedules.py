"""Schedules as functions of the step: each answers a factor in [0, 1]."""

import math


def ramp(step: int, length: float) -> float:
    """0 -> 1 over `length` steps, then 1; at once where the length is 0."""
    return 1.0 if length <= 0 else min(1.0, max(0.0, step / length))


def warmup_cosine(step: int, total: int, warmup: float, final: float) -> float:
    """Linear from 0 over `warmup` steps, then half a cosine from 1 down to `final` at the last step, and `final` after.

    Source: UniTok (arXiv 2502.20321), published code's `cos` schedule.
    """
    if step < warmup:
        return step / warmup
    past = min(1.0, (step - warmup) / max(1.0, total - warmup - 1))
    return final + (1 - final) * (0.5 + 0.5 * math.cos(math.pi * past))
