"""What an image's codes mean to a text tower: zero-shot classification."""

import math
from pathlib import Path
from typing import Any

import torch

from unitok.evaluation.classes import Classes, check_folders, read_classes, read_templates
from unitok.evaluation.embeddings import embed_photos, embedding_protocol, text_ids
from unitok.evaluation.photos import Photo, content_hash, find_photos
from unitok.evaluation.protocol import Pipeline, named_pipeline
from unitok.evaluation.ranks import Run, join
from unitok.evaluation.report import Report, make_report, print_report, write_report
from unitok.evaluation.retrieval import read_pairs, retrieve
from unitok.evaluation.rivals import DTYPES, Precision, display_name, open_model, tokens_of


def zero_shot(
    *,
    data: str,
    tokenizer: str = "unitok_tiny",
    output: Path | None = None,
    classes: str | None = None,
    templates: str = "openai-imagenet",
    pipeline: str = "bicubic-256",
    limit: int | None = None,
    batch_size: int = 64,
    workers: int = 4,
    dtype: Precision = "float32",
    device: str | None = None,
) -> None:
    """Zero-shot accuracy on a folder of classes, or recall on captions where data is a .jsonl of image and captions.

    Args:
        data: a folder with one folder for each class, tar shards of such; or a .jsonl with "image" (path relative to
            it) and "captions" on each line.
        tokenizer: a name, folder, file or "owner/name" of a tokenizer with a text tower; or open_clip@MODEL@WEIGHTS.
        output: the JSON. None prints only.
        classes: "imagenet", or a .csv, .txt or .json of names; None takes the folder names.
        templates: openai-imagenet, simple, plain, or a .txt with one prompt a line.
        pipeline: bicubic-256, ...; its side follows the model's image_size.
        limit: measure this many photos, evenly spaced over their sorted names.
        batch_size: images at once.
        workers: processes that decode photos.
        dtype: of the weights.
        device: cpu, cuda, ...
    """
    ranks, precision = join(device), DTYPES[dtype]
    model = open_model(tokenizer, precision, ranks.device)
    way = named_pipeline(pipeline, model.image_size)
    run = Run(ranks, batch_size, workers, precision)
    if data.endswith(".jsonl"):
        report = retrieve(display_name(tokenizer), model, *read_pairs(Path(data), limit), way, run)
    else:
        if Path(data).is_dir():
            check_folders(Path(data))
        photos = find_photos(data, limit)
        report = classify(display_name(tokenizer), model, photos, read_classes(photos, classes), templates, way, run)
    if ranks.first:
        print_report(report)
        if output is not None:
            write_report(report, output)


def classify(
    name: str,
    model: Any,
    photos: list[Photo],
    classes: Classes,
    templates: str,
    pipeline: Pipeline,
    run: Run,
) -> Report:
    """Top-1 and top-5 of each photo against the class vectors, which open_clip builds.

    The interval is Wilson's at 95 %: what another draw of as many photos could give, nothing about other data.

    Args:
        name: of the model, for the report.
        model: a Tokenizer with a text tower, or OpenClip.
        photos: from `find_photos`.
        classes: from `read_classes`.
        templates: as `read_templates`.
        pipeline: from photo to square.
        run: who computes, and how.
    """
    from open_clip import build_zero_shot_classifier

    prompts = read_templates(templates)
    classifier = build_zero_shot_classifier(model, text_ids(model), classes.names, prompts, device=run.ranks.device)
    images, indices, excluded = embed_photos(model, photos, pipeline, run)
    top = min(5, len(classes.names))
    best = (images @ classifier.float().cpu()).topk(top).indices
    truth = torch.tensor([classes.labels[index] for index in indices])
    hits = best == truth[:, None]
    figures: dict[str, Any] = {
        "top1": float(hits[:, 0].double().mean()),
        "top5": float(hits.any(1).double().mean()),
        "chance": 1 / len(classes.names),
    }
    figures["top1_low"], figures["top1_high"] = wilson(int(hits[:, 0].sum()), len(hits))
    figures |= tokens_of(model, pipeline.crop)
    figures["top1_each"] = {
        classes.names[label]: float(hits[truth == label, 0].double().mean()) for label in truth.unique().tolist()
    }
    details = {"classes": classes.names, "templates": prompts, "labels": "by folder or table"}
    protocol = embedding_protocol("zero-shot", content_hash(photos, run.ranks), len(indices), pipeline, details)
    return make_report(name, model, protocol, figures, run, excluded)


def wilson(hits: int, count: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share."""
    z, share = 1.959964, hits / count
    middle = share + z * z / (2 * count)
    spread = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return (middle - spread) / (1 + z * z / count), (middle + spread) / (1 + z * z / count)
