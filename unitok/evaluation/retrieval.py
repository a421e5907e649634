"""Which caption belongs to which image: recall both ways."""

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unitok.evaluation.embeddings import embed_photos, embedding_protocol, text_ids
from unitok.evaluation.photos import Photo, content_hash
from unitok.evaluation.protocol import Pipeline
from unitok.evaluation.ranks import Run
from unitok.evaluation.report import Report, make_report
from unitok.evaluation.rivals import tokens_of


def retrieve(
    name: str,
    model: Any,
    photos: list[Photo],
    captions: list[list[str]],
    pipeline: Pipeline,
    run: Run,
) -> Report:
    """Recall at 1, 5 and 10: the share of captions whose photo, and of photos whose caption, is among the first.

    Args:
        name: of the model, for the report.
        model: a Tokenizer with a text tower, or OpenClip.
        photos: each with its captions.
        captions: of each photo, one or more; a photo counts where any of its captions is among the first.
        pipeline: from photo to square.
        run: who computes, and how.
    """
    images, indices, excluded = embed_photos(model, photos, pipeline, run)
    texts = [caption for index in indices for caption in captions[index]]
    owners = torch.tensor([row for row, index in enumerate(indices) for _ in captions[index]])
    encode = text_ids(model)
    parts = []
    for start in range(0, len(texts), run.batch_size):
        ids = encode(texts[start : start + run.batch_size]).to(run.ranks.device)
        with torch.no_grad():
            parts.append(model.encode_text(ids, normalize=True).float().cpu())
    scores = images @ torch.cat(parts).T
    figures: dict[str, Any] = recalls(scores, owners)
    figures |= tokens_of(model, pipeline.crop)
    data = content_hash(photos, run.ranks)
    details = {"captions": hashlib.sha256("\n".join(texts).encode()).hexdigest(), "captions_count": len(texts)}
    protocol = embedding_protocol("retrieval", data, len(indices), pipeline, details)
    return make_report(name, model, protocol, figures, run, excluded)


def recalls(scores: Tensor, owners: Tensor) -> dict[str, float]:
    """(images, captions) scores and the image each caption belongs to -> recall both ways; ties count as misses."""
    mine = owners[None, :] == torch.arange(len(scores))[:, None]
    of_caption = scores.gather(0, owners[None, :])
    caption_ranks = (scores >= of_caption).sum(0) - 1
    best_own = scores.masked_fill(~mine, -math.inf).max(1, keepdim=True).values
    image_ranks = ((scores >= best_own) & ~mine).sum(1)
    found = {f"text_to_image_r{k}": float((caption_ranks < k).double().mean()) for k in (1, 5, 10)}
    return found | {f"image_to_text_r{k}": float((image_ranks < k).double().mean()) for k in (1, 5, 10)}


def read_pairs(path: Path, limit: int | None = None) -> tuple[list[Photo], list[list[str]]]:
    """A .jsonl of {"image": path relative to it, "captions": [...]} -> photos and their captions.

    Raises:
        FileNotFoundError: no such file, or a photo it names.
        ValueError: a line that is not such an object.
    """
    photos, captions = [], []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        try:
            row = json.loads(line)
            photo, texts = Photo(str(row["image"]), path.parent / row["image"]), [str(text) for text in row["captions"]]
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise ValueError(f'{path} line {number} is not {{"image": ..., "captions": [...]}}: {error}') from error
        if not texts:
            raise ValueError(f"{path} line {number}: {photo.name} has no captions")
        if not photo.path.is_file():
            raise FileNotFoundError(f"{path} line {number}: no photo {photo.path}")
        photos.append(photo)
        captions.append(texts)
    if not photos:
        raise ValueError(f"{path} holds no lines")
    step = max(1, len(photos) // (limit or len(photos)))
    return photos[::step][:limit], captions[::step][:limit]
