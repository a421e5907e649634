from copy import deepcopy

import pytest
import torch
from torch.nn import functional as F

from benchmarks.timing import peak_bytes
from unitok.quantizers import TextAlignedQuantizer


def quantizer(**options: object) -> TextAlignedQuantizer:
    torch.manual_seed(0)
    made = TextAlignedQuantizer(codebook_size=50, latent_dim=6, embedding_dim=9, **options)  # type: ignore[arg-type]
    torch.nn.init.normal_(made.projection.bias)
    return made


LATENTS = torch.randn(2, 3, 5, 6, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("search", ["exact", "scan"])
def test_codes_are_nearest_by_cosine(search: str) -> None:
    q = quantizer(search=search)
    rows = q.embedding @ q.projection.weight.T + q.projection.bias
    cosine = F.cosine_similarity(LATENTS[..., None, :], rows, dim=-1)
    assert torch.equal(q.quantize(LATENTS), cosine.argmax(-1)[:, None])


def test_codes_are_nearest_by_distance_without_normalize() -> None:
    q = quantizer(normalize=False)
    rows = q.embedding @ q.projection.weight.T + q.projection.bias
    codes = q.quantize(LATENTS)
    assert torch.equal(codes, torch.cdist(LATENTS.flatten(0, 2), rows).argmin(-1).view(2, 1, 3, 5))
    torch.testing.assert_close(q.dequantize(codes), rows[codes[:, 0]])


def test_dequantize_projects_only_the_rows_it_needs() -> None:
    q = quantizer().eval()
    projected: list[int] = []
    plain = q._vectors

    def counted(rows: torch.Tensor) -> torch.Tensor:
        projected.append(rows.numel() // 9)
        return plain(rows)

    q._vectors = counted  # type: ignore[method-assign]
    codes = torch.tensor([[[[3, 3, 49]]]])
    vectors = q.dequantize(codes)
    assert projected == [3]
    torch.testing.assert_close(vectors, q.codebook[codes[:, 0]])
    torch.testing.assert_close(vectors.norm(dim=-1), torch.ones(1, 1, 3))


@pytest.mark.parametrize("normalize", [True, False])
def test_the_straightforward_form_agrees(normalize: bool) -> None:
    q = quantizer(normalize=normalize)
    codes = q.quantize(LATENTS)
    vectors = q.dequantize(codes)
    q.straightforward = True
    assert torch.equal(q.quantize(LATENTS), codes)
    torch.testing.assert_close(q.dequantize(codes), vectors)


def test_the_kept_codebook_follows_its_parameters() -> None:
    q = quantizer().eval()
    before = q.codebook
    assert q.codebook is before
    with torch.no_grad():
        q.projection.weight.mul_(-1)
    assert not torch.equal(q.codebook, before)


def test_losses_and_straight_through_gradient() -> None:
    q = quantizer().train()
    latents = LATENTS.clone().requires_grad_()
    out = q(latents)
    unit = F.normalize(LATENTS, dim=-1)
    torch.testing.assert_close(out.latents, q.codebook[out.codes[:, 0]])
    torch.testing.assert_close(out.loss, 1.25 * (q.codebook[out.codes[:, 0]] - unit).square().mean())
    (out.latents.sum()).backward(retain_graph=True)
    through_unit = torch.autograd.functional.jacobian(lambda z: F.normalize(z, dim=-1).sum(), LATENTS)
    torch.testing.assert_close(latents.grad, through_unit)
    assert q.projection.weight.grad is None  # the straight-through path reaches latents only
    out.loss.backward()
    assert q.projection.weight.grad.abs().sum() > 0
    assert q.embedding.grad is None


def test_entropy_term_reaches_latents_and_projection_and_is_zero_unless_asked_for() -> None:
    assert quantizer().train()(LATENTS).entropy_loss == 0
    q = quantizer(use_entropy=True, entropy_temperature=0.1).train()
    latents = LATENTS.clone().requires_grad_()
    out = q(latents)
    unit = F.normalize(LATENTS, dim=-1).flatten(0, 2)
    chances = (-torch.cdist(unit, q.codebook).square() / 0.1).softmax(-1)
    own, mean = -(chances * chances.log()).sum(-1).mean(), chances.mean(0)
    torch.testing.assert_close(out.entropy_loss.detach(), own + (mean * mean.log()).sum(), atol=1e-4, rtol=1e-4)
    out.entropy_loss.backward()
    assert latents.grad.abs().sum() > 0
    assert q.projection.weight.grad.abs().sum() > 0
    assert q.embedding.grad is None


def test_training_sees_the_codes_that_encode_returns() -> None:
    q = quantizer().train()
    assert torch.equal(q(LATENTS).codes, q.quantize(LATENTS))


@pytest.mark.parametrize("temperature", [0.5, None])
def test_drawn_codes_follow_the_softmax_in_training_only(temperature: float | None) -> None:
    q = quantizer(stochastic=True, temperature=temperature)
    latent = LATENTS[:1, :1, :1].expand(1, 100, 200, -1)
    inverse = 10 if temperature is None else 2
    expected = (F.cosine_similarity(LATENTS[0, 0, 0], q.codebook, dim=-1) * inverse).softmax(-1)
    torch.manual_seed(0)
    drawn = q.train()(latent).codes
    frequency = torch.bincount(drawn.flatten(), minlength=50) / drawn.numel()
    assert (frequency - expected).abs().max() < 0.015
    assert torch.equal(q.eval()(latent).codes, q.quantize(latent))


def test_float32_whatever_surrounds_it() -> None:
    q = quantizer()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(q.quantize(LATENTS), quantizer().quantize(LATENTS))
        assert q(LATENTS).latents.dtype == torch.float32
        assert q.dequantize(torch.zeros(1, 1, 2, 2, dtype=torch.int64)).dtype == torch.float32


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"normalize": False, "stochastic": True}, "without normalize"),
        ({"normalize": False, "search": "scan"}, "without normalize"),
        ({"normalize": False, "use_entropy": True}, "without normalize"),
        ({"entropy_temperature": 0.0}, "must be positive"),
        ({"search": "fast"}, "is not one of"),
        ({"temperature": 0.0}, "must be positive"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        quantizer(**options)


def test_bad_codes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\[0, 50\).*50"):
        quantizer().dequantize(torch.full((1, 1, 2, 2), 50))
    with pytest.raises(ValueError, match="K=1"):
        quantizer().dequantize(torch.zeros(1, 2, 2, 2, dtype=torch.int64))


def test_a_copy_has_a_codebook_of_its_own() -> None:
    first = quantizer()
    copied = deepcopy(first)
    with torch.no_grad():
        copied.projection.weight.normal_()
    vectors = F.normalize(copied.projection(copied.embedding), dim=-1)
    with torch.no_grad():
        assert torch.allclose(copied.codebook, vectors, atol=1e-6)
        assert not torch.allclose(copied.codebook, first.codebook, atol=0.1)


@pytest.mark.parametrize(("options", "largest"), [({"search": "exact"}, 60e6), ({"search": "scan"}, 60e6), ({}, None)])
def test_729_tokens_and_65536_codes_need_less_than_60_mb(options: dict[str, str], largest: float | None) -> None:
    quantizer = TextAlignedQuantizer(65536, 16).eval()
    quantizer.search, quantizer.straightforward = options.get("search", "exact"), largest is None
    latents = torch.randn(1, 27, 27, 16)
    with torch.no_grad():
        quantizer.quantize(latents)  # the codebook is projected once
        peak = peak_bytes(lambda: quantizer.quantize(latents))
    assert peak < largest if largest else peak > 190e6  # the whole matrix of scores: 729 x 65,536 floats
