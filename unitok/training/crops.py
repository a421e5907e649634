"""One photo in, one square of uint8 pixels out: decoding, and the crop and the resize in one pass over the pixels."""

import io
import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

Box = tuple[float, float, float, float]
Pixels = NDArray[np.uint8]
Crop = Callable[[bytes, np.random.Generator], Pixels]


def decode(data: bytes) -> Image.Image:
    """The bytes of a JPEG, PNG, WebP ... file -> an RGB image, upright as its EXIF orientation says.

    Raises:
        OSError: the bytes are no image, or only the beginning of one. Broken PNG and EXIF also raise SyntaxError,
            ValueError and struct.error.
    """
    image = Image.open(io.BytesIO(data))
    ImageOps.exif_transpose(image, in_place=True)
    return image.convert("RGB")


def random_box(
    width: int, height: int, rng: np.random.Generator, scale: tuple[float, float], ratio: tuple[float, float]
) -> Box:
    """A box (left, top, right, bottom) inside width x height pixels, on fractions of a pixel.

    Its share of the area is uniform in `scale` and its width over height log-uniform in `ratio`, drawn again where it
    does not fit; after ten such draws the largest centred box whose shape is allowed.

    Source: the random crop of GoogLeNet (arXiv 1409.4842), "Training Methodology".
    """
    for _ in range(10):
        area = width * height * rng.uniform(*scale)
        shape = math.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1])))
        w, h = math.sqrt(area * shape), math.sqrt(area / shape)
        if w <= width and h <= height:
            left, top = rng.uniform(0, width - w), rng.uniform(0, height - h)
            return left, top, min(left + w, width), min(top + h, height)
    shape = min(max(width / height, ratio[0]), ratio[1])
    return _centred(width, height, min(width, height * shape), min(height, width / shape))


def centre_box(width: int, height: int) -> Box:
    """The largest centred square: what is left after the shorter side is resized and the centre cropped."""
    side = min(width, height)
    return _centred(width, height, side, side)


def crop(image: Image.Image, box: Box, size: int, flip: bool = False) -> Pixels:
    """(H, W) image -> (3, size, size) uint8: the box, bicubic and antialiased, in one pass; `flip` mirrors it."""
    pixels = np.asarray(image.resize((size, size), Image.Resampling.BICUBIC, box=box))
    return np.ascontiguousarray((pixels[:, ::-1] if flip else pixels).transpose(2, 0, 1))


def training_crop(
    data: bytes,
    rng: np.random.Generator,
    size: int,
    scale: tuple[float, float],
    ratio: tuple[float, float],
    flip: bool,
) -> Pixels:
    """The bytes of an image file -> (3, size, size) uint8: a random box, mirrored in half of the cases where `flip`."""
    image = decode(data)
    box = random_box(*image.size, rng, scale, ratio)
    return crop(image, box, size, flip and bool(rng.random() < 0.5))


def centre_crop(data: bytes, rng: np.random.Generator, size: int) -> Pixels:
    """The bytes of an image file -> (3, size, size) uint8: the centre square; the generator is not asked."""
    image = decode(data)
    return crop(image, centre_box(*image.size), size)


def _centred(width: float, height: float, w: float, h: float) -> Box:
    left, top = (width - w) / 2, (height - h) / 2
    return left, top, left + w, top + h
