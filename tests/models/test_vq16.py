"""VQ-16 against the golden numbers of the reference, read through its published layout."""

from pathlib import Path

import pytest
import torch

from tests.parity.tar import fill, fixtures
from unitok.hub import load_tokenizer, save_tokenizer
from unitok.models.vq16 import vq16


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


def test_sizes_are_read_off_the_tensors_and_the_saved_folder_gives_the_same_codes(tmp_path: Path) -> None:
    checkpoint = fixtures.vq_checkpoint("vq_tiny")
    torch.save(checkpoint, tmp_path / "vq.pt")
    tokenizer = load_tokenizer(tmp_path / "vq.pt")
    assert tokenizer.config == {
        "tokenizer": "vq16",
        "arguments": {
            "channels": 128,
            "multipliers": [1, 1],
            "dim": 32,
            "codebook_size": 256,
            "latent_dim": 8,
            "encoder_depth": 2,
            "decoder_depth": 3,
            "image_size": 256,
        },
    }
    again = load_tokenizer(save_tokenizer(tokenizer, tmp_path / "folder"))
    images = torch.rand(1, 3, 16, 24)
    codes = tokenizer.encode(images)
    assert codes.shape == (1, 1, 8, 12)
    assert torch.equal(again.encode(images), codes)
    assert torch.equal(again.decode(codes), tokenizer.decode(codes))


def test_the_default_is_the_published_size() -> None:
    with torch.device("meta"):
        tokenizer = vq16()
    assert sum(p.numel() for p in tokenizer.parameters()) == fixtures.meta("vq_ds16")["params"]


def test_keys_are_strict(tmp_path: Path) -> None:
    checkpoint = fixtures.vq_checkpoint("vq_tiny")
    checkpoint["model"].pop("encoder.mid.1.q.bias")
    checkpoint["model"]["loss.weight"] = torch.zeros(1)
    torch.save(checkpoint, tmp_path / "vq.pt")
    with pytest.raises(ValueError, match=r"1 missing \(encoder.middle.1.q.bias\); 1 unknown \(loss.weight\)"):
        load_tokenizer(tmp_path / "vq.pt")


def test_a_file_without_its_first_convolution_is_refused(tmp_path: Path) -> None:
    checkpoint = fixtures.vq_checkpoint("vq_tiny")
    del checkpoint["model"]["encoder.conv_in.weight"]
    torch.save(checkpoint, tmp_path / "vq.pt")
    with pytest.raises(ValueError, match=r"no convolution encoder\.conv_in\.weight"):
        load_tokenizer(tmp_path / "vq.pt")
