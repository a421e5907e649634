"""UniTok: multi-codebook quantization between a ViTamin encoder and its mirror image (arXiv 2502.20321)."""

import re
from typing import Any, Literal

import torch
from torch import nn

from unitok.decoders import HybridDecoder, ViTaminDecoder
from unitok.encoders import HybridEncoder, ViTaminEncoder
from unitok.layers import initialise
from unitok.models.catalogue import Published, remember_arguments
from unitok.projectors import AttentionProjector
from unitok.quantizers import MultiCodebookQuantizer
from unitok.text import ContrastiveHead, TextTower
from unitok.tokenizer import Tokenizer

SIZES: dict[str, tuple[tuple[int, int, int], int, int]] = {  # widths of the two stages and the blocks; depth; heads
    "base": ((128, 256, 768), 14, 12),
    "large": ((160, 320, 1024), 31, 16),
}


@remember_arguments
def unitok(
    size: Literal["base", "large"] = "large",
    num_codebooks: int = 8,
    codebook_size: int = 4096,
    latent_dim: int = 64,
    projection: Literal["attention", "linear"] = "attention",
    embed_dim: int = 768,
    text_width: int = 768,
    text_heads: int = 12,
    text_layers: int = 12,
    text_vocab_size: int = 49408,
    text_context_length: int = 77,
    image_size: int = 256,
    drop_path: float = 0.0,
    use_entropy: bool = False,
) -> Tokenizer:
    """The published architecture; the defaults are those of the released `unitok_tokenizer.pth` (820 M parameters).

    Args:
        size: ViTamin size of encoder and decoder.
        num_codebooks: K.
        codebook_size: V, of ONE codebook.
        latent_dim: C, of all codebooks together.
        projection: how features become latents and back.
        embed_dim: E.
        text_width: channels of the text tower.
        text_heads: its heads.
        text_layers: its layers.
        text_vocab_size: its vocabulary.
        text_context_length: its longest text.
        image_size: the side it was trained on.
        drop_path: stochastic depth of both ViTs, in training.
        use_entropy: compute the entropy term, in training.
    """
    widths, depth, heads = SIZES[size]
    dim = widths[-1]
    text = TextTower(embed_dim, text_width, text_heads, text_layers, text_vocab_size, text_context_length)
    return Tokenizer(
        encoder=ViTaminEncoder(widths, (2, 4), depth, heads, drop_path),
        project_in=_projector(projection, dim, latent_dim, latent_dim),
        quantizer=MultiCodebookQuantizer(num_codebooks, codebook_size, latent_dim, use_entropy=use_entropy),
        project_out=_projector(projection, latent_dim, dim, latent_dim),
        decoder=ViTaminDecoder(widths, (2, 4), depth, heads, drop_path),
        contrast=ContrastiveHead(dim, embed_dim, text),
        image_size=image_size,
    )


@remember_arguments
def unitok_tiny(
    num_codebooks: int = 8, codebook_size: int = 4096, latent_dim: int = 64, use_entropy: bool = False
) -> Tokenizer:
    """The small tokenizer that comes with the package, for laptops: smaller rooms in the same order.

    Args:
        num_codebooks: K.
        codebook_size: V, of ONE codebook.
        latent_dim: C, of all codebooks together.
        use_entropy: compute the entropy term, in training.
    """
    dim, embed_dim = 256, 256
    text = TextTower(embed_dim, width=256, heads=4, layers=2, word_dim=64)
    return Tokenizer(
        encoder=HybridEncoder(conv_width=64, conv_depth=2, dim=dim, depth=4, num_heads=4),
        project_in=_projector("attention", dim, latent_dim, latent_dim),
        quantizer=MultiCodebookQuantizer(num_codebooks, codebook_size, latent_dim, use_entropy=use_entropy),
        project_out=_projector("attention", latent_dim, dim, latent_dim),
        decoder=HybridDecoder(conv_width=64, conv_depth=2, dim=dim, depth=4, num_heads=4),
        contrast=ContrastiveHead(dim, embed_dim, text),
    )


def tiny() -> Tokenizer:
    """An untrained tokenizer of this family that builds and runs in a blink, for tests."""
    text = TextTower(embed_dim=16, width=32, heads=2, layers=1, word_dim=8)
    return Tokenizer(
        encoder=ViTaminEncoder((8, 16, 32), (1, 1), depth=1, num_heads=2),
        project_in=AttentionProjector(32, 16, num_heads=2),
        quantizer=MultiCodebookQuantizer(num_codebooks=2, codebook_size=32, latent_dim=16),
        project_out=AttentionProjector(16, 32, num_heads=2),
        decoder=ViTaminDecoder((8, 16, 32), (1, 1), depth=1, num_heads=2),
        contrast=ContrastiveHead(32, 16, text),
        image_size=64,
    )


def _projector(kind: str, in_dim: int, out_dim: int, head_dim: int) -> nn.Module:
    if kind == "linear":
        return nn.Linear(in_dim, out_dim).apply(initialise)
    return AttentionProjector(in_dim, out_dim, num_heads=max(in_dim, out_dim) // head_dim)


_RENAMES = [  # published name -> ours, the first match of each line applied
    (r"^encoder\.patch_embed\.backbone\.", "encoder.stages."),
    (r"^quant_proj\.", "project_in."),
    (r"^post_quant_proj\.", "project_out."),
    (r"^(project_\w+)\.attn\.proj\.", r"\1.attn_proj."),
    (r"^(project_\w+)\.attn\.", r"\1."),
    (r"^decoder\.up_conv1\.conv\.", "decoder.up1."),
    (r"^decoder\.up_conv([23])\.", r"decoder.up\1."),
    (r"\.(shortcut|up)\.conv\.", r".\1."),
    (r"^decoder\.up_conv4\.conv1\.conv\.", "decoder.up4."),
    (r"^decoder\.up_conv4\.norm1\.", "decoder.out_norm."),
    (r"^decoder\.up_conv4\.conv2\.", "decoder.out_conv."),
    (r"^text_encoder\.", "contrast.text."),
    (r"^fc_norm\.", "contrast.image_norm."),
    (r"^projection\.", "contrast.image_projection."),
    (r"^logit_scale$", "contrast.logit_scale"),
]
_STATISTICS = ("vocab_usage", "zero_k_bias")  # a running average, and a constant zero


def rename(name: str) -> str:
    """A published weight name -> ours."""
    for pattern, replacement in _RENAMES:
        name = re.sub(pattern, replacement, name)
    return name


def read_published(checkpoint: dict[str, Any]) -> Published | None:
    """The official layout, `ckpt["args"]` and `ckpt["trainer"]["unitok"]`; None where the file is of another kind.

    Raises:
        ValueError: arguments that no grid tokenizer can honour (register tokens, an unknown size or projection).
    """
    trainer = checkpoint.get("trainer")
    if "args" not in checkpoint or not isinstance(trainer, dict) or "unitok" not in trainer:
        return None
    if not isinstance(checkpoint["args"], dict) or not isinstance(trainer["unitok"], dict):
        raise ValueError("args and trainer.unitok of a UniTok checkpoint must be tables of names and values")
    args, published = dict(checkpoint["args"]), dict(trainer["unitok"])
    if wrong := [f"{name}={args[name]!r}" for name in _WHOLE_NUMBERS if not _is_count(args.get(name, 1))]:
        raise ValueError(f"args of a UniTok checkpoint must be whole numbers above 0: {', '.join(wrong)}")
    if args.get("num_query", 0):
        raise ValueError(f"num_query={args['num_query']}: register tokens have no place on a grid of codes")
    size = str(args.get("model", "vitamin_large")).removeprefix("vitamin_")
    if size not in SIZES:
        raise ValueError(f"model={args['model']!r} is not one of {[f'vitamin_{name}' for name in SIZES]}")
    projections = {"attn": "attention", "linear": "linear"}
    if (projection := args.get("quant_proj", "attn")) not in projections:
        raise ValueError(f"quant_proj={projection!r} is not one of {list(projections)}")
    books, total = args.get("num_codebooks", 8), args.get("vocab_size", 32768)
    if total % books:
        raise ValueError(f"vocab_size={total} must be a multiple of num_codebooks={books}")
    arguments = {
        "size": size,
        "num_codebooks": books,
        "codebook_size": total // books,
        "latent_dim": args.get("vocab_width", 64),
        "projection": projections[projection],
        "embed_dim": args.get("embed_dim", 768),
        **{f"text_{name}": args.get(f"text_{name}", default) for name, default in _TEXT_DEFAULTS.items()},
        "image_size": args.get("img_size", 256),
    }
    codebooks = [published.pop(f"quantizer.codebooks.{k}.codebook.weight", None) for k in range(books)]
    state = {rename(name): tensor for name, tensor in published.items() if not name.endswith(_STATISTICS)}
    if all(isinstance(book, torch.Tensor) and book.shape == codebooks[0].shape for book in codebooks):
        state["quantizer.codebooks"] = torch.stack(codebooks)
    return Published("unitok", arguments, state)


_TEXT_DEFAULTS = {"width": 768, "heads": 12, "layers": 12, "vocab_size": 49408, "context_length": 77}
_WHOLE_NUMBERS = (
    "num_codebooks",
    "vocab_size",
    "vocab_width",
    "embed_dim",
    "img_size",
    *map("text_{}".format, _TEXT_DEFAULTS),
)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
