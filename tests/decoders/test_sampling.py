import math

import pytest
import torch

from unitok.decoders.sampling import Sampling, guide, keep_likely


def brute_force(logits, top_k, top_p):
    """One row, one code at a time: the k largest and their ties, then the smallest set of more than top_p."""
    kept = list(range(len(logits)))
    if top_k:
        least = sorted(logits, reverse=True)[top_k - 1]
        kept = [i for i in kept if logits[i] >= least]
    total = sum(math.exp(logits[i]) for i in kept)
    nucleus, mass = [], 0.0
    for i in sorted(kept, key=lambda i: -logits[i]):
        if mass <= top_p or top_p == 1:
            nucleus.append(i)
        mass += math.exp(logits[i]) / total
    return sorted(nucleus)


@pytest.mark.parametrize("top_k", [0, 1, 3, 12])
@pytest.mark.parametrize("top_p", [0.05, 0.5, 0.9, 1.0])
def test_kept_codes_are_those_of_brute_force(top_k, top_p):
    logits = 2 * torch.randn(16, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    kept = keep_likely(logits, top_k, top_p)
    for row, result in zip(logits, kept, strict=True):
        assert result.isfinite().nonzero().flatten().tolist() == brute_force(row.tolist(), top_k, top_p)
        assert torch.equal(result[result.isfinite()], row[result.isfinite()])


def test_ties_with_the_kth_are_kept():
    kept = keep_likely(torch.tensor([[1.0, 3.0, 2.0, 2.0, 0.0]]), top_k=2)
    assert kept.isfinite().tolist() == [[False, True, True, True, False]]


def test_draws_follow_the_distribution():
    probabilities = torch.tensor([0.5, 0.3, 0.15, 0.05])
    logits = (probabilities.log() * 0.7).expand(40_000, 4)  # temperature 0.7 undoes the factor
    codes = Sampling(temperature=0.7).draw(logits, torch.Generator().manual_seed(0))
    torch.testing.assert_close(codes.bincount(minlength=4) / 40_000, probabilities, atol=0.01, rtol=0)


@pytest.mark.parametrize("sampling", [Sampling(top_k=1), Sampling(temperature=0.0), Sampling(temperature=1e-9)])
def test_greedy_takes_the_largest(sampling):
    logits = torch.randn(50, 20, generator=torch.Generator().manual_seed(0))
    assert torch.equal(sampling.draw(logits), logits.argmax(-1))


def test_guidance_is_extrapolation():
    assert guide(torch.tensor(3.0), torch.tensor(1.0), 4.0) == 9.0


def test_interval_counts_from_the_second_code():
    sampling = Sampling(guidance=2.0, guidance_interval=1)
    assert [sampling.guides(index) for index in range(5)] == [True, True, True, False, False]
    assert not Sampling(guidance=1.0).guides(0)


@pytest.mark.parametrize(
    "setting",
    [
        {"temperature": -0.1},
        {"temperature": math.nan},
        {"temperature": math.inf},
        {"top_k": -1},
        {"top_k": 33},
        {"top_p": 0.0},
        {"top_p": 1.1},
        {"guidance": 0.5},
        {"guidance": math.inf},
        {"guidance_interval": -1},
    ],
)
def test_settings_out_of_range_are_named(setting):
    (name, value) = next(iter(setting.items()))
    with pytest.raises(ValueError, match=f"{name}={value}"):
        Sampling(**setting).check(codebook_size=32)
