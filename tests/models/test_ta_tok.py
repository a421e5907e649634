"""TA-Tok against the golden numbers of the reference, read through its published layout."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from tests.parity.tar import fill, fixtures
from unitok.hub import load_tokenizer
from unitok.tokenizer import Tokenizer

TINY = ["tatok_tiny", "tatok_tiny_l2dist", "tatok_tiny_learntemp"]
MARGIN = 1e-4


@pytest.fixture(scope="module", params=TINY)
def tiny(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Tokenizer]:
    path = tmp_path_factory.mktemp("published") / "ta_tok.pth"
    torch.save(fixtures.ta_tok_checkpoint(request.param), path)
    return request.param, load_tokenizer(path, encoder_heads=4)


@pytest.fixture(scope="module")
def so400m(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Tokenizer]]:
    path = tmp_path_factory.mktemp("published") / "ta_tok.pth"
    torch.save(fixtures.ta_tok_checkpoint("tatok_so400m"), path)
    yield "tatok_so400m", load_tokenizer(path)
    path.unlink()


def check(config: str, tokenizer: Tokenizer, images: Tensor) -> None:
    golden = fixtures.goldens(config)
    rows, exact = golden["rows"].long(), 1e-3 if config == "tatok_so400m" else 1e-4
    with torch.no_grad():
        hidden = tokenizer.encoder.hidden(images).flatten(1, 2)[:, rows]
    torch.testing.assert_close(hidden, golden["hidden_m2"], atol=exact, rtol=1e-4)
    size = tokenizer.codebook_size
    places = torch.tensor([0, 1, size // 3, size // 2, size - 2, size - 1])
    close(tokenizer.quantizer.codebook[places], golden["codebook_rows"], 1e-5)
    for scale in (1, 2, 3):
        check_scale(tokenizer, images, scale, {k[3:]: v for k, v in golden.items() if k.startswith(f"s{scale}.")})
    check_wide(config, tokenizer, golden["wide.indices"])


@torch.no_grad()
def check_scale(tokenizer: Tokenizer, images: Tensor, scale: int, golden: dict[str, Tensor]) -> None:
    features = tokenizer.encoder(images, scale)
    latents = tokenizer.project_in(features)
    side = features.shape[1]
    rows = golden["rows"].long()
    close(features.flatten(1, 2)[:, rows], golden["vq_feats"])
    close(latents.flatten(1, 2)[:, rows], golden["projected_z"])

    codes = tokenizer.encode(images, scale=scale)
    assert codes.shape == (len(images), 1, side, side)
    assert codes.dtype == torch.int64
    clear = golden["margin"] >= MARGIN
    assert torch.equal(codes.flatten(1)[clear], golden["indices"].long()[clear])

    stored = golden["indices"].long().view(-1, 1, side, side)
    close(tokenizer.quantizer.dequantize(stored).flatten(1, 2)[:, rows], golden["regularized_z"], 1e-5)
    decoded = tokenizer.features(stored).flatten(1, 2)
    close(decoded[:, rows], golden["decode_from_bottleneck"])
    close(decoded.mean(-1), golden["decode_token_mean"], 1e-5)
    close(decoded[:, rows], golden["rec"])

    fixed = (7919 * torch.arange(side * side) % tokenizer.codebook_size).view(1, 1, side, side)
    close(tokenizer.features(fixed).flatten(1, 2)[:, rows], golden["decode_fixed_indices"])


def check_wide(config: str, tokenizer: Tokenizer, expected: Tensor) -> None:
    size = tokenizer.image_size
    wide = fill.image(f"{config}.wide", 1, size + 40)[:, :, : size + 16] / 255
    codes = tokenizer.encode(wide)
    flips = codes.flatten() != expected.flatten()
    if flips.any():  # allowed where the two candidates are near ties
        with torch.no_grad():
            latents = tokenizer.project_in(tokenizer.encoder(wide)).flatten(0, 2)[flips]
        table = tokenizer.quantizer.codebook
        unit = torch.nn.functional.normalize(latents, dim=-1)
        ours, theirs = ((unit * table[c.flatten()[flips].long()]).sum(-1) for c in (codes, expected))
        assert (ours - theirs).abs().max() < MARGIN


def close(actual: Tensor, expected: Tensor, tolerance: float = 1e-4) -> None:
    torch.testing.assert_close(actual, expected, atol=tolerance, rtol=0)


def test_goldens_of_the_tiny_configurations(tiny: tuple[str, Tokenizer]) -> None:
    config, tokenizer = tiny
    check(config, tokenizer, fixtures.goldens(config)["image_u8"] / 255)


def test_a_video_is_its_frames(tiny: tuple[str, Tokenizer]) -> None:
    config, tokenizer = tiny
    golden = fixtures.goldens(config)
    video = (golden["image_u8"] / 255)[:, None].expand(-1, 2, -1, -1, -1)
    codes = tokenizer.encode(video.flatten(0, 1))
    assert torch.equal(codes.flatten(1), golden["video.indices"].long())


@pytest.mark.slow
def test_goldens_of_the_published_size(so400m: tuple[str, Tokenizer]) -> None:
    config, tokenizer = so400m
    check(config, tokenizer, fill.image(f"{config}.image", 1, 384) / 255)
