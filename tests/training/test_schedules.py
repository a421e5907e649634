import math

import pytest

from unitok.training.schedules import ramp, warmup_cosine


def test_ramp():
    assert [ramp(step, 4) for step in (-1, 0, 1, 4, 9)] == [0, 0, 0.25, 1, 1]
    assert ramp(0, 0) == 1  # no warm-up divides nothing by zero


def test_warmup_cosine_by_the_published_formula():
    wanted = [0.1 + 0.9 * (0.5 + 0.5 * math.cos(math.pi * (step - 10) / (100 - 10 - 1))) for step in range(10, 100)]
    assert [warmup_cosine(step, 100, 10, 0.1) for step in range(10, 100)] == pytest.approx(wanted)
    assert warmup_cosine(5, 100, 10, 0.1) == 0.5
    assert warmup_cosine(99, 100, 10, 0.1) == pytest.approx(0.1)
    assert warmup_cosine(500, 100, 10, 0.1) == pytest.approx(0.1)


def test_runs_of_one_and_two_steps():
    assert warmup_cosine(0, 1, 0, 0.1) == 1
    assert math.isfinite(warmup_cosine(1, 2, 1, 0.1))
