"""The bytes of an image file -> the uint8 pictures that are encoded, and where in the photo each was cut."""

import io
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from torch.nn.functional import interpolate

from unitok.images import kept_box, upright

Augment = Literal["none", "flip", "ten-crop"]
"""Views of a photo: one; it and its mirror image; four corners and the centre of 1.1 times the size, and mirrored."""

TEN_CROP_SCALE = 1.1


Pixels: TypeAlias = NDArray[np.uint8]


class View(NamedTuple):
    """One picture to encode.

    Attributes:
        pixels: (H, W, 3) uint8 RGB.
        crop: left, top, right, bottom in pixels of the upright photo.
        flipped: whether it is mirrored.
    """

    pixels: Pixels
    crop: tuple[float, float, float, float]
    flipped: bool


class Photo(NamedTuple):
    """A photo's own width and height, upright, and its views."""

    width: int
    height: int
    views: list[View]


def jpeg_reader() -> str:
    """Which library reads JPEG here: "simplejpeg", where the extra `fast` is installed, or "pillow"."""
    return "pillow" if _simplejpeg() is None else "simplejpeg"


def photo_views(data: bytes, size: int | None, multiple: int, augment: Augment) -> Photo:
    """An image file's bytes -> its views, size x size; resized (bicubic, antialiased) and cropped.

    The one view of "none" has the pixels of `unitok.images.load_image`; where simplejpeg reads a JPEG, torch's resize
    follows, which is three times as fast as Pillow's, and up to 0.5 % of the values differ by one grey level.

    Args:
        data: of a file of any format that Pillow reads.
        size: H and W; None keeps the photo's own, cut to multiples of `multiple`.
        multiple: the encoder's stride.
        augment: see Augment.

    Raises:
        ValueError: the reason why there is no picture, the same words on every machine and in every run.
    """
    image = decode(data)
    width, height = image.size if isinstance(image, Image.Image) else (image.shape[1], image.shape[0])
    if size is None:
        views = [_whole(image, width, height, multiple)]
    elif augment == "ten-crop":
        views = _ten_crops(image, width, height, size)
    else:
        views = [View(_square(image, width, height, size), kept_box(width, height, size), False)]
    if augment == "flip":
        views += [View(np.ascontiguousarray(view.pixels[:, ::-1]), view.crop, True) for view in views]
    return Photo(width, height, views)


def decode(data: bytes) -> Image.Image | Pixels:
    """An image file's bytes -> upright RGB: an array where simplejpeg is installed and likes the file, else PIL's.

    Both decode exactly (slow DCT, smooth chroma), and agree to one grey level.

    Raises:
        ValueError: as `photo_views`.
    """
    if not data:
        raise ValueError("empty (0 bytes)")
    try:
        with Image.open(io.BytesIO(data)) as image:
            plain = image.format == "JPEG" and image.mode in ("RGB", "L") and image.getexif().get(_ORIENTATION, 1) == 1
            fast = _fast_jpeg(data) if plain else None
            return upright(image, "the image") if fast is None else fast
    except UnidentifiedImageError:
        raise ValueError("not an image that Pillow can read") from None
    except Image.DecompressionBombError as error:
        raise ValueError(f"too large: {error}") from None
    except ValueError:
        raise
    except Exception as error:  # Pillow's decoders raise almost anything over a broken file
        raise ValueError(f"broken: {error}") from None


_ORIENTATION = 0x0112


def _fast_jpeg(data: bytes) -> Pixels | None:
    """None where simplejpeg is not installed, or objects to the file: then Pillow decides."""
    simplejpeg = _simplejpeg()
    if simplejpeg is None:
        return None
    try:
        pixels: Pixels = simplejpeg.decode_jpeg(data, "RGB")
    except ValueError:
        return None
    return pixels


def _simplejpeg() -> Any:
    try:
        import simplejpeg
    except ImportError:
        return None
    return simplejpeg


def _square(image: Image.Image | Pixels, width: int, height: int, size: int) -> Pixels:
    """The shorter side becomes `size`, and the middle square is kept."""
    if isinstance(image, Image.Image):
        box = kept_box(width, height, size)
        return np.asarray(image.resize((size, size), Image.Resampling.BICUBIC, box=box))
    shape = [size * side // min(width, height) for side in (height, width)]
    maps = torch.from_numpy(image).permute(2, 0, 1)[None]
    resized = interpolate(maps, shape, mode="bicubic", antialias=True)[0].permute(1, 2, 0).numpy()
    top, left = (round((side - size) / 2) for side in shape)
    return np.ascontiguousarray(resized[top : top + size, left : left + size])


def _whole(image: Image.Image | Pixels, full_width: int, full_height: int, multiple: int) -> View:
    width, height = (side // multiple * multiple for side in (full_width, full_height))
    if not width or not height:
        raise ValueError(f"{full_width} x {full_height} px is smaller than {multiple} px")
    left, top = (full_width - width) // 2, (full_height - height) // 2
    pixels = np.ascontiguousarray(np.asarray(image)[top : top + height, left : left + width])
    return View(pixels, (left, top, left + width, top + height), False)


def _ten_crops(image: Image.Image | Pixels, width: int, height: int, size: int) -> list[View]:
    """Top left, top right, bottom left, bottom right, centre; then those of the mirror image: torchvision's order."""
    large = round(size * TEN_CROP_SCALE)
    left, top, right, bottom = kept_box(width, height, large)
    pixels, rest = _square(image, width, height, large), large - size
    across, down = (right - left) / large, (bottom - top) / large
    middle = round(rest / 2)
    views = []
    for flipped in (False, True):
        for y, x in ((0, 0), (0, rest), (rest, 0), (rest, rest), (middle, middle)):
            x = rest - x if flipped else x  # where it lies in the photo that is not mirrored
            part = pixels[y : y + size, x : x + size]
            crop = (left + x * across, top + y * down, left + (x + size) * across, top + (y + size) * down)
            views.append(View(np.ascontiguousarray(part[:, ::-1] if flipped else part), crop, flipped))
    return views
