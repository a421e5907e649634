import json
from itertools import pairwise

import pytest
import torch
from diffusers import AutoencoderDC, FlowMatchEulerDiscreteScheduler, SanaPipeline, SanaTransformer2DModel

from tests.decoders.stand_ins import features
from unitok.decoders import SanaDecoder

SCALING = 0.4


def parts(caption_channels: int = 8):
    torch.manual_seed(0)
    transformer = SanaTransformer2DModel(
        in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=8, num_layers=1,
        num_cross_attention_heads=2, cross_attention_head_dim=8, cross_attention_dim=16,
        caption_channels=caption_channels, sample_size=16,
    )  # fmt: skip
    autoencoder = AutoencoderDC(
        latent_channels=4, attention_head_dim=8, encoder_block_out_channels=(8, 16, 16),
        decoder_block_out_channels=(8, 16, 16), encoder_layers_per_block=(1, 1, 1),
        decoder_layers_per_block=(1, 1, 1), encoder_qkv_multiscales=((), (), ()),
        decoder_qkv_multiscales=((), (), ()), scaling_factor=SCALING,
    )  # fmt: skip
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    return transformer.eval(), autoencoder.eval(), scheduler, torch.randn(16, caption_channels)


def made(**settings) -> SanaDecoder:
    return SanaDecoder(*parts(), **{"image_size": 32, "steps": 2, **settings}).eval()


def seeded(number: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(number)


@pytest.mark.parametrize("guidance", [1.0, 4.0])
@pytest.mark.parametrize("side", [2, 4, 5])  # fewer tokens than the negative embeddings, as many, more
def test_batches_and_scales(side, guidance):
    decoder = made(guidance=guidance)
    first, again, other = (decoder(features(3, side, side), seeded(number)) for number in (0, 0, 1))
    assert first.shape == (3, 3, 32, 32)
    assert 0 <= first.min() < first.max() <= 1
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)


def test_size_and_steps_are_honoured():
    decoder = made(image_size=64, steps=1)
    assert decoder(features(1)).shape == (1, 3, 64, 64)
    assert len(decoder.scheduler.timesteps) == 1


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_equals_euler_steps_by_hand_with_prompts_that_are_not_padded(guidance):
    decoder = made(guidance=guidance)
    condition = features(2, 2, 2)
    images = decoder(condition, seeded())
    latents = torch.randn(2, 4, 8, 8, generator=seeded())
    decoder.scheduler.set_timesteps(2)
    sigmas = decoder.scheduler.sigmas.tolist()
    assert len(sigmas) == 3
    with torch.no_grad():
        for now, after in pairwise(sigmas):
            velocity = [
                decoder.transformer(latents, encoder_hidden_states=prompt, timestep=torch.full((2,), 1000 * now)).sample
                for prompt in (condition.flatten(1, 2), decoder.negative.expand(2, -1, -1))
            ]
            latents = latents + (after - now) * (velocity[1] + guidance * (velocity[0] - velocity[1]))
        expected = decoder.autoencoder.decode(latents / SCALING).sample / 2 + 0.5
    torch.testing.assert_close(images, expected.clamp(0, 1), atol=1e-4, rtol=1e-4)


def test_loss_is_the_velocity_error():
    decoder = made()
    images, condition, dropped = torch.rand(2, 3, 32, 32), features(), torch.tensor([False, True])
    loss = decoder.loss(condition, images, dropped, seeded())
    generator = seeded()
    level = torch.sigmoid(torch.randn(2, generator=generator))
    level = (3 * level / (1 + 2 * level))[:, None, None, None]
    noise = torch.randn(2, 4, 8, 8, generator=generator)
    latents = decoder.autoencoder.encode(images * 2 - 1).latent * SCALING
    prompt = torch.stack([condition[0].flatten(0, 1), decoder.negative[0]])
    velocity = decoder.transformer(
        (1 - level) * latents + level * noise, encoder_hidden_states=prompt, timestep=1000 * level.flatten()
    ).sample
    torch.testing.assert_close(loss, (velocity - (noise - latents)).square().mean())
    loss.backward()
    assert all(p.grad is None for p in decoder.autoencoder.parameters())
    assert any(p.grad is not None for p in decoder.transformer.parameters())


def test_folder_of_a_pipeline(tmp_path):
    transformer, autoencoder, scheduler, negative = parts()
    SanaPipeline(None, None, autoencoder, transformer, scheduler).save_pretrained(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"negative_prompt_embeds\.pth"):
        SanaDecoder.from_folder(tmp_path)
    index = json.loads((tmp_path / "model_index.json").read_text())
    index["text_encoder"] = ["transformers", "Gemma2Model"]  # named in published folders, and never read
    index["tokenizer"] = ["transformers", "GemmaTokenizerFast"]
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    torch.save(negative, tmp_path / "negative_prompt_embeds.pth")
    decoder = SanaDecoder.from_folder(tmp_path, image_size=32, steps=2, guidance=2.0)
    expected = SanaDecoder(transformer, autoencoder, scheduler, negative, 32, 2, 2.0)
    assert torch.equal(decoder(features(), seeded()), expected(features(), seeded()))
    assert decoder.cond_dim == 8
    torch.save({"a": negative}, tmp_path / "negative_prompt_embeds.pth")
    with pytest.raises(ValueError, match="holds a dict"):
        SanaDecoder.from_folder(tmp_path)


def test_bad_settings_and_features():
    with pytest.raises(ValueError, match="image_size=40 must be a positive multiple of 32"):
        made(image_size=40)
    with pytest.raises(ValueError, match="guidance=0"):
        made(guidance=0)
    with pytest.raises(ValueError, match="steps=0"):
        made(steps=0)
    with pytest.raises(ValueError, match="D=8"):
        made()(features(dim=6))
    *rest, negative = parts()
    with pytest.raises(ValueError, match=r"D=8, got \(1, 16, 7\)"):
        SanaDecoder(*rest, negative[:, :7], image_size=32)


def test_missing_extra_names_the_install_command(monkeypatch):
    decoder = made()
    monkeypatch.setitem(__import__("sys").modules, "diffusers", None)
    with pytest.raises(ImportError, match=r'pip install "unitok-vision\[diffusion\]"'):
        decoder(features())
