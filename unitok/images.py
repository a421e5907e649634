"""Photos in, photos out: anything that holds a picture becomes RGB tensors, and tensors become files."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from unitok.files import replacing

Source = str | os.PathLike[str] | Image.Image | np.ndarray[Any, Any] | Tensor
"""A path, a PIL image, a numpy (H, W), (H, W, 1 | 3 | 4) array, or a torch (1 | 3 | 4, H, W) tensor."""

SUFFIXES = frozenset({".avif", ".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"})
_WRITABLE: dict[str, dict[str, Any]] = {
    ".jpeg": {"format": "JPEG", "quality": 95, "subsampling": 0},
    ".jpg": {"format": "JPEG", "quality": 95, "subsampling": 0},
    ".png": {"format": "PNG"},
    ".webp": {"format": "WEBP", "quality": 95},
}


def read_images(sources: Iterable[Source] | Source, size: int | None = 256, multiple: int = 16) -> Tensor:
    """B sources -> (B, 3, H, W) float32 images in [0, 1]; see `load_image` for what happens to each.

    Args:
        sources: paths, PIL images, numpy arrays or torch tensors, mixed as you like; a single one is a batch of one.
        size: H and W; None keeps each photo's own shape, which must then be the same for all.
        multiple: with size=None, H and W are cut down to multiples of this.

    Raises:
        OSError: a file is missing, empty, broken, no image, or has more pixels than Pillow's limit.
        ValueError: an array of another shape, type or range; photos of different shapes; one that is too small.
    """
    images = [load_image(source, size, multiple) for source in _listed(sources)]
    if not images:
        raise ValueError("no images to read: the list of sources is empty")
    shapes = sorted({(image.shape[1], image.shape[2]) for image in images})
    if len(shapes) > 1:
        raise ValueError(f"photos of {len(shapes)} shapes {shapes[:4]} make no batch: give a size, or read one by one")
    return torch.stack(images).float().div_(255)


def read_image(source: Source, size: int | None = 256, multiple: int = 16) -> Tensor:
    """One source -> (3, H, W) float32 image in [0, 1]; as `load_image`, and raises what it raises."""
    return load_image(source, size, multiple).float().div_(255)


def load_image(source: Source, size: int | None = 256, multiple: int = 16) -> Tensor:
    """One source -> (3, H, W) uint8 RGB.

    The EXIF orientation is applied, transparency is laid over white, an animation gives its first frame, and anything
    deeper is rounded to 8 bits: floats in [0, 1] too. Colour profiles are ignored.

    Args:
        source: a path, a PIL image, a numpy uint8, uint16 or float array, or a torch uint8 or float tensor.
        size: the shorter side becomes `size` (bicubic, antialiased) and the middle square is kept, in one pass over
            the pixels that are needed; the result is that of torchvision's Resize and CenterCrop on PIL images.
            None keeps every pixel but a border of less than `multiple`.
        multiple: with size=None, H and W are cut down to multiples of this.

    Raises:
        OSError: the file is missing, empty, broken, no image, or has more pixels than Pillow's limit.
        ValueError: an array of another shape, type or range; a photo that is too small; a size below 1.
    """
    if (size is not None and size < 1) or multiple < 1:
        raise ValueError(f"size={size} and multiple={multiple} must be at least 1")
    if isinstance(source, Image.Image):
        image = upright(source, "the PIL image")
    elif isinstance(source, np.ndarray):
        image = _from_array(source)
    elif isinstance(source, Tensor):
        image = _from_tensor(source)
    else:
        image = _from_file(Path(source))
    if size is None:
        image = _cut(image, multiple)
    else:
        image = image.resize((size, size), Image.Resampling.BICUBIC, box=kept_box(*image.size, size))
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()


def write_images(images: Tensor | Sequence[Tensor], paths: Sequence[str | os.PathLike[str]]) -> None:
    """(B, 3, H, W) images -> B files; the suffix chooses PNG (lossless), JPEG or WebP (quality 95).

    Each file appears whole or not at all. Values are clamped to [0, 1] and rounded to 8 bits.

    Args:
        images: floats in [0, 1], or uint8; a list of (3, H, W) may hold several shapes.
        paths: one for each image, in folders that exist.

    Raises:
        ValueError: not as many paths as images, an unknown suffix, images of another shape or type, NaN.
        FileNotFoundError: a folder that does not exist.
    """
    if len(images) != len(paths):
        raise ValueError(f"{len(images)} images need as many paths, got {len(paths)}")
    for image, path in zip(images, map(Path, paths), strict=True):
        options = _WRITABLE.get(path.suffix.lower())
        if options is None:
            raise ValueError(f"{path}: the suffix {path.suffix!r} is not one of {sorted(_WRITABLE)}")
        if not path.parent.is_dir():
            raise FileNotFoundError(f"no folder {path.parent} to write {path.name} into: create it first")
        picture = to_pil(image)
        with replacing(path) as temporary:
            picture.save(temporary, **options)


def to_pil(image: Tensor) -> Image.Image:
    """(3, H, W) image, float in [0, 1] or uint8 -> PIL RGB image.

    Raises:
        ValueError: an image of another shape or type, or NaN.
    """
    if image.ndim != 3 or image.shape[0] != 3 or 0 in image.shape:
        raise ValueError(f"an image to write must have shape (3, H, W), got {tuple(image.shape)}")
    if image.is_floating_point():
        if bool(image.isnan().any()):
            raise ValueError("the image to write contains NaN")
        image = image.detach().float().clamp(0, 1).mul(255).round().to(torch.uint8)
    elif image.dtype != torch.uint8:
        raise ValueError(f"an image to write must be float in [0, 1] or uint8, not {image.dtype}")
    return Image.fromarray(image.permute(1, 2, 0).cpu().contiguous().numpy())


def find_images(paths: Iterable[str | os.PathLike[str]]) -> list[Path]:
    """Files and folders -> files: folders are walked, hidden files and folders passed over, each folder sorted by name.

    A file named outright is kept whatever its suffix; in a folder only those with a suffix of SUFFIXES are.

    Raises:
        FileNotFoundError: no such file or folder.
        ValueError: a folder without images.
    """
    found: list[Path] = []
    for path in map(Path, paths):
        if not path.is_dir():
            if not path.exists():
                raise FileNotFoundError(f"no file or folder {path}")
            found.append(path)
            continue
        inside = [file for file in sorted(path.rglob("*")) if file.suffix.lower() in SUFFIXES and file.is_file()]
        inside = [file for file in inside if not any(part.startswith(".") for part in file.relative_to(path).parts)]
        if not inside:
            raise ValueError(f"the folder {path} holds no images ({', '.join(sorted(SUFFIXES))})")
        found += inside
    return found


def _listed(sources: Iterable[Source] | Source) -> Iterable[Source]:
    single = isinstance(sources, str | os.PathLike | Image.Image)
    if single or (isinstance(sources, np.ndarray | Tensor) and sources.ndim <= 3):
        return [sources]  # type: ignore[list-item]
    return sources  # type: ignore[return-value]


def _from_file(path: Path) -> Image.Image:
    if path.is_file() and path.stat().st_size == 0:
        raise OSError(f"{path} is empty (0 bytes)")
    try:
        with Image.open(path) as image:
            return upright(image, str(path))
    except (FileNotFoundError, PermissionError, IsADirectoryError):
        raise
    except UnidentifiedImageError as error:
        raise OSError(f"{path} is not an image that Pillow can read") from error
    except Image.DecompressionBombError as error:
        raise OSError(f"{path} is refused: {error} Make it smaller first.") from error
    except ValueError as error:
        raise ValueError(str(error) if str(path) in str(error) else f"{path}: {error}") from error
    except Exception as error:  # Pillow's decoders raise almost anything over a broken file
        raise OSError(f"{path} is broken and cannot be read: {error}") from error


def upright(image: Image.Image, name: str) -> Image.Image:
    """Any PIL image -> RGB, upright, opaque, with at least one pixel."""
    if 0 in image.size:
        raise ValueError(f"{name} has no pixels: {image.width} x {image.height}")
    image = ImageOps.exif_transpose(image)
    if image.mode == "F":
        return _from_array(np.asarray(image))
    if image.mode.startswith("I"):  # 16-bit grey, in a mode of 16 or 32 bits
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError(f"{name} has values from {values.min()} to {values.max()}, more than 16 bits")
        return _from_array(values.astype(np.uint16))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def _from_tensor(tensor: Tensor) -> Image.Image:
    if tensor.ndim != 3 or tensor.shape[0] not in (1, 3, 4):
        raise ValueError(f"an image tensor must have shape (1 | 3 | 4, H, W), got {tuple(tensor.shape)}")
    if tensor.dtype == torch.bfloat16:
        tensor = tensor.float()
    return _from_array(tensor.detach().permute(1, 2, 0).cpu().numpy())


def _from_array(array: np.ndarray[Any, Any]) -> Image.Image:
    """(H, W) or (H, W, 1 | 3 | 4) uint8, uint16 or float in [0, 1] -> PIL RGB image."""
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))) or 0 in array.shape:
        raise ValueError(f"an image array must have shape (H, W) or (H, W, 1 | 3 | 4), got {array.shape}")
    if np.issubdtype(array.dtype, np.floating):
        low, high = float(array.min()), float(array.max())
        if np.isnan(low) or np.isnan(high):
            raise ValueError("the image contains NaN")
        if low < -1e-3 or high > 1 + 1e-3:
            raise ValueError(f"float images must lie in [0, 1], found values from {low:.4g} to {high:.4g}")
        array = np.rint(array.clip(0, 1) * 255).astype(np.uint8)
    elif array.dtype == np.uint16:
        array = ((array.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)
    elif array.dtype != np.uint8:
        raise ValueError(f"an image array must be uint8, uint16 or float in [0, 1], not {array.dtype}")
    return upright(Image.fromarray(np.ascontiguousarray(array)), "the image array")


def kept_box(width: int, height: int, size: int) -> tuple[float, float, float, float]:
    """The part of a photo that torchvision's Resize(size) and CenterCrop(size) keep: left, top, right, bottom.

    The longer side is shortened to whole pixels and the square is cut at a whole pixel, as there.
    """
    sides = []
    for side in (width, height):
        resized = size * side // min(width, height)
        offset = round((resized - size) / 2)
        step = side / resized
        sides.append((offset * step, min((offset + size) * step, side)))
    (left, right), (top, bottom) = sides
    return left, top, right, bottom


def _cut(image: Image.Image, multiple: int) -> Image.Image:
    width, height = (side // multiple * multiple for side in image.size)
    if not width or not height:
        raise ValueError(f"a photo of {image.width} x {image.height} px is smaller than {multiple} px: give a size")
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))
