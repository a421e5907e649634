import io

import pytest
import torch
from PIL import Image

from unitok.evaluation.rivals import DiffusersAutoencoder, PillowCodec, bits_of, display_name, open_model, tokens_of
from unitok.images import to_pil
from unitok.models.unitok import unitok_tiny

CPU = torch.device("cpu")


def photo(side=64):
    noise = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.interpolate(noise, side, mode="bicubic").clamp(0, 1)


def size_at(image, format, quality, **options):
    buffer = io.BytesIO()
    to_pil(image).save(buffer, format=format, quality=quality, **options)
    return len(buffer.getvalue())


@pytest.mark.parametrize(
    ("format", "options"), [("jpeg", {"optimize": True, "progressive": True}), ("webp", {"method": 6})]
)
def test_a_codec_takes_the_highest_quality_within_the_budget(format, options):
    image, budget = photo(), 64 * 64 * 2.5 / 8
    codec = PillowCodec(format, 2.5)
    (file,) = codec.encode(image)
    sizes = [size_at(image[0], format, quality, **options) for quality in range(101)]
    assert len(file) == max(size for size in sizes if size <= budget)
    assert codec.bits([file]) == [8 * len(file)]
    expected = torch.tensor(list(Image.open(io.BytesIO(file)).convert("RGB").tobytes())).view(64, 64, 3)
    torch.testing.assert_close(codec.decode([file])[0].permute(1, 2, 0) * 255, expected.float(), atol=1e-4, rtol=0)


def test_a_budget_below_quality_0_is_exceeded_and_told():
    codec = PillowCodec("jpeg", 0.1)
    stored = codec.encode(photo())
    assert len(stored[0]) == size_at(photo()[0], "jpeg", 0, optimize=True, progressive=True)
    assert codec.bits(stored)[0] > 0.1 * 64 * 64


@pytest.mark.parametrize("wrong", ["jpeg@", "webp@many", "jpeg@-1", "gif@0.3", "gone.py@x", "open_clip@ViT-B-3200"])
def test_bad_names(wrong):
    with pytest.raises((ValueError, FileNotFoundError), match=wrong.split("@", maxsplit=1)[0]):
        open_model(wrong, torch.float32, CPU)


@pytest.mark.parametrize("kind", ["AutoencoderKL", "VQModel", "AutoencoderTiny"])
def test_diffusers_autoencoders_keep_their_own_reconstruction(kind, tmp_path):
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    wide = {"block_out_channels": (8, 8), "norm_num_groups": 4, "latent_channels": 4}
    wide |= {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    narrow = {"encoder_block_out_channels": (8, 8), "decoder_block_out_channels": (8, 8), "latent_channels": 4}
    narrow |= {"num_encoder_blocks": (1, 1), "num_decoder_blocks": (1, 1)}
    options = {"AutoencoderKL": wide, "VQModel": wide | {"num_vq_embeddings": 16}, "AutoencoderTiny": narrow}[kind]
    model = getattr(diffusers, kind)(**options).eval()
    model.save_pretrained(tmp_path)
    rival = open_model(f"diffusers@{tmp_path}", torch.float32, CPU)
    images = photo(16)
    with torch.no_grad():
        stored = rival.encode(images)
        encoded = model.encode(images * 2 - 1)
        latents = encoded.latent_dist.mode() if kind == "AutoencoderKL" else encoded.latents
        expected = ((model.decode(latents).sample + 1) / 2).clamp(0, 1)
        torch.testing.assert_close(rival.decode(stored), expected)
    assert bits_of(rival, stored) == [(8 * 8 * 4) if kind == "VQModel" else stored[0].numel() * 16]


def test_other_diffusers_models_are_refused(tmp_path):
    pytest.importorskip("diffusers")
    (tmp_path / "config.json").write_text('{"_class_name": "UNet2DModel"}')
    with pytest.raises(ValueError, match="UNet2DModel"):
        DiffusersAutoencoder(str(tmp_path))


def test_an_adapter_is_one_file_with_a_load_function(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("def load(argument):\n    return ('mine', argument)\n")
    assert open_model(f"{path}@weights", torch.float32, CPU) == ("mine", "weights")
    path.write_text("")
    with pytest.raises(ValueError, match=r"no function load\(argument\)"):
        open_model(f"{path}@weights", torch.float32, CPU)


def test_tables_tell_no_folders(tmp_path):
    assert display_name(f"{tmp_path}/vqvae.py@{tmp_path}/weights") == "vqvae"
    assert display_name(f"diffusers@{tmp_path}/sd-vae") == "diffusers@sd-vae"
    assert display_name("jpeg@0.375") == "jpeg@0.375"
    assert display_name("owner/name") == "owner/name"
    assert display_name(str(tmp_path)) == tmp_path.name


def test_a_tokenizers_bits_are_its_codes():
    tokenizer = unitok_tiny(num_codebooks=8, codebook_size=4096)
    codes = torch.zeros(2, 8, 16, 16, dtype=torch.int64)
    assert bits_of(tokenizer, codes) == [24576.0, 24576.0]
    assert tokens_of(tokenizer, 256) == {"bits_per_image": 24576.0, "bits_per_pixel": 0.375}
