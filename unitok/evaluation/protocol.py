"""The protocol as data: what was done to which images, with a short id that only equal protocols share."""

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from typing import Any

from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as T

from unitok.images import load_image, to_pil


@dataclass(frozen=True)
class Pipeline:
    """From a photo's own pixels to a square: shorter side to `resize`, then the middle `crop` x `crop`.

    Attributes:
        resize: the shorter side in pixels, or None: pixels stay as they are and smaller photos are excluded.
        filter: of the resizing, by Pillow's antialiased filters: "bilinear", "bicubic", "lanczos"; "none" without one.
        crop: side of the square.
    """

    resize: int | None
    filter: str
    crop: int

    def sized(self, side: int | None) -> "Pipeline":
        """The same pipeline for squares of another side; None keeps this one's."""
        if side is None or side == self.crop:
            return self
        if side < 1:
            raise ValueError(f"size={side} must be at least 1 pixel")
        return replace(self, crop=side, resize=None if self.resize is None else round(self.resize * side / self.crop))

    def __call__(self, photo: Image.Image) -> Tensor:
        """A PIL photo -> (3, crop, crop) uint8.

        Raises:
            ValueError: a photo smaller than the crop, where nothing is resized.
        """
        photo = to_pil(load_image(photo, size=None, multiple=1))
        if self.resize is not None:
            photo = T.resize(photo, [self.resize], InterpolationMode(self.filter))
        if min(photo.size) < self.crop:
            raise ValueError(f"{photo.width} x {photo.height} pixels are fewer than the crop of {self.crop}")
        return T.pil_to_tensor(T.center_crop(photo, [self.crop]))


PIPELINES = {
    "bicubic-256": Pipeline(256, "bicubic", 256),  # UniTok zero-shot; what most tokenizer papers mean
    "crop-256": Pipeline(None, "none", 256),  # UniTok rFID, on photos that already have 256 pixels
    "bilinear-288": Pipeline(288, "bilinear", 256),  # UniTok's reference inference script
    "lanczos-288": Pipeline(288, "lanczos", 256),  # VAR, UniTok's visualiser and training crops
}
"""Image pipelines by name. Published numbers name theirs rarely, and 0.57 against 1.90 has been the difference.

bicubic-256: shorter side 256, bicubic, middle 256. UniTok's zero-shot accuracy; open_clip's evaluation at 256 px.
crop-256: middle 256 of images that are already 256. UniTok's rFID: the folder of reconstructions against the ImageNet
    reference batch itself, 50,000 PNGs, torch-fidelity's Inception. Not against training statistics.
bilinear-288: shorter side 288, bilinear, middle 256. UniTok's reference inference script.
lanczos-288: shorter side 288, Lanczos, middle 256. UniTok's visualiser, and VAR's transforms.
"""


def named_pipeline(name: str, side: int | None = None) -> Pipeline:
    """One of PIPELINES, for squares of `side` pixels instead of its own where that is given.

    Raises:
        ValueError: an unknown name or a side below 1.
    """
    if name not in PIPELINES:
        raise ValueError(f"pipeline={name!r} is not one of {list(PIPELINES)}")
    return PIPELINES[name].sized(side)


@dataclass(frozen=True)
class Protocol:
    """All that a figure depends on besides the tokenizer. Two reports with one id may stand in one table.

    Attributes:
        kind: "reconstruction", "zero-shot", "retrieval", "probe" or "speed".
        data: sha256 over the sorted sha256 of the photos' bytes, whatever their names and wherever they lie.
        count: photos that were measured, without those excluded.
        resize: see Pipeline.
        filter: see Pipeline.
        crop: see Pipeline.
        rounding: how reconstructions become 8-bit pixels.
        networks: name of each network that judges -> sha256 of its weights.
        details: what else belongs to this kind: class names and templates, the probe's settings, ...
    """

    kind: str
    data: str
    count: int
    resize: int | None
    filter: str
    crop: int
    rounding: str
    networks: dict[str, str]
    details: dict[str, Any]

    @property
    def id(self) -> str:
        """The first 10 hexadecimal digits of the sha256 of everything above."""
        return protocol_id(asdict(self))


def protocol_id(protocol: dict[str, Any]) -> str:
    """The id of a protocol as it stands in a JSON."""
    return hashlib.sha256(json.dumps(protocol, sort_keys=True).encode()).hexdigest()[:10]
