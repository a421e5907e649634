"""VQ-16: the convolutional VQGAN whose codes AR-DTok writes (LlamaGen, arXiv 2406.06525)."""

import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from unitok.decoders.vqgan import VQGANDecoder
from unitok.encoders.vqgan import VQGANEncoder
from unitok.models.catalogue import Published, remember_arguments
from unitok.quantizers import MultiCodebookQuantizer
from unitok.tokenizer import Tokenizer


@remember_arguments
def vq16(
    channels: int = 128,
    multipliers: Sequence[int] = (1, 1, 2, 2, 4),
    dim: int = 256,
    codebook_size: int = 16384,
    latent_dim: int = 8,
    encoder_depth: int = 2,
    decoder_depth: int = 3,
    image_size: int = 256,
) -> Tokenizer:
    """The released architecture; the defaults are those of `vq_ds16_t2i.pt` (72 M parameters, stride 16).

    Args:
        channels: width of the finest level.
        multipliers: width of each level over `channels`; the stride is 2 ** (levels - 1). VQ-8 has (1, 2, 2, 4).
        dim: D.
        codebook_size: V; K is 1.
        latent_dim: C.
        encoder_depth: residual blocks of an encoder level.
        decoder_depth: residual blocks of a decoder level.
        image_size: the side it was trained on.
    """
    return Tokenizer(
        encoder=VQGANEncoder(channels, multipliers, dim, encoder_depth),
        project_in=nn.Linear(dim, latent_dim),
        quantizer=MultiCodebookQuantizer(1, codebook_size, latent_dim),
        project_out=nn.Linear(latent_dim, dim),
        decoder=VQGANDecoder(channels, multipliers, dim, decoder_depth),
        image_size=image_size,
    )


def tiny() -> Tokenizer:
    """An untrained tokenizer of this family that builds and runs in a blink, for tests."""
    return vq16(channels=32, multipliers=(1, 1, 1), dim=8, codebook_size=32, latent_dim=4, image_size=32)


_RENAMES = [  # published name -> ours
    (r"^((?:en|de)coder)\.mid\.", r"\1.middle."),
    (r"^((?:en|de)coder)\.norm_out\.", r"\1.norm."),
    (r"\.nin_shortcut\.", ".shortcut."),
    (r"^(.*\.(?:attn\.\d+|middle\.1)\.)proj_out\.", r"\1proj."),
    (r"^quant_conv\.", "project_in."),
    (r"^post_quant_conv\.", "project_out."),
]
_LEVEL = re.compile(r"^((?:en|de)coder)\.conv_blocks\.(\d+)\.(res|attn|downsample|upsample)\.(\d+|conv)\.(.*)$")


def read_published(checkpoint: dict[str, Any]) -> Published | None:
    """The official layout, `ckpt["model"]` with the weights alone; None where the file is of another kind.

    Its sizes are read off its tensors.

    Raises:
        ValueError: tensors that sizes are read from are missing or have other axes.
    """
    published = checkpoint.get("model")
    if not isinstance(published, dict) or not {"quantize.embedding.weight", "quant_conv.weight"} <= published.keys():
        return None
    levels = _count(published, r"encoder\.conv_blocks\.(\d+)\.")
    depths = {half: _count(published, rf"{half}\.conv_blocks\.0\.res\.(\d+)\.") for half in ("encoder", "decoder")}
    channels = _width(published, "encoder.conv_in.weight")
    widths = [_width(published, f"encoder.conv_blocks.{level}.res.0.conv1.weight") for level in range(levels)]
    if not levels or 0 in depths.values() or any(width % channels for width in widths):
        raise ValueError(f"no VQGAN has {levels} levels of widths {widths} over {channels} with {depths} blocks")
    codebook_size, latent_dim = published["quantize.embedding.weight"].shape
    arguments = {
        "channels": channels,
        "multipliers": [width // channels for width in widths],
        "dim": _width(published, "encoder.conv_out.weight"),
        "codebook_size": codebook_size,
        "latent_dim": latent_dim,
        "encoder_depth": depths["encoder"],
        "decoder_depth": depths["decoder"],
    }
    state = {
        _rename(name, levels, depths): tensor for name, tensor in published.items() if name != "quantize.codebook_used"
    }
    for name, tensor in state.items():
        if tensor.ndim == 4 and tensor.shape[2:] == (1, 1) and not name.endswith("shortcut.weight"):
            state[name] = tensor[:, :, 0, 0]
    state["quantizer.codebooks"] = state.pop("quantize.embedding.weight")[None]
    return Published("vq16", arguments, state)


def _count(published: dict[str, Tensor], pattern: str) -> int:
    return len({match[1] for name in published if (match := re.match(pattern, name))})


def _width(published: dict[str, Tensor], name: str) -> int:
    tensor = published.get(name)
    if not isinstance(tensor, torch.Tensor) or tensor.ndim != 4:
        raise ValueError(f"the checkpoint has no convolution {name}, from which sizes are read")
    return len(tensor)


def _rename(name: str, levels: int, depths: dict[str, int]) -> str:
    """A published weight name -> ours: a level is one row of blocks, attention after each where there is attention."""
    if match := _LEVEL.match(name):
        half, level, kind, index, rest = match[1], int(match[2]), match[3], match[4], match[5]
        attends = level == (levels - 1 if half == "encoder" else 0)
        step = 2 if attends else 1
        place = step * depths[half] if index == "conv" else step * int(index) + (kind == "attn")
        name = f"{half}.levels.{level}.{place}.{rest}"
        if kind == "attn":
            name = name.replace(".proj_out.", ".proj.")
    for pattern, replacement in _RENAMES:
        name = re.sub(pattern, replacement, name)
    return name
