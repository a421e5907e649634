"""One photo in, one square of uint8 pixels out: decoding, a random crop, and one resize on whole numbers."""

import io
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from unitok.images import load_image

try:
    from simplejpeg import decode_jpeg
except ImportError:  # the extra "fast"
    decode_jpeg = None

Box = tuple[int, int, int, int]
Crop = Callable[[bytes, np.random.Generator], Tensor]

SPARE = 2
"""A large JPEG is decoded at a half, a quarter or an eighth where this many times the pixels needed are still left."""

_ORIENTATION, _ON_ITS_SIDE = 0x0112, (5, 6, 7, 8)


def training_crop(
    data: bytes,
    rng: np.random.Generator,
    size: int,
    scale: tuple[float, float],
    ratio: tuple[float, float],
    flip: bool,
) -> Tensor:
    """The bytes of an image file -> (3, size, size) uint8: a random box, mirrored in half of the cases where `flip`.

    Raises:
        OSError: the bytes are no image, or only the beginning of one.
    """
    with _opened(data) as image:
        turned = image.getexif().get(_ORIENTATION, 1)
        width, height = image.size[::-1] if turned in _ON_ITS_SIDE else image.size
        box = random_box(width, height, rng, scale, ratio)
        shrink = _shrink(box, size) if image.format == "JPEG" else 1
        if image.format == "JPEG" and image.mode == "RGB" and turned == 1:
            pixels = _plain_jpeg(image, data, shrink)
        else:
            image.draft(None, (image.width // shrink, image.height // shrink))
            pixels = load_image(image, size=None, multiple=1)
    left, top, right, bottom = (side // shrink for side in box)
    return crop(pixels, (left, top, right, bottom), size, flip and bool(rng.random() < 0.5))


def centre_crop(data: bytes, rng: np.random.Generator, size: int) -> Tensor:
    """The bytes of an image file -> (3, size, size) uint8: the shorter side resized, the centre square kept.

    Raises:
        OSError: the bytes are no image, or only the beginning of one.
    """
    with _opened(data) as image:
        return load_image(image, size)


def random_box(
    width: int, height: int, rng: np.random.Generator, scale: tuple[float, float], ratio: tuple[float, float]
) -> Box:
    """A box (left, top, right, bottom) inside width x height pixels.

    Its share of the area is uniform in `scale` and its width over height log-uniform in `ratio`, drawn again where it
    does not fit; after ten such draws the largest centred box whose shape is allowed.

    Source: the random crop of GoogLeNet (arXiv 1409.4842), "Training Methodology".
    """
    for _ in range(10):
        area = width * height * rng.uniform(*scale)
        shape = math.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1])))
        w, h = round(math.sqrt(area * shape)), round(math.sqrt(area / shape))
        if 0 < w <= width and 0 < h <= height:
            left, top = int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1))
            return left, top, left + w, top + h
    shape = min(max(width / height, ratio[0]), ratio[1])
    w, h = round(min(width, height * shape)), round(min(height, width / shape))
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h


def crop(pixels: Tensor, box: Box, size: int, flip: bool = False) -> Tensor:
    """(3, H, W) uint8 -> (3, size, size) uint8: the box, bicubic and antialiased; `flip` mirrors it.

    It stays in integers throughout, several times as fast as Pillow's resize and within two grey levels of it.
    """
    left, top, right, bottom = box
    part = pixels[None, :, top:bottom, left:right]
    resized = F.interpolate(part, (size, size), mode="bicubic", antialias=True)[0]
    return (resized.flip(2) if flip else resized).contiguous()


def _shrink(box: Box, size: int) -> int:
    """1, 2, 4 or 8: how much smaller a JPEG may be decoded so that the box keeps SPARE times the pixels it needs."""
    spare = min(box[2] - box[0], box[3] - box[1]) / (SPARE * size)
    return 2 ** min(3, max(0, math.floor(math.log2(spare))))


def _plain_jpeg(image: Image.Image, data: bytes, shrink: int) -> Tensor:
    """(3, H, W) uint8 of an upright RGB JPEG, with simplejpeg where it is installed: the same pixels, sooner."""
    if decode_jpeg is not None:
        least = {"min_height": -(-image.height // shrink), "min_width": -(-image.width // shrink)}
        with suppress(ValueError):  # simplejpeg refuses what Pillow forgives
            return torch.from_numpy(decode_jpeg(data, "RGB", **(least if shrink > 1 else {}))).permute(2, 0, 1)
    image.draft(None, (image.width // shrink, image.height // shrink))
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


@contextmanager
def _opened(data: bytes) -> Iterator[Image.Image]:
    try:
        with Image.open(io.BytesIO(data)) as image:
            yield image
    except Exception as error:  # Pillow's decoders raise almost anything over a broken file
        raise OSError(str(error)) from error
