"""How the next code is drawn from its logits: guidance, temperature, top-k, nucleus, and the draw itself."""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F


class Sampling(NamedTuple):
    """Settings of a draw; `check` says which are out of range.

    Attributes:
        temperature: logits are divided by it; 0 is greedy.
        top_k: keep the codes whose logit reaches the k-th largest; 0 keeps all, 1 is greedy.
        top_p: keep the most likely codes up to the first whose cumulated probability exceeds it.
        guidance: strength of classifier-free guidance; 1 is none.
        guidance_interval: the last step with guidance, counted from 0 at the SECOND code (the first code is always
            guided); None guides all of them.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    guidance: float = 1.0
    guidance_interval: int | None = None

    def check(self, codebook_size: int) -> None:
        """Raise ValueError for a setting that is out of range for a codebook of V entries."""
        if not (self.temperature >= 0 and math.isfinite(self.temperature)):
            raise ValueError(f"temperature={self.temperature} must be a finite number, at least 0")
        if not 0 <= self.top_k <= codebook_size:
            raise ValueError(f"top_k={self.top_k} must lie in [0, {codebook_size}], the codebook_size; 0 keeps all")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p={self.top_p} must lie in (0, 1]; 1 keeps all")
        check_guidance(self.guidance)
        if self.guidance_interval is not None and self.guidance_interval < 0:
            raise ValueError(f"guidance_interval={self.guidance_interval} must be at least 0, or None for all steps")

    def guides(self, index: int) -> bool:
        """Whether the code at `index` (the first is 0) is drawn with guidance. Once False, it stays so."""
        return self.guidance > 1 and (self.guidance_interval is None or index - 1 <= self.guidance_interval)

    def draw(self, logits: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """(B, V) logits -> (B,) int64 codes.

        Randomness is drawn where the generator lives, so that a CPU generator gives equal draws on every device.
        """
        if self.top_k == 1 or self.temperature == 0:
            return logits.argmax(-1)
        kept = keep_likely(logits.float() / max(self.temperature, 1e-5), self.top_k, self.top_p)
        device = generator.device if generator is not None else logits.device
        race = torch.empty(logits.shape, device=device).exponential_(generator=generator).to(logits.device)
        return (kept.softmax(-1) / race).argmax(-1)  # argmax of p / Exp(1) is distributed as p


def keep_likely(logits: Tensor, top_k: int = 0, top_p: float = 1.0) -> Tensor:
    """(B, V) logits -> (B, V) logits with -inf outside the k largest (and their ties), then outside the nucleus."""
    if top_k:
        logits = logits.masked_fill(logits < logits.topk(top_k).values[..., -1:], -math.inf)
    if top_p < 1:
        ranked, order = logits.sort(dim=-1, descending=True, stable=True)
        mass_before = F.pad(ranked.softmax(-1).cumsum(-1)[..., :-1], (1, 0))
        dropped = torch.zeros_like(logits, dtype=torch.bool).scatter(-1, order, mass_before > top_p)
        logits = logits.masked_fill(dropped, -math.inf)
    return logits


def check_guidance(guidance: float) -> None:
    """Raise ValueError unless guidance is a finite number of at least 1."""
    if not (guidance >= 1 and math.isfinite(guidance)):
        raise ValueError(f"guidance={guidance} must be a finite number, at least 1; 1 is no guidance")


def guide(conditional: Tensor, null: Tensor, guidance: float) -> Tensor:
    """Classifier-free guidance: null + guidance * (conditional - null)."""
    return null + guidance * (conditional - null)
