"""How well images come back: rFID, PSNR, SSIM, LPIPS, L1, codebook usage, bits; streaming, nothing on disk."""

from pathlib import Path
from typing import Any, Literal

import torch

from unitok.evaluation.judges import Judges, open_judges
from unitok.evaluation.photos import Photo, batches, content_hash, find_photos
from unitok.evaluation.pictures import best_middle_worst, grid
from unitok.evaluation.protocol import Pipeline, Protocol, named_pipeline
from unitok.evaluation.ranks import Run, join
from unitok.evaluation.reference import find_reference, keep_reference
from unitok.evaluation.report import Report, make_report, print_report, write_report
from unitok.evaluation.rivals import DTYPES, Precision, display_name, open_model
from unitok.evaluation.tally import Tally, round_trip
from unitok.files import replacing


def reconstruction(
    *,
    data: str,
    tokenizer: str = "unitok_tiny",
    output: Path | None = None,
    pipeline: str = "bicubic-256",
    size: int | None = None,
    features: str = "inception",
    inception_weights: Path | None = None,
    features_weights: Path | None = None,
    features_options: dict[str, Any] | None = None,
    lpips: Literal["alex", "vgg", "squeeze", "none"] = "alex",
    lpips_weights: Path | None = None,
    limit: int | None = None,
    batch_size: int = 32,
    workers: int = 4,
    dtype: Precision = "float32",
    device: str | None = None,
    cache: Path | None = None,
) -> None:
    """Measure reconstruction under a written protocol, and write one JSON and a picture beside it.

    Args:
        data: a folder of images, a folder of tar shards, or one tar.
        tokenizer: a name, folder, file or "owner/name"; or a rival: jpeg@BITS_PER_PIXEL, webp@BITS_PER_PIXEL,
            diffusers@FOLDER, adapter.py@ARGUMENT.
        output: the JSON; the grid of pictures goes beside it as PNG. None prints only.
        pipeline: bicubic-256, crop-256, bilinear-288 or lanczos-288.
        size: side of the square instead of the pipeline's, its resize in proportion.
        features: "inception" gives rFID; a timm network's name gives rFD-<network>; "none" does without.
        inception_weights: torch-fidelity's weights file, where it is not in torch's cache.
        features_weights: weights file of the timm network.
        features_options: arguments of timm.create_model, as JSON.
        lpips: backbone of LPIPS, or "none".
        lpips_weights: torchvision's weights file of that backbone, where it is not in torch's cache.
        limit: measure this many photos, evenly spaced over their sorted names.
        batch_size: images at once.
        workers: processes that decode photos.
        dtype: of the tokenizer's weights; the judges always compute in float32.
        device: cpu, cuda, ...; under torchrun each process takes its own GPU.
        cache: folder of reference statistics; default ~/.cache/unitok (or UNITOK_CACHE).
    """
    ranks, way = join(device), named_pipeline(pipeline, size)
    photos = find_photos(data, limit)
    weights = features_weights if features != "inception" else inception_weights
    judges = open_judges(features, weights, features_options or {}, lpips, lpips_weights, ranks.device)
    model, precision = open_model(tokenizer, DTYPES[dtype], ranks.device), DTYPES[dtype]
    report, scores = evaluate(
        display_name(tokenizer), model, photos, way, judges, Run(ranks, batch_size, workers, precision), cache
    )
    if not ranks.first:
        return
    if output is not None:
        picture = output.with_suffix(".png")
        save_pictures(picture, model, photos, scores, way, ranks.device)
        report = report._replace(picture=picture.name)
        write_report(report, output)
    print_report(report)


def evaluate(
    name: str,
    model: Any,
    photos: list[Photo],
    pipeline: Pipeline,
    judges: Judges,
    run: Run,
    cache: Path | None = None,
) -> tuple[Report, dict[int, float]]:
    """One pass over the photos -> the report, and the PSNR of each photo by its index; the same on every rank.

    Memory does not grow with the number of photos, but for their names and figures: about a kilobyte each.

    Args:
        name: of the tokenizer, for the report.
        model: a Tokenizer or a rival.
        photos: from `find_photos`.
        pipeline: from photo to square.
        judges: the networks.
        run: who computes, and how.
        cache: folder of reference statistics; None takes the default.

    Raises:
        ValueError: no photo could be read, or a reconstruction holds NaN.
    """
    ranks = run.ranks
    data = content_hash(photos, ranks)
    reference = find_reference(data, pipeline, judges.features, cache)
    tally = Tally(model, judges, count_originals=reference is None)
    excluded: list[str] = []
    for batch in batches(photos, pipeline, run):
        excluded += batch.excluded
        if batch.indices:
            tally.add(batch.indices, batch.images.to(ranks.device, non_blocking=True))
    excluded = sorted(name for part in ranks.gather(excluded) for name in part)
    if len(excluded) == len(photos):
        raise ValueError(f"none of {len(photos)} photos could be read; the first: {excluded[0]}")
    figures, scores, reference = tally.figures(ranks, reference)
    if ranks.first and reference is not None:
        keep_reference(reference, data, pipeline, judges.features, cache)
    protocol = Protocol(
        "reconstruction", data, len(scores), pipeline.resize, pipeline.filter, pipeline.crop,
        "uint8, half up", judges.hashes, {},
    )  # fmt: skip
    warnings = _warnings(len(scores), excluded, judges)
    return make_report(name, model, protocol, figures, run, excluded, warnings), scores


def _warnings(count: int, excluded: list[str], judges: Judges) -> list[str]:
    found = []
    if excluded:
        found.append(f"{len(excluded)} photos could not be used and are in no figure; the first: {excluded[0]}")
    network = judges.features
    if network is not None and count <= network.dim:
        found.append(
            f"{network.figure} of {count} photos in {network.dim} dimensions is biased: their covariance has rank "
            f"{count - 1} at most. Compare it only with figures of the very same photos, never with published ones"
        )
    return found


def save_pictures(
    path: Path, model: Any, photos: list[Photo], scores: dict[int, float], pipeline: Pipeline, device: torch.device
) -> None:
    """Write the grid of best, median and worst by PSNR; they are reconstructed once more, so no run keeps pictures."""
    rows = []
    for label, index in best_middle_worst(scores):
        image = pipeline(photos[index].open())[None].to(device)
        copy, _ = round_trip(model, image, index)
        caption = f"{label}: {photos[index].name}, {scores[index]:.2f} dB"
        rows.append((caption, image[0].cpu().float() / 255, copy[0].cpu().float() / 255))
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        grid(rows).save(temporary, format="PNG")
