"""What quantization costs in understanding: kNN and a linear probe on the codes' features against unquantized ones."""

from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from unitok.evaluation.classes import Classes, check_folders, read_classes
from unitok.evaluation.photos import Photo, batches, content_hash, find_photos
from unitok.evaluation.protocol import Pipeline, Protocol, named_pipeline
from unitok.evaluation.ranks import Run, join
from unitok.evaluation.report import Report, make_report, print_report, write_report
from unitok.evaluation.rivals import DTYPES, Precision, display_name, open_model, tokens_of
from unitok.tokenizer import Tokenizer

NEIGHBOURS, TEMPERATURE = 20, 0.07
WEIGHT_DECAYS = (1e-4, 1e-3, 1e-2, 1e-1)
STEPS = 100


class Pooled(NamedTuple):
    """Mean-pooled features of labelled photos.

    Attributes:
        codes: (N, D) of `features(encode(images))`.
        encoder: (N, D') of the encoder, before projection and quantization.
        labels: (N,) int64.
    """

    codes: Tensor
    encoder: Tensor
    labels: Tensor


def probe(
    *,
    train: str,
    data: str,
    tokenizer: str = "unitok_tiny",
    output: Path | None = None,
    classes: str | None = None,
    pipeline: str = "bicubic-256",
    limit: int | None = None,
    batch_size: int = 64,
    workers: int = 4,
    dtype: Precision = "float32",
    device: str | None = None,
) -> None:
    """KNN and linear-probe accuracy on the features of the codes, and on the encoder's, from the same photos.

    Args:
        train: a folder of classes that the probes learn from.
        data: a folder of the same classes that they are tested on.
        tokenizer: a name, folder, file or "owner/name".
        output: the JSON. None prints only.
        classes: "imagenet", or a .csv, .txt or .json of names; None takes the folder names.
        pipeline: bicubic-256, ...; its side follows the tokenizer's image_size.
        limit: use this many photos of each folder, evenly spaced.
        batch_size: images at once.
        workers: processes that decode photos.
        dtype: of the weights.
        device: cpu, cuda, ...
    """
    run = Run(join(device), batch_size, workers, DTYPES[dtype])
    model = open_model(tokenizer, run.dtype, run.ranks.device)
    if not isinstance(model, Tokenizer):
        raise ValueError(f"{tokenizer} has no features(codes): a probe needs a tokenizer")
    sets = []
    for root in (train, data):
        if Path(root).is_dir():
            check_folders(Path(root))
        photos = find_photos(root, limit)
        sets.append((photos, read_classes(photos, classes)))
    report = probe_features(
        display_name(tokenizer), model, sets[0], sets[1], named_pipeline(pipeline, model.image_size), run
    )
    if run.ranks.first:
        print_report(report)
        if output is not None:
            write_report(report, output)


def probe_features(
    name: str,
    model: Tokenizer,
    train: tuple[list[Photo], Classes],
    test: tuple[list[Photo], Classes],
    pipeline: Pipeline,
    run: Run,
) -> Report:
    """Photos and their classes, twice -> the report.

    Args:
        name: of the tokenizer, for the report.
        model: the tokenizer.
        train: what the probes learn from.
        test: what they are tested on.
        pipeline: from photo to square.
        run: who computes, and how.

    Raises:
        ValueError: the two folders have other classes.
    """
    if train[1].names != test[1].names:
        raise ValueError(f"the classes differ: {len(train[1].names)} in train, {len(test[1].names)} in data")
    known, excluded = pool(model, *train, pipeline, run)
    asked, excluded_too = pool(model, *test, pipeline, run)
    count = len(train[1].names)
    figures: dict[str, Any] = {}
    for kind, learn, look in (("codes", known.codes, asked.codes), ("encoder", known.encoder, asked.encoder)):
        figures[f"knn_{kind}"] = accuracy(knn(learn, known.labels, look, count), asked.labels)
        figures[f"linear_{kind}"] = accuracy(linear_probe(learn, known.labels, look, count), asked.labels)
    figures["knn_cost"] = figures["knn_encoder"] - figures["knn_codes"]
    figures["linear_cost"] = figures["linear_encoder"] - figures["linear_codes"]
    figures |= tokens_of(model, pipeline.crop)
    details = {
        "train": content_hash(train[0], run.ranks),
        "train_count": len(known.labels),
        "classes": train[1].names,
        "knn": {"neighbours": NEIGHBOURS, "temperature": TEMPERATURE},
        "linear": {"weight_decays": WEIGHT_DECAYS, "steps": STEPS, "chosen": "on every fifth train photo"},
    }
    data = content_hash(test[0], run.ranks)
    way = (pipeline.resize, pipeline.filter, pipeline.crop)
    protocol = Protocol("probe", data, len(asked.labels), *way, "none", {}, details)
    return make_report(name, model, protocol, figures, run, sorted({*excluded, *excluded_too}))


@torch.no_grad()
def pool(
    model: Tokenizer, photos: list[Photo], classes: Classes, pipeline: Pipeline, run: Run
) -> tuple[Pooled, list[str]]:
    """Labelled photos -> their pooled features on every rank, and those that could not be read."""
    encoder: Any = model.encoder
    rows, excluded = [], []
    for batch in batches(photos, pipeline, run):
        excluded += batch.excluded
        if batch.indices:
            images = batch.images.to(run.ranks.device).float() / 255
            quantized = model.features(model.encode(images)).float().mean((1, 2)).cpu()
            unquantized = encoder(images).float().mean((1, 2)).cpu()
            rows += list(zip(batch.indices, quantized, unquantized, strict=True))
    everyone = sorted((row for part in run.ranks.gather(rows) for row in part), key=lambda row: row[0])
    excluded = sorted(name for part in run.ranks.gather(excluded) for name in part)
    if not everyone:
        raise ValueError(f"none of {len(photos)} photos could be read; the first: {excluded[0]}")
    labels = torch.tensor([classes.labels[index] for index, _, _ in everyone])
    found = Pooled(torch.stack([row[1] for row in everyone]), torch.stack([row[2] for row in everyone]), labels)
    if not (found.codes.isfinite().all() and found.encoder.isfinite().all()):
        raise ValueError("the features hold NaN or infinity: no score is given for a broken tokenizer")
    return found, excluded


def knn(known: Tensor, labels: Tensor, asked: Tensor, classes: int) -> Tensor:
    """(N, D) with (N,) labels, (M, D) -> (M,) labels: votes of the 20 nearest by cosine, weighted exp(cosine / 0.07).

    Source: Unsupervised Feature Learning via Non-Parametric Instance Discrimination (arXiv 1805.01978), "kNN".
    """
    scores, nearest = (F.normalize(asked, dim=1) @ F.normalize(known, dim=1).T).topk(min(NEIGHBOURS, len(known)))
    votes = torch.zeros(len(asked), classes).scatter_add_(1, labels[nearest], (scores / TEMPERATURE).exp())
    return votes.argmax(1)


def linear_probe(known: Tensor, labels: Tensor, asked: Tensor, classes: int) -> Tensor:
    """(N, D) with (N,) labels, (M, D) -> (M,) labels, by multinomial logistic regression on standardised features.

    The weight decay is the one of WEIGHT_DECAYS that does best on every fifth known feature, which the choice holds
    out; the probe is then fitted to all of them. Deterministic: it starts at zero and runs L-BFGS over the whole set.
    """
    mean, std = known.mean(0), known.std(0).clamp_min(1e-6)
    known, asked = (known - mean) / std, (asked - mean) / std
    held = torch.arange(len(known)) % 5 == 0

    def held_out(decay: float) -> float:
        weights = _fit(known[~held], labels[~held], classes, decay)
        return accuracy(_predict(known[held], weights), labels[held])

    best = max(WEIGHT_DECAYS, key=held_out)
    return _predict(asked, _fit(known, labels, classes, best))


def accuracy(found: Tensor, truth: Tensor) -> float:
    """The share of equal labels."""
    return float((found == truth).double().mean())


def _predict(features: Tensor, weights: Tensor) -> Tensor:
    return (features @ weights[:-1] + weights[-1]).argmax(1)


def _fit(features: Tensor, labels: Tensor, classes: int, decay: float) -> Tensor:
    """(D + 1, classes) weights, the bias last; it is not decayed."""
    weights = torch.zeros(features.shape[1] + 1, classes, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=STEPS, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(features @ weights[:-1] + weights[-1], labels) + decay * weights[:-1].square().sum() / 2
        loss.backward()
        return loss

    optimizer.step(closure)
    return weights.detach()
