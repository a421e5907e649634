"""Images and texts in one space: the vectors that zero-shot accuracy and retrieval compare."""

from collections.abc import Callable
from typing import Any, Literal, cast

import torch
from torch import Tensor

from unitok.evaluation.photos import Photo, batches
from unitok.evaluation.protocol import Pipeline, Protocol
from unitok.evaluation.ranks import Run
from unitok.tokenizer import Tokenizer


def embed_photos(model: Any, photos: list[Photo], pipeline: Pipeline, run: Run) -> tuple[Tensor, list[int], list[str]]:
    """Photos -> (N, E) unit embeddings in the order of the photos on every rank, their indices, and those excluded."""
    rows, excluded = [], []
    for batch in batches(photos, pipeline, run):
        excluded += batch.excluded
        if batch.indices:
            with torch.no_grad():
                vectors = model.encode_image(batch.images.to(run.ranks.device).float() / 255, normalize=True)
            rows += list(zip(batch.indices, vectors.float().cpu(), strict=True))
    everyone = sorted((row for part in run.ranks.gather(rows) for row in part), key=lambda row: row[0])
    excluded = sorted(name for part in run.ranks.gather(excluded) for name in part)
    if not everyone:
        raise ValueError(f"none of {len(photos)} photos could be read; the first: {excluded[0]}")
    vectors = torch.stack([vector for _, vector in everyone])
    if not vectors.isfinite().all():
        raise ValueError("the image embeddings hold NaN or infinity: no score is given for a broken model")
    return vectors, [index for index, _ in everyone], excluded


def text_ids(model: Any) -> Callable[[list[str]], Tensor]:
    """The function from texts to the ids that this model's text tower reads.

    Raises:
        ValueError: a tokenizer without a text tower.
    """
    if not isinstance(model, Tokenizer):
        if not hasattr(model, "text_ids"):
            raise ValueError(f"{type(model).__name__} has no text tower: zero-shot needs encode_image and encode_text")
        ids: Callable[[list[str]], Tensor] = model.text_ids
        return ids
    if model.contrast is None or model.contrast.text is None:
        raise ValueError("this tokenizer has no text tower: zero-shot needs encode_image and encode_text")
    from open_clip import SimpleTokenizer

    return SimpleTokenizer(context_length=int(cast(Any, model.contrast.text).context_length))


def embedding_protocol(
    kind: Literal["zero-shot", "retrieval"], data: str, count: int, pipeline: Pipeline, details: dict[str, Any]
) -> Protocol:
    """The protocol of a run that compares embeddings, where nothing is rounded and no other network judges."""
    return Protocol(kind, data, count, pipeline.resize, pipeline.filter, pipeline.crop, "none", {}, details)
