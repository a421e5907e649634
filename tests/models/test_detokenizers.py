import pytest
import torch
from diffusers import SanaPipeline

import unitok
from tests.decoders.stand_ins import transformer
from tests.decoders.test_diffusion import parts as sana_parts
from tests.models.test_ar_dtok import published as published_ar
from tests.parity.tar import fixtures
from unitok.decoders import AutoregressiveDecoder, FlowDecoder
from unitok.decoders.prefix_transformer import PrefixTransformer
from unitok.models import ar_dtok, detokenizers, vq16
from unitok.models.unitok import unitok_tiny


def seeded(number: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(number)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """TA-Tok and VQ as their authors write them, and an AR-DTok of their widths."""
    folder = tmp_path_factory.mktemp("published")
    torch.save(fixtures.ta_tok_checkpoint("tatok_tiny"), folder / "ta_tok.pth")
    torch.save(fixtures.vq_checkpoint("vq_tiny"), folder / "vq.pt")
    torch.manual_seed(0)
    made = PrefixTransformer(96, 256, num_codes=16, max_condition=36, dim=16, depth=1, num_heads=2, mlp_dim=32)
    torch.nn.init.normal_(made.head.weight)
    ar_dtok.write_transformer(made, folder / "ar.pth")
    return folder


def test_published_autoregressive_files_decode_every_scale_and_save(files, tmp_path):
    tokenizer = unitok.load_tokenizer(
        files / "ta_tok.pth", encoder_heads=4, detokenizer=str(files / "ar.pth"), pixels=str(files / "vq.pt")
    )
    tokenizer.decoder.sampling = tokenizer.decoder.sampling._replace(guidance=2.0, top_k=50)
    images = torch.rand(2, 3, 84, 84, generator=seeded())
    for scale in (1, 2, 3):
        codes = tokenizer.encode(images, scale=scale)
        assert tokenizer.decode(codes, seeded()).shape == (2, 3, 8, 8)
    words = tokenizer.decoder.sample(tokenizer.features(codes), seeded())
    pixels = unitok.load_tokenizer(files / "vq.pt")
    assert torch.equal(tokenizer.decode(codes, seeded()), pixels.decode(words))
    unitok.save_tokenizer(tokenizer, tmp_path / "whole")
    again = unitok.load_tokenizer(tmp_path / "whole")
    again.decoder.sampling = tokenizer.decoder.sampling
    assert torch.equal(again.decode(codes, seeded()), tokenizer.decode(codes, seeded()))


def test_a_condition_of_another_width_is_refused(files, tmp_path):
    torch.save(published_ar(), tmp_path / "narrow.pth")
    torch.save(fixtures.vq_checkpoint("vq_tiny"), tmp_path / "vq.pt")
    with pytest.raises(ValueError, match=r"features of 8 channels, this tokenizer's features have 96|codebook"):
        unitok.load_tokenizer(
            files / "ta_tok.pth",
            encoder_heads=4,
            detokenizer=str(tmp_path / "narrow.pth"),
            pixels=str(tmp_path / "vq.pt"),
        )


def test_published_sana_folder_decodes(files, tmp_path):
    denoiser, autoencoder, scheduler, _ = sana_parts(caption_channels=96)
    SanaPipeline(None, None, autoencoder, denoiser, scheduler).save_pretrained(tmp_path / "sana")
    torch.save(torch.randn(36, 96), tmp_path / "sana/negative_prompt_embeds.pth")
    tokenizer = unitok.load_tokenizer(files / "ta_tok.pth", encoder_heads=4, detokenizer=str(tmp_path / "sana"))
    tokenizer.decoder.image_size, tokenizer.decoder.steps, tokenizer.decoder.guidance = 32, 2, 3.0
    codes = tokenizer.encode(torch.rand(2, 3, 84, 84), scale=2)
    images = tokenizer.decode(codes, seeded())
    assert images.shape == (2, 3, 32, 32)
    unitok.save_tokenizer(tokenizer, tmp_path / "whole")
    config = tokenizer.config["arguments"]["detokenizer"]
    assert config["name"] == "sana"
    again = unitok.load_tokenizer(tmp_path / "whole")
    again.decoder.image_size, again.decoder.steps, again.decoder.guidance = 32, 2, 3.0
    assert torch.equal(again.decode(codes, seeded()), images)


def small_ar(dim: int) -> AutoregressiveDecoder:
    torch.manual_seed(0)
    made = PrefixTransformer(dim, 32, num_codes=4, max_condition=16, dim=16, depth=1, num_heads=2)
    return AutoregressiveDecoder(made, vq16.tiny())


@pytest.mark.parametrize("kind", ["ar_dtok", "flow"])
def test_a_trained_decoder_is_saved_with_the_tokenizer_it_reads(kind, tmp_path):
    base = unitok_tiny()
    decoder = small_ar(256) if kind == "ar_dtok" else FlowDecoder(256, 32, 8, dim=16, depth=1, num_heads=2, steps=2)
    described = detokenizers.describe(decoder)
    assert described["name"] == kind
    whole = detokenizers.detokenized(tokenizer=base.config, detokenizer=described).eval()
    unitok.save_tokenizer(whole, tmp_path)
    again = unitok.load_tokenizer(tmp_path)
    codes = torch.randint(4096, (1, 8, 2, 2), generator=seeded())
    assert torch.equal(again.decode(codes, seeded()), whole.decode(codes, seeded()))
    assert unitok.load_tokenizer(tmp_path, parts="encode").decoder is None


def test_unknown_names():
    with pytest.raises(ValueError, match="with a name of"):
        detokenizers.detokenized(unitok_tiny().config, {"name": "gan", "arguments": {}})
    with pytest.raises(ValueError, match="must hold 'tokenizer'"):
        detokenizers.detokenized({"tokenizer": "none", "arguments": {}}, {"name": "flow", "arguments": {}})
    with pytest.raises(ValueError, match="must hold 'tokenizer'"):
        ar_dtok.ar_dtok({}, {"tokenizer": "none", "arguments": {}})
    assert detokenizers.describe(transformer()) is None
