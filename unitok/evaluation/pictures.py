"""A grid of reconstructions: the best, the middle and the worst of them, each with its error map."""

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from unitok.images import to_pil

ERROR_GAIN = 4  # absolute errors are shown times this, or a good reconstruction's map is black


def grid(rows: list[tuple[str, Tensor, Tensor]]) -> Image.Image:
    """Rows of (label, (3, H, W) original, (3, H, W) reconstruction) -> original | reconstruction | error x 4.

    Raises:
        ValueError: no rows.
    """
    if not rows:
        raise ValueError("a grid needs at least one row")
    bar = 16
    pictures = []
    for label, original, copy in rows:
        error = ((copy - original).abs() * ERROR_GAIN).clamp(0, 1).mean(0, keepdim=True).expand_as(original)
        strip = to_pil(torch.cat([original, copy, error], dim=2))
        labelled = Image.new("RGB", (strip.width, strip.height + bar), "white")
        labelled.paste(strip, (0, bar))
        text = f"{label}   original | reconstruction | error x{ERROR_GAIN}"
        ImageDraw.Draw(labelled).text((4, 2), text, fill="black")
        pictures.append(labelled)
    sheet = Image.new("RGB", (pictures[0].width, sum(picture.height for picture in pictures)), "white")
    top = 0
    for picture in pictures:
        sheet.paste(picture, (0, top))
        top += picture.height
    return sheet


def best_middle_worst(scores: dict[int, float], count: int = 2) -> list[tuple[str, int]]:
    """Index -> score, higher is better -> (label, index) of `count` each at the top, the middle and the bottom."""
    order = sorted(scores, key=lambda index: -scores[index])
    middle = max(0, (len(order) - count) // 2)
    places = {"best": order[:count], "median": order[middle : middle + count], "worst": order[-count:]}
    labels: dict[int, str] = {}
    for label, indices in places.items():
        for index in indices:
            labels.setdefault(index, label)
    return [(label, index) for index, label in labels.items()]
