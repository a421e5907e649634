"""The picture that `unitok reconstruct` draws: photo, reconstruction and error side by side, with their figures."""

from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from unitok.images import to_pil

GAIN = 4  # errors are shown this many times as large

_PAPER, _INK, _PENCIL, _LINE = "#faf9f6", "#1c1c1e", "#6b6b70", "#dddbd5"
_MARGIN, _GAP, _CAPTION, _HEAD, _SHORTEST = 56, 32, 84, 124, 480
_HEAT = np.array([[12, 10, 24], [92, 22, 98], [214, 62, 62], [252, 164, 72], [255, 250, 214]], dtype=float)


class Comparison(NamedTuple):
    """A photo and what became of it.

    Attributes:
        name: of the photo.
        photo: (3, H, W) uint8.
        decoded: (3, H, W) uint8.
        psnr: in dB, over the 8-bit values.
        ssim: 1 for equal images.
        code_bits: what the codes cost, in bits.
    """

    name: str
    photo: Tensor
    decoded: Tensor
    psnr: float
    ssim: float
    code_bits: float

    @property
    def bits_per_pixel(self) -> float:
        """Bits of codes over pixels; a raw photo has 24."""
        return self.code_bits / self.photo[0].numel()


def draw(rows: list[Comparison], title: str, subtitle: str) -> Image.Image:
    """A row for each comparison, under a title; small photos are enlarged by whole numbers, alike in all columns."""
    bands = [_band(row) for row in rows]
    width = max(band.width for band in bands) + 2 * _MARGIN
    canvas = Image.new("RGB", (width, _HEAD + sum(band.height + _GAP for band in bands)), _PAPER)
    pen = ImageDraw.Draw(canvas)
    pen.text((_MARGIN, 34), title, fill=_INK, font=_font(34))
    pen.text((_MARGIN, 80), subtitle, fill=_PENCIL, font=_font(20))
    top = _HEAD
    for band in bands:
        canvas.paste(band, (_MARGIN, top))
        top += band.height + _GAP
    return canvas


def _band(row: Comparison) -> Image.Image:
    height, width = row.photo.shape[1:]
    error = (row.photo.float() - row.decoded.float()).abs().mean(0) / 255
    pixels, spent = height * width, row.code_bits / 8
    columns = [
        (to_pil(row.photo), row.name, f"{width} x {height} px · {3 * pixels:,} bytes of pixels"),
        (
            to_pil(row.decoded),
            f"from {spent:,.0f} bytes of codes",
            f"PSNR {row.psnr:.2f} dB · SSIM {row.ssim:.3f} · {row.bits_per_pixel:.3g} bits per pixel",
        ),
        (_heat(error), f"error x {GAIN}", f"mean {error.mean():.3f} · largest {error.max():.2f} of 1"),
    ]
    scale = max(1, -(-_SHORTEST // max(height, width)))
    column = max(width * scale, _SHORTEST)
    band = Image.new("RGB", (3 * column + 2 * _GAP, height * scale + _CAPTION), _PAPER)
    pen = ImageDraw.Draw(band)
    for index, (picture, caption, figures) in enumerate(columns):
        left, foot = index * (column + _GAP), height * scale
        band.paste(picture.resize((width * scale, foot), Image.Resampling.LANCZOS), (left, 0))
        pen.rectangle((left, 0, left + width * scale - 1, foot - 1), outline=_LINE)
        pen.text((left, foot + 14), _fitted(caption, column, 23), fill=_INK, font=_font(23))
        pen.text((left, foot + 46), figures, fill=_PENCIL, font=_font(19))
    _legend(pen, 3 * column + 2 * _GAP, height * scale + 22)
    return band


def _legend(pen: ImageDraw.ImageDraw, right: int, top: int) -> None:
    """The scale of the error's colours, in the corner under it."""
    width = 120
    colours = _heat(torch.linspace(0, 1 / GAIN, width)[None])
    for x in range(width):
        pen.line((right - width + x, top, right - width + x, top + 10), fill=colours.getpixel((x, 0)))
    pen.text((right - width, top + 14), "0", fill=_PENCIL, font=_font(15))
    pen.text((right, top + 14), f"{1 / GAIN:g}", fill=_PENCIL, font=_font(15), anchor="ra")


def _heat(error: Tensor) -> Image.Image:
    """(H, W) errors in [0, 1] -> colours from black over red to pale yellow, reached at 1 / GAIN."""
    stops = np.linspace(0, 1, len(_HEAT))
    values = (error * GAIN).clamp(0, 1).numpy()
    channels = [np.interp(values, stops, _HEAT[:, channel]) for channel in range(3)]
    return Image.fromarray(np.stack(channels, -1).round().astype(np.uint8))


def _fitted(text: str, width: int, size: int) -> str:
    while _font(size).getlength(text) > width:
        text = text.rstrip(".")[:-1].rstrip() + "..."
    return text


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
