"""AR-DTok: the autoregressive de-tokenizers of Tar (arXiv 2506.18898), their sizes and their published files."""

import os
import pickle
import re
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from unitok.decoders.prefix_transformer import PrefixTransformer, swiglu_dim
from unitok.files import replacing

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


def ar_dtok(
    size: Size = "LP",
    image_size: int = 256,
    cond_dim: int = 1152,
    max_condition: int = 729,
    codebook_size: int = 16384,
    pixel_stride: int = 16,
    fixed_positions: bool = False,
    dropout: float = 0.0,
) -> PrefixTransformer:
    """The published architecture with random weights; "LP" at 256, 512 or 1024 px is what was released.

    Args:
        size: depth, heads and width.
        image_size: side of the images it writes.
        cond_dim: D of the features it reads: 1152 for TA-Tok.
        max_condition: the longest condition: 729 for TA-Tok, h * w of any other tokenizer.
        codebook_size: V of the pixel tokenizer.
        pixel_stride: pixels per pixel code.
        fixed_positions: sin-cos positions instead of learned ones.
        dropout: in training; 0.1 was published.

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


def load_ar_dtok(path: str | os.PathLike[str]) -> PrefixTransformer:
    """A published `ar_dtok_*.pth` (or one of `write_ar_dtok`), in eval mode and float32.

    Raises:
        FileNotFoundError: nothing there.
        ValueError: more than weights and plain values, or not an autoregressive de-tokenizer (see `read_published`).
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no de-tokenizer file at {path}")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(f"{path} is refused: it holds more than weights and plain values") from error
    except (RuntimeError, EOFError, KeyError) as error:
        raise ValueError(f"{path} is not a readable checkpoint: {str(error).splitlines()[0]}") from error
    return read_published(checkpoint)


def read_published(checkpoint: Any) -> PrefixTransformer:
    """The official layout, `ckpt["model"]` with name, args and sd -> the transformer with those weights, strictly.

    Raises:
        ValueError: another layout; a condition other than features (`class_cond`, `indice_cond`), frame prediction;
            weights that do not fit, first of all a position table of another length.
    """
    model = checkpoint.get("model") if isinstance(checkpoint, dict) else None
    if not isinstance(model, dict) or not {"name", "args", "sd"} <= model.keys():
        raise ValueError("this is no autoregressive de-tokenizer: a 'model' with 'name', 'args' and 'sd' is expected")
    name, args, published = str(model["name"]), dict(model["args"]), model["sd"]
    if not name.startswith("llama-abs"):
        raise ValueError(f"model name {name!r} is no autoregressive de-tokenizer; those are called 'llama-abs-...'")
    if (kind := args.get("model_type", "class_cond")) != "clip_cond":
        raise ValueError(f"model_type={kind!r} cannot be read: only 'clip_cond', conditioned on features, is supported")
    if args.get("frame_prediction", False):
        raise ValueError("frame_prediction=True cannot be read: video de-tokenizers are not supported")
    state = {_rename(key): tensor for key, tensor in published.items()}
    with torch.device("meta"):
        transformer = _skeleton(name, args)
    _check_positions(transformer, state)
    try:
        transformer.load_state_dict({key: tensor.float() for key, tensor in state.items()}, assign=True)
    except RuntimeError as error:
        raise ValueError(f"the weights of {name} do not fit: {error}") from error
    return transformer.eval()


def write_ar_dtok(transformer: PrefixTransformer, path: str | os.PathLike[str]) -> Path:
    """Write a trained transformer in the published layout, whole or not at all; `load_ar_dtok` reads it back."""
    first: Any = transformer.blocks[0]
    args = {
        "dim": transformer.head.in_features,
        "n_layer": len(transformer.blocks),
        "n_head": first.heads,
        "n_kv_head": first.kv_heads,
        "multiple_of": first.gate.out_features,
        "ffn_dim_multiplier": first.gate.out_features / int(8 * transformer.head.in_features / 3),
        "norm_eps": first.mlp_norm.eps,
        "model_type": "clip_cond",
        "cond_dim": transformer.cond_dim,
        "vocab_size": transformer.codebook_size,
        "cls_token_num": transformer.max_condition,
        "max_seq_len": transformer.num_codes,
        "use_fixed_pe": not isinstance(transformer.positions, torch.nn.Parameter),
    }
    state = {_rename(key, back=True): tensor.detach().cpu() for key, tensor in transformer.state_dict().items()}
    with replacing(path) as temporary:
        torch.save({"model": {"name": "llama-abs", "args": args, "sd": state}}, temporary)
    return Path(path)


def _skeleton(name: str, args: dict[str, Any]) -> PrefixTransformer:
    size = name.removeprefix("llama-abs").removeprefix("-")
    depth, heads, dim = SIZES.get(size, (32, 32, 4096))
    dim = args.get("dim", dim)
    return PrefixTransformer(
        cond_dim=args.get("cond_dim", 1152),
        codebook_size=args.get("vocab_size", 8192),
        num_codes=args.get("max_seq_len", 2048),
        max_condition=args.get("cls_token_num", 1),
        dim=dim,
        depth=args.get("n_layer", depth),
        num_heads=args.get("n_head", heads),
        num_kv_heads=args.get("n_kv_head"),
        mlp_dim=swiglu_dim(dim, args.get("multiple_of", 256), args.get("ffn_dim_multiplier")),
        fixed_positions=args.get("use_fixed_pe", False),
        norm_eps=args.get("norm_eps", 1e-5),
    )


def _check_positions(transformer: PrefixTransformer, state: dict[str, Tensor]) -> None:
    expected = tuple(transformer.positions.shape)
    found = tuple(state["positions"].shape) if "positions" in state else None
    if found != expected:
        raise ValueError(
            f"the position table abs_pe has shape {found}, but max_seq_len={transformer.num_codes} and "
            f"cls_token_num={transformer.max_condition} need {expected}: the file does not belong to these arguments"
        )


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


def _rename(name: str, back: bool = False) -> str:
    """A published weight name -> ours, or back."""
    for published, ours in _RENAMES.items():
        old, new = (ours, published) if back else (published, ours)
        name = re.sub(rf"(^|\.){re.escape(old)}(?=\.|$)", rf"\g<1>{new}", name)
    return name
