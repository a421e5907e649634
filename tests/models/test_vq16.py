"""VQ-16 against the golden numbers of the reference, read through its published layout."""

from pathlib import Path

import pytest
import torch

from tests.parity.tar import fill, fixtures
from unitok.hub import load_tokenizer


@pytest.mark.parametrize("config", ["vq_tiny", pytest.param("vq_ds16", marks=pytest.mark.slow)])
def test_goldens(config: str, tmp_path: Path) -> None:
    torch.save(fixtures.vq_checkpoint(config), tmp_path / "vq_ds16_t2i.pt")
    tokenizer = load_tokenizer(tmp_path / "vq_ds16_t2i.pt")
    golden = fixtures.goldens(config)
    batch, side = (2, 8) if config == "vq_tiny" else (1, 16)

    stored = golden["indices"].long().view(batch, 1, side, side)
    with torch.no_grad():
        decoded = tokenizer.decoder(tokenizer.features(stored))
    torch.testing.assert_close(decoded, golden["decoded_01"], atol=1e-4, rtol=0)
    pixels = (tokenizer.decode(stored) * 255).to(torch.uint8).permute(0, 2, 3, 1)
    assert (pixels.int() - golden["post_process_u8"].int()).abs().max() <= 1

    images = fill.image(f"{config}.image", batch, golden["decoded"].shape[-1]) / 255
    codes = tokenizer.encode(images)
    assert torch.equal(codes.flatten(), golden["encode_indices"].long())
    vectors = tokenizer.quantizer.dequantize(codes).permute(0, 3, 1, 2)
    torch.testing.assert_close(vectors, golden["encode_quant"], atol=1e-5, rtol=0)
