"""The bytes of an image file -> the uint8 pictures that are encoded, and where in the photo each was cut."""

import io
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from unitok.images import kept_box, upright

Augment = Literal["none", "flip", "ten-crop"]
AUGMENTS: dict[str, int] = {"none": 1, "flip": 2, "ten-crop": 10}
"""Views of one photo: it; it and its mirror image; four corners and the centre of 1.1 times the size, and mirrored."""

TEN_CROP_SCALE = 1.1


class View(NamedTuple):
    """One picture to encode.

    Attributes:
        pixels: (H, W, 3) uint8 RGB.
        crop: left, top, right, bottom in pixels of the upright photo.
        flipped: whether it is mirrored.
    """

    pixels: NDArray[np.uint8]
    crop: tuple[float, float, float, float]
    flipped: bool


class Photo(NamedTuple):
    """A photo's own width and height, upright, and its views."""

    width: int
    height: int
    views: list[View]


def photo_views(data: bytes, size: int | None, multiple: int, augment: Augment) -> Photo:
    """An image file's bytes -> its views, size x size; resized (bicubic, antialiased) and cropped in one pass.

    The pixels of the one view of "none" are those of `unitok.images.load_image`.

    Args:
        data: of a file of any format that Pillow reads.
        size: H and W; None keeps the photo's own, cut to multiples of `multiple`.
        multiple: the encoder's stride.
        augment: see AUGMENTS.

    Raises:
        ValueError: the reason why there is no picture, the same words on every machine and in every run.
    """
    image = decode(data)
    if size is None:
        views = [_whole(image, multiple)]
    elif augment == "ten-crop":
        views = _five_crops(image, size)
    else:
        box = kept_box(*image.size, size)
        views = [View(_resized(image, size, box), box, False)]
    if augment != "none":
        views += [View(np.ascontiguousarray(view.pixels[:, ::-1]), view.crop, True) for view in views]
    return Photo(*image.size, views)


def decode(data: bytes) -> Image.Image:
    """An image file's bytes -> upright RGB; JPEG through simplejpeg where it is installed, Pillow otherwise.

    Both decode exactly (slow DCT, smooth chroma), and agree to one grey level.

    Raises:
        ValueError: as `photo_views`.
    """
    if not data:
        raise ValueError("empty (0 bytes)")
    try:
        with Image.open(io.BytesIO(data)) as image:
            fast = _fast_jpeg(data) if image.format == "JPEG" and image.mode in ("RGB", "L") else None
            if fast is None:
                return upright(image, "the image")
            if (orientation := image.getexif().get(_ORIENTATION, 1)) != 1:
                fast.getexif()[_ORIENTATION] = orientation
                return upright(fast, "the image")
            return fast
    except UnidentifiedImageError:
        raise ValueError("not an image that Pillow can read") from None
    except Image.DecompressionBombError as error:
        raise ValueError(f"too large: {error}") from None
    except ValueError:
        raise
    except Exception as error:  # Pillow's decoders raise almost anything over a broken file
        raise ValueError(f"broken: {error}") from None


_ORIENTATION = 0x0112


def _fast_jpeg(data: bytes) -> Image.Image | None:
    """None where simplejpeg is not installed, or objects to the file: then Pillow decides."""
    simplejpeg = _simplejpeg()
    if simplejpeg is None:
        return None
    try:
        return Image.fromarray(simplejpeg.decode_jpeg(data, "RGB"))
    except ValueError:
        return None


def _simplejpeg() -> Any:
    try:
        import simplejpeg
    except ImportError:
        return None
    return simplejpeg


def _resized(image: Image.Image, size: int, box: tuple[float, float, float, float]) -> NDArray[np.uint8]:
    return np.asarray(image.resize((size, size), Image.Resampling.BICUBIC, box=box))


def _whole(image: Image.Image, multiple: int) -> View:
    width, height = (side // multiple * multiple for side in image.size)
    if not width or not height:
        raise ValueError(f"{image.width} x {image.height} px is smaller than {multiple} px")
    left, top = (image.width - width) // 2, (image.height - height) // 2
    box = (left, top, left + width, top + height)
    return View(np.asarray(image.crop(box)), box, False)


def _five_crops(image: Image.Image, size: int) -> list[View]:
    """Top left, top right, bottom left, bottom right, centre: torchvision's order."""
    large = round(size * TEN_CROP_SCALE)
    left, top, right, bottom = kept_box(*image.size, large)
    pixels, step, rest = _resized(image, large, (left, top, right, bottom)), (right - left) / large, large - size
    down = (bottom - top) / large
    views = []
    for y, x in ((0, 0), (0, rest), (rest, 0), (rest, rest), (round(rest / 2), round(rest / 2))):
        crop = (left + x * step, top + y * down, left + (x + size) * step, top + (y + size) * down)
        views.append(View(np.ascontiguousarray(pixels[y : y + size, x : x + size]), crop, False))
    return views
