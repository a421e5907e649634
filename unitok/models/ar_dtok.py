"""AR-DTok: the autoregressive de-tokenizers of Tar (arXiv 2506.18898), their sizes and their published files."""

import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from unitok.decoders.autoregressive import AutoregressiveDecoder
from unitok.decoders.prefix_transformer import PrefixTransformer, swiglu_dim
from unitok.files import replacing
from unitok.models.catalogue import Published, open_checkpoint

Size = Literal["S", "B", "L", "LP", "XL", "XXL", "XXXL"]

SIZES: dict[str, tuple[int, int, int]] = {  # depth, heads, dim
    "S": (12, 6, 384),
    "B": (12, 12, 768),
    "L": (24, 16, 1024),
    "LP": (30, 20, 1280),
    "XL": (36, 20, 1280),
    "XXL": (48, 24, 1536),
    "XXXL": (48, 40, 2560),
}


def ar_transformer(
    size: Size = "LP",
    image_size: int = 256,
    cond_dim: int = 1152,
    max_condition: int = 729,
    codebook_size: int = 16384,
    pixel_stride: int = 16,
    fixed_positions: bool = False,
    dropout: float = 0.1,
) -> PrefixTransformer:
    """The published architecture with random weights, to train; "LP" at 256, 512 or 1024 px is what was released.

    Args:
        size: depth, heads and width.
        image_size: side of the images it writes.
        cond_dim: D of the features it reads: 1152 for TA-Tok.
        max_condition: the longest condition: 729 for TA-Tok, h * w of any other tokenizer.
        codebook_size: V of the pixel tokenizer.
        pixel_stride: pixels per pixel code.
        fixed_positions: sin-cos positions instead of learned ones.
        dropout: in training.

    Raises:
        ValueError: an unknown size, an image_size that pixel_stride does not divide.
    """
    if size not in SIZES:
        raise ValueError(f"size={size!r} is not one of {list(SIZES)}")
    if image_size % pixel_stride:
        raise ValueError(f"image_size={image_size} must be a multiple of pixel_stride={pixel_stride}")
    depth, heads, dim = SIZES[size]
    return PrefixTransformer(
        cond_dim,
        codebook_size,
        num_codes=(image_size // pixel_stride) ** 2,
        max_condition=max_condition,
        dim=dim,
        depth=depth,
        num_heads=heads,
        fixed_positions=fixed_positions,
        dropout=dropout,
    )


def ar_dtok(
    transformer: dict[str, Any],
    pixels: dict[str, Any],
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    guidance: float = 4.0,
    guidance_interval: int | None = None,
) -> AutoregressiveDecoder:
    """A de-tokenizer from plain values.

    Args:
        transformer: arguments of `PrefixTransformer`.
        pixels: {"tokenizer": a name of the catalogue, "arguments": {...}}.
        temperature: as `AutoregressiveDecoder`.
        top_k: as there.
        top_p: as there.
        guidance: as there.
        guidance_interval: as there.
    """
    from unitok.models import TOKENIZERS

    if pixels.keys() != {"tokenizer", "arguments"} or pixels["tokenizer"] not in TOKENIZERS:
        raise ValueError(f"pixels={pixels!r} must hold 'tokenizer', one of {sorted(TOKENIZERS)}, and 'arguments'")
    written = TOKENIZERS[pixels["tokenizer"]](**pixels["arguments"])
    sampling = (temperature, top_k, top_p, guidance, guidance_interval)
    return AutoregressiveDecoder(PrefixTransformer(**transformer), written, *sampling)


def transformer_arguments(model: Mapping[str, Any]) -> dict[str, Any]:
    """`ckpt["model"]` of a published file -> the arguments of its `PrefixTransformer`.

    Raises:
        ValueError: a condition other than features (`class_cond`, `indice_cond`), frame prediction, or a position
            table that does not belong to the arguments.
    """
    args = model["args"]
    if (kind := args.get("model_type", "class_cond")) != "clip_cond":
        raise ValueError(f"model_type={kind!r} cannot be read: only 'clip_cond', conditioned on features, is supported")
    if args.get("frame_prediction", False):
        raise ValueError("frame_prediction=True cannot be read: de-tokenizers of videos are not supported")
    size = str(model["name"]).removeprefix("llama-abs").removeprefix("-")
    depth, heads, dim = SIZES.get(size, (32, 32, 4096))
    arguments = {
        "cond_dim": args.get("cond_dim", 1152),
        "codebook_size": args.get("vocab_size", 8192),
        "num_codes": args.get("max_seq_len", 2048),
        "max_condition": args.get("cls_token_num", 1),
        "dim": args.get("dim", dim),
        "depth": args.get("n_layer", depth),
        "num_heads": args.get("n_head", heads),
        "num_kv_heads": args.get("n_kv_head"),
        "mlp_dim": swiglu_dim(args.get("dim", dim), args.get("multiple_of", 256), args.get("ffn_dim_multiplier")),
        "fixed_positions": args.get("use_fixed_pe", False),
        "norm_eps": args.get("norm_eps", 1e-5),
    }
    table = model["sd"].get("abs_pe")
    expected = (1, arguments["num_codes"] + arguments["max_condition"] - 1, arguments["dim"])
    if table is None or tuple(table.shape) != expected:
        found = None if table is None else tuple(table.shape)
        raise ValueError(
            f"the position table abs_pe has shape {found}, but max_seq_len={arguments['num_codes']}, cls_token_num="
            f"{arguments['max_condition']} and dim={arguments['dim']} need {expected}: the file contradicts itself"
        )
    return arguments


def read_transformer(checkpoint: Mapping[str, Any]) -> PrefixTransformer:
    """An opened `ar_dtok_*.pth` -> its transformer alone, in eval mode; strict about every weight.

    Raises:
        ValueError: another kind of file, weights that do not fit, and as `transformer_arguments`.
    """
    if (model := _model(checkpoint)) is None:
        raise ValueError("this is no autoregressive de-tokenizer: model name 'llama-abs-...', 'args' and 'sd' expected")
    with torch.device("meta"):
        transformer = PrefixTransformer(**transformer_arguments(model))
    state = {rename(name): tensor.float() for name, tensor in model["sd"].items()}
    try:
        transformer.load_state_dict(state, assign=True)
    except RuntimeError as error:
        raise ValueError(f"the weights of {model['name']} do not fit: {error}") from error
    return transformer.eval()


def read_published(checkpoint: Mapping[str, Any], pixels: str | None) -> Published | None:
    """An opened `ar_dtok_*.pth` and the file of its pixel tokenizer; None where the checkpoint is of another kind.

    Raises:
        ValueError: no pixel tokenizer given, one of several codebooks, and as `transformer_arguments`.
    """
    if (model := _model(checkpoint)) is None:
        return None
    arguments = transformer_arguments(model)
    if pixels is None:
        raise ValueError('an autoregressive de-tokenizer writes pixel codes: give pixels="vq_ds16_t2i.pt" too')
    written = _read_pixels(Path(pixels))
    state = {f"transformer.{rename(name)}": tensor for name, tensor in model["sd"].items()}
    state |= {f"pixels.{name}": tensor for name, tensor in written.state.items()}
    writer = {"tokenizer": written.tokenizer, "arguments": written.arguments}
    return Published("ar_dtok", {"transformer": arguments, "pixels": writer}, state)


def describe(decoder: AutoregressiveDecoder) -> dict[str, Any] | None:
    """The arguments of `ar_dtok` that build a decoder of this shape; None where its pixel tokenizer has no builder."""
    if decoder.pixels.config is None:
        return None
    return {
        "transformer": _describe_transformer(decoder.transformer),
        "pixels": decoder.pixels.config,
        **decoder.sampling._asdict(),
    }


def write_transformer(transformer: PrefixTransformer, path: str | os.PathLike[str]) -> Path:
    """Write a trained transformer in the published layout, whole or not at all: it loads as a published file does.

    Raises:
        ValueError: it has a condition_norm, which that layout does not know.
    """
    if transformer.condition_norm:
        raise ValueError("the published layout has no condition_norm: such a transformer is saved with its tokenizer")
    ours = _describe_transformer(transformer)
    args = {
        "dim": ours["dim"],
        "n_layer": ours["depth"],
        "n_head": ours["num_heads"],
        "n_kv_head": ours["num_kv_heads"],
        "multiple_of": math.gcd(ours["mlp_dim"], 256),
        "ffn_dim_multiplier": (ours["mlp_dim"] + 0.5) / swiglu_dim(ours["dim"], 1),  # rounds down to the inner width
        "norm_eps": ours["norm_eps"],
        "model_type": "clip_cond",
        "cond_dim": ours["cond_dim"],
        "vocab_size": ours["codebook_size"],
        "cls_token_num": ours["max_condition"],
        "max_seq_len": ours["num_codes"],
        "use_fixed_pe": ours["fixed_positions"],
    }
    state = {rename(name, back=True): tensor.detach().cpu() for name, tensor in transformer.state_dict().items()}
    with replacing(path) as temporary:
        torch.save({"model": {"name": "llama-abs", "args": args, "sd": state}}, temporary)
    return Path(path)


def rename(name: str, back: bool = False) -> str:
    """A published weight name of the transformer -> ours, or back."""
    for published, ours in _RENAMES.items():
        old, new = (ours, published) if back else (published, ours)
        name = re.sub(rf"(^|\.){re.escape(old)}(?=\.|$)", rf"\g<1>{new}", name)
    return name


_RENAMES = {  # published part of a name: ours
    "abs_pe": "positions",
    "clip_proj": "condition",
    "tok_embeddings": "embedding",
    "layers": "blocks",
    "attention.wqkv": "qkv",
    "attention.wo": "proj",
    "feed_forward.w1": "gate",
    "feed_forward.w2": "down",
    "feed_forward.w3": "up",
    "ffn_norm": "mlp_norm",
    "output": "head",
}


def _describe_transformer(transformer: PrefixTransformer) -> dict[str, Any]:
    block: Any = transformer.blocks[0]
    return {
        "cond_dim": transformer.cond_dim,
        "codebook_size": transformer.codebook_size,
        "num_codes": transformer.num_codes,
        "max_condition": transformer.max_condition,
        "dim": transformer.head.in_features,
        "depth": len(transformer.blocks),
        "num_heads": block.heads,
        "num_kv_heads": block.kv_heads,
        "mlp_dim": block.gate.out_features,
        "fixed_positions": not isinstance(transformer.positions, nn.Parameter),
        "norm_eps": block.mlp_norm.eps,
        "condition_norm": transformer.condition_norm,
    }


def _model(checkpoint: Mapping[str, Any]) -> dict[str, Any] | None:
    model = checkpoint.get("model")
    if not isinstance(model, dict) or not {"name", "args", "sd"} <= model.keys():
        return None
    return model if str(model["name"]).startswith("llama-abs") else None


def _read_pixels(path: Path) -> Published:
    from unitok.models import READERS

    if not path.is_file():
        raise FileNotFoundError(f"no pixel tokenizer file at {path}")
    checkpoint = open_checkpoint(path)
    for reader in READERS:
        if (found := reader(checkpoint)) is not None:
            return found
    raise ValueError(f"{path} is no tokenizer this library knows, so it cannot be the pixel tokenizer")
