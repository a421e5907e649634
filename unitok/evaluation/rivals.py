"""What people would use instead, behind the same two words: encode and decode.

A rival is anything with `image_size`, `encode(images) -> stored`, `decode(stored) -> images` and
`bits(stored) -> [bits of each image]`; what it stores is its own affair. A Tokenizer stores codes and needs no adapter.
"""

import importlib.util
import io
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from unitok.hub import load_tokenizer
from unitok.images import load_image, to_pil
from unitok.tokenizer import Tokenizer

Precision = Literal["float32", "bfloat16", "float16"]
DTYPES: dict[str, torch.dtype] = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class Rival(Protocol):
    """The contract of everything that can be measured for reconstruction.

    Images are float32 on the device; one that computes in another dtype casts by itself. One that stores integer codes
    (B, K, h, w) also has `codebook_size`, and its usage is counted.
    """

    image_size: int

    def encode(self, images: Tensor) -> Any:
        """(B, 3, H, W) images in [0, 1] -> what would be stored."""

    def decode(self, stored: Any) -> Tensor:
        """What was stored -> (B, 3, H, W) images in [0, 1]."""

    def bits(self, stored: Any) -> list[float]:
        """Bits of each of the B images, everything that decoding needs included."""


class PillowCodec:
    """JPEG or WebP at no more than a budget of bits, header included: the honest baseline.

    For each image the highest quality whose file fits is found by bisection over 0 to 100 (7 trials; file size is taken
    to grow with quality, as it almost always does). JPEG is progressive, with optimised Huffman tables and 4:2:0
    chroma, WebP lossy with method 6: their smallest settings. An image that does not fit at quality 0 is kept at
    quality 0, over budget; the report's bits are those of the files, not of the budget.

    Args:
        format: "jpeg" or "webp".
        bits_per_pixel: the budget, e.g. 0.375 for UniTok's 24,576 bits of 256 x 256 pixels.

    Raises:
        ValueError: a budget that is not positive.
    """

    image_size = 256

    def __init__(self, format: str, bits_per_pixel: float) -> None:
        if not bits_per_pixel > 0:
            raise ValueError(f"{format}@{bits_per_pixel}: bits per pixel must be positive")
        self.format, self.bits_per_pixel = format, bits_per_pixel
        settings: dict[str, dict[str, Any]] = {"jpeg": {"optimize": True, "progressive": True}, "webp": {"method": 6}}
        self._options = settings[format]

    def encode(self, images: Tensor) -> list[bytes]:
        """(B, 3, H, W) images -> B files."""
        return [self._fit(image) for image in images]

    def decode(self, stored: list[bytes]) -> Tensor:
        """B files -> (B, 3, H, W) images, on the CPU."""
        from PIL import Image

        return torch.stack([load_image(Image.open(io.BytesIO(file)), None, 1) for file in stored]).float() / 255

    def bits(self, stored: list[bytes]) -> list[float]:
        """8 for each byte of the file."""
        return [8.0 * len(file) for file in stored]

    def _fit(self, image: Tensor) -> bytes:
        photo = to_pil(image)
        budget = self.bits_per_pixel * photo.width * photo.height / 8
        low, high, best = 0, 100, b""
        while low <= high:
            quality = (low + high) // 2
            buffer = io.BytesIO()
            photo.save(buffer, format=self.format, quality=quality, **self._options)
            file = buffer.getvalue()
            if len(file) <= budget:
                low, best = quality + 1, file
            else:
                high = quality - 1
                best = best or (file if quality == 0 else b"")
        return best


class DiffusersAutoencoder(nn.Module):
    """diffusers' AutoencoderKL, AutoencoderTiny (continuous, the mode is taken) or VQModel (discrete).

    A continuous latent counts 16 bits a number, as it would be stored in float16; it is no rival at equal bits,
    and the table shows it.

    Args:
        source: a folder in diffusers' layout, or "owner/name" on the Hub.

    Raises:
        ImportError: diffusers is not installed.
        ValueError: an autoencoder of another class.
    """

    image_size = 256

    def __init__(self, source: str) -> None:
        super().__init__()
        try:
            import diffusers
        except ImportError as error:
            raise ImportError('diffusers is missing: pip install "unitok-vision[diffusion]"') from error
        config = diffusers.AutoencoderKL.load_config(source)
        if config["_class_name"] not in ("AutoencoderKL", "AutoencoderTiny", "VQModel"):
            raise ValueError(f"{source} is a {config['_class_name']}; AutoencoderKL, AutoencoderTiny and VQModel work")
        self.kind: str = config["_class_name"]
        self.model: Any = getattr(diffusers, self.kind).from_pretrained(source)
        if self.kind == "VQModel":
            self.codebook_size = int(self.model.config.num_vq_embeddings)

    def encode(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) images -> (B, C, h, w) latents, or (B, 1, h, w) codes of a VQModel."""
        encoded = self.model.encode((images * 2 - 1).to(self.model.dtype))
        if self.kind == "AutoencoderKL":
            return encoded.latent_dist.mode()
        latents: Tensor = encoded.latents
        if self.kind == "AutoencoderTiny":
            return latents
        indices = self.model.quantize(latents)[2][2]
        return indices.view(len(images), 1, *latents.shape[2:])

    def decode(self, stored: Tensor) -> Tensor:
        """Latents or codes -> (B, 3, H, W) images."""
        if self.kind != "VQModel":
            images: Tensor = self.model.decode(stored).sample
        else:
            table = self.model.quantize.embedding.weight
            latents = table[stored[:, 0]].permute(0, 3, 1, 2)
            images = self.model.decode(latents, force_not_quantize=True).sample
        return ((images.float() + 1) / 2).clamp(0, 1)

    def bits(self, stored: Tensor) -> list[float]:
        """16 a number of a latent, log2 V a code."""
        if self.kind == "VQModel":
            return code_bits(stored, self.codebook_size)
        return [16.0 * stored[0].numel()] * len(stored)


class OpenClip(nn.Module):
    """Any model of open_clip behind a tokenizer's two embedding words; it has no codes and decodes nothing.

    Args:
        model: open_clip's.
        text_ids: its tokenizer: texts -> (B, L) ids.
    """

    def __init__(self, model: nn.Module, text_ids: Callable[[list[str]], Tensor]) -> None:
        super().__init__()
        self.model: Any = model
        self.text_ids = text_ids
        visual: Any = self.model.visual
        self.image_size: int = visual.image_size[0] if isinstance(visual.image_size, tuple) else visual.image_size
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(visual.preprocess_cfg["mean"]).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(visual.preprocess_cfg["std"]).view(1, 3, 1, 1), persistent=False)

    def encode_image(self, images: Tensor, normalize: bool = False) -> Tensor:
        """(B, 3, H, W) images in [0, 1] -> (B, E)."""
        embedded: Tensor = self.model.encode_image((images - self.mean) / self.std, normalize=normalize)
        return embedded

    def encode_text(self, text_ids: Tensor, normalize: bool = False) -> Tensor:
        """(B, L) text ids -> (B, E)."""
        embedded: Tensor = self.model.encode_text(text_ids, normalize=normalize)
        return embedded


def code_bits(codes: Tensor, codebook_size: int) -> list[float]:
    """(B, ...) codes in [0, V) -> bits of each image: log2 V for each code, without entropy coding."""
    return [codes[0].numel() * math.log2(codebook_size)] * len(codes)


def bits_of(model: Any, stored: Any) -> list[float]:
    """Bits of each stored image, for tokenizers and rivals alike."""
    if isinstance(model, Tokenizer):
        return code_bits(stored, model.codebook_size)
    return list(model.bits(stored))


def tokens_of(model: Any, side: int) -> dict[str, float]:
    """Bits of one image of side x side pixels, of a Tokenizer whose grid follows its stride; {} for others."""
    stride = getattr(getattr(model, "encoder", None), "stride", None)
    if not isinstance(model, Tokenizer) or not stride:
        return {}
    bits = (side // stride) ** 2 * model.bits_per_token
    return {"bits_per_image": bits, "bits_per_pixel": bits / side**2}


def open_model(name: str, dtype: torch.dtype, device: torch.device) -> Any:
    """What `--tokenizer` says -> a Tokenizer or a rival.

    Args:
        name: whatever `load_tokenizer` takes, or `kind@argument`: "jpeg@0.375" and "webp@0.375" (bits per pixel),
            "diffusers@FOLDER", "open_clip@ViT-B-32" or "open_clip@ViT-B-32@FILE_OR_TAG", or "adapter.py@ARGUMENT":
            the function `load(argument)` of that file, which runs as your own code and returns a rival.
        dtype: of the weights.
        device: where it computes.

    Raises:
        ValueError: an unknown kind or an unfit argument.
        FileNotFoundError: nothing by that name.
    """
    kind, at, argument = name.partition("@")
    if not at:
        return load_tokenizer(name, dtype=dtype, device=device)
    if kind in ("jpeg", "webp"):
        try:
            return PillowCodec(kind, float(argument))
        except ValueError as error:
            raise ValueError(f"{name}: after @ stands the budget in bits per pixel, e.g. {kind}@0.375") from error
    if kind == "diffusers":
        rival: Any = DiffusersAutoencoder(argument)
    elif kind == "open_clip":
        rival = _open_clip(*argument.split("@", 1))
    elif kind.endswith(".py"):
        rival = _adapter(Path(kind), argument)
    else:
        raise ValueError(f"{name}: {kind!r} is not one of jpeg, webp, diffusers, open_clip or a .py file")
    return rival.eval().to(device, dtype) if isinstance(rival, nn.Module) else rival


def display_name(name: str) -> str:
    """What `--tokenizer` says -> how tables call it: a path is told by its last part, an adapter by its file."""
    kind, at, argument = name.partition("@")
    if not at:
        return Path(name).name if Path(name).exists() else name
    return Path(kind).stem if kind.endswith(".py") else f"{kind}@{Path(argument).name}"


def _open_clip(name: str, pretrained: str | None = None) -> OpenClip:
    import open_clip

    if name not in open_clip.list_models() and not name.startswith(("hf-hub:", "local-dir:")):
        raise ValueError(f"open_clip knows no model {name!r}; open_clip.list_models() names them")
    return OpenClip(open_clip.create_model(name, pretrained=pretrained), open_clip.get_tokenizer(name))


def _adapter(path: Path, argument: str) -> Any:
    if not path.is_file():
        raise FileNotFoundError(f"no adapter file {path}")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not hasattr(module, "load"):
        raise ValueError(f"{path} has no function load(argument) that returns a rival")
    return module.load(argument)
