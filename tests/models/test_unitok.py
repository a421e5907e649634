from typing import Any

import pytest
import torch
from torch import nn
from unitok_weights import load_json

from unitok.models import TOKENIZERS
from unitok.models.unitok import read_published, rename, tiny, unitok, unitok_tiny
from unitok.tokenizer import Tokenizer


def checkpoint(args: dict[str, Any], state: dict[str, torch.Tensor] | None = None) -> dict[str, Any]:
    return {"args": args, "epoch": 0, "trainer": {"unitok": state or {}, "config": {}}}


def on_meta(arguments: dict[str, Any]) -> Tokenizer:
    with torch.device("meta"):
        return TOKENIZERS["unitok"](**arguments)


@pytest.mark.parametrize("config", ["base4", "large"])
def test_every_published_weight_has_its_place(config: str) -> None:
    keys, meta = load_json(config, "keys.json"), load_json(config, "meta.json")
    published = {name: torch.empty(spec["shape"], device="meta") for name, spec in keys.items()}
    found = read_published(checkpoint(meta["overrides"], published))
    tokenizer = on_meta(found.arguments)
    expected = {name: tensor.shape for name, tensor in tokenizer.state_dict().items()}
    assert {name: tensor.shape for name, tensor in found.state.items()} == expected
    rooms = {
        "encoder": tokenizer.encoder,
        "quant_proj": tokenizer.project_in,
        "quantizer": tokenizer.quantizer,
        "post_quant_proj": tokenizer.project_out,
        "decoder": tokenizer.decoder,
        "text_encoder": tokenizer.contrast.text,
        "fc_norm": tokenizer.contrast.image_norm,
        "projection": tokenizer.contrast.image_projection,
    }
    for name, room in rooms.items():
        assert sum(p.numel() for p in room.parameters()) == meta["params"][name], name
    trainable = sum(p.numel() for p in tokenizer.parameters() if p.requires_grad)
    assert trainable == meta["params_trainable"]


def test_missing_arguments_are_the_released_ones() -> None:
    found = read_published(checkpoint({}))
    assert on_meta(found.arguments).config == on_meta({}).config
    tokenizer = on_meta(found.arguments)
    assert (tokenizer.num_codebooks, tokenizer.codebook_size, tokenizer.quantizer.latent_dim) == (8, 4096, 64)
    assert tokenizer.bits_per_token == 96
    assert tokenizer.image_size == 256


def test_unknown_arguments_are_ignored() -> None:
    args = {"lpips_path": "nowhere", "grad_ckpt": True, "dtype": torch.bfloat16, "le": 0.0, "num_query": 0}
    assert read_published(checkpoint(args)) == read_published(checkpoint({}))


def test_every_argument_that_shapes_the_model_is_honoured() -> None:
    args = {
        "model": "vitamin_base",
        "quant_proj": "linear",
        "num_codebooks": 4,
        "vocab_size": 1024,
        "vocab_width": 24,
        "img_size": 512,
        "embed_dim": 40,
        "text_width": 32,
        "text_heads": 2,
        "text_layers": 3,
        "text_vocab_size": 99,
        "text_context_length": 11,
    }
    tokenizer = on_meta(read_published(checkpoint(args)).arguments)
    assert tokenizer.quantizer.codebooks.shape == (4, 256, 6)
    assert isinstance(tokenizer.project_in, nn.Linear)
    assert tokenizer.project_in.weight.shape == (24, 768)
    assert tokenizer.project_out.weight.shape == (768, 24)
    assert tokenizer.image_size == 512
    assert len(tokenizer.encoder.blocks) == len(tokenizer.decoder.blocks) == 14
    text = tokenizer.contrast.text
    assert text.token_embedding.weight.shape == (99, 32)
    assert text.positional_embedding.shape == (11, 32)
    assert text.text_projection.shape == (32, 40)
    assert len(text.transformer.resblocks) == 3
    assert text.transformer.resblocks[0].attn.num_heads == 2
    assert tokenizer.contrast.image_projection.weight.shape == (40, 768)


@pytest.mark.parametrize(("width", "heads"), [(32, 24), (64, 12), (16, 48)])
def test_heads_of_the_attention_projection_follow_the_latent_width(width: int, heads: int) -> None:
    arguments = read_published(checkpoint({"model": "vitamin_base", "vocab_width": width})).arguments
    tokenizer = on_meta(arguments)
    assert tokenizer.project_in.num_heads == tokenizer.project_out.num_heads == heads


def test_codebooks_are_stacked_in_their_order() -> None:
    books = [torch.full((4, 2), float(k)) for k in range(11)]
    state = {f"quantizer.codebooks.{k}.codebook.weight": book for k, book in enumerate(books)}
    state |= {f"quantizer.codebooks.{k}.vocab_usage": torch.zeros(4) for k in range(11)}
    found = read_published(checkpoint({"num_codebooks": 11, "vocab_size": 44, "vocab_width": 22}, state))
    assert list(found.state) == ["quantizer.codebooks"]
    assert found.state["quantizer.codebooks"][:, 0, 0].tolist() == list(range(11))


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"num_query": 8}, "num_query=8: register tokens have no place on a grid"),
        ({"model": "vitamin_small"}, "vitamin_small"),
        ({"model": "vit_huge"}, "vit_huge"),
        ({"quant_proj": "conv"}, "quant_proj='conv'"),
        ({"num_codebooks": 3, "vocab_size": 100}, "vocab_size=100 must be a multiple of num_codebooks=3"),
    ],
)
def test_what_cannot_be_honoured_is_refused(args: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_published(checkpoint(args))


@pytest.mark.parametrize("other", [{}, {"args": {}}, {"args": {}, "trainer": []}, {"state_dict": {}}])
def test_files_of_another_kind_are_left_to_other_readers(other: dict[str, Any]) -> None:
    assert read_published(other) is None


def test_names_typed_out_by_hand() -> None:
    names = {
        "encoder.patch_embed.backbone.stages.1.0.pre_norm.bias": "encoder.stages.stages.1.0.pre_norm.bias",
        "quant_proj.attn.q_bias": "project_in.q_bias",
        "post_quant_proj.attn.proj.weight": "project_out.attn_proj.weight",
        "decoder.up_conv1.conv.bias": "decoder.up1.bias",
        "decoder.up_conv2.0.up.conv.weight": "decoder.up2.0.up.weight",
        "decoder.up_conv3.0.shortcut.conv.weight": "decoder.up3.0.shortcut.weight",
        "decoder.up_conv4.conv1.conv.weight": "decoder.up4.weight",
        "decoder.up_conv4.norm1.bias": "decoder.out_norm.bias",
        "decoder.up_conv4.conv2.weight": "decoder.out_conv.weight",
        "text_encoder.transformer.resblocks.3.mlp.c_fc.bias": "contrast.text.transformer.resblocks.3.mlp.c_fc.bias",
        "fc_norm.weight": "contrast.image_norm.weight",
        "projection.bias": "contrast.image_projection.bias",
        "logit_scale": "contrast.logit_scale",
    }
    assert {name: rename(name) for name in names} == names


def test_the_config_rebuilds_the_tokenizer() -> None:
    with torch.device("meta"):
        for tokenizer in (unitok(size="base", projection="linear"), unitok_tiny(num_codebooks=4)):
            again = TOKENIZERS[tokenizer.config["tokenizer"]](**tokenizer.config["arguments"])
            shapes = [{name: t.shape for name, t in each.state_dict().items()} for each in (tokenizer, again)]
            assert shapes[0] == shapes[1]


@torch.no_grad()
def test_initialisation_follows_the_published_rule() -> None:
    torch.manual_seed(0)
    tokenizer = tiny()
    books = tokenizer.quantizer.codebooks
    assert books.abs().max() <= 8**-0.5 / 36
    assert books.std() == pytest.approx(8**-0.5 / 36 / 3**0.5, rel=0.1)
    for linear in (tokenizer.decoder.blocks[0].mlp.w0, tokenizer.project_in.qkv, tokenizer.project_out.proj):
        assert linear.weight.std() == pytest.approx(0.02, rel=0.1)
        assert linear.bias is None or not linear.bias.any()
    conv = tokenizer.decoder.up1.weight
    fans = conv.shape[0] * 9 + conv.shape[1] * 9
    assert conv.std() == pytest.approx(0.5 * (2 / fans) ** 0.5, rel=0.05)
    assert tokenizer.encoder.pos_embed.abs().max() == 0


def test_the_small_default_is_small() -> None:
    with torch.device("meta"):
        tokenizer = unitok_tiny()
    assert sum(p.numel() for p in tokenizer.parameters()) < 20e6
