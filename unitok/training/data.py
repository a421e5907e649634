"""Images with captions for training: class folders and JSON-lines, mixed, shuffled and resumable."""

import warnings
from collections.abc import Sequence
from functools import partial
from itertools import chain
from typing import Any

import lightning
from torch import Tensor

from unitok.training.crops import centre_crop, training_crop
from unitok.training.loader import Batch, FeedLoader, PairDataset, PairFeed, ResumableLoader, Tokenize
from unitok.training.sources import Pair, read_class_names, read_pairs

__all__ = ["Batch", "ImageTextData"]


class ImageTextData(lightning.LightningDataModule):
    """Sources on disk -> batches of (B, 3, size, size) uint8 images and (B, context_length) int64 text ids.

    Every random choice hangs on (seed, epoch, sample), so the number of workers and ranks does not change the batches.
    The position in the data is saved with every checkpoint, and a resumed run sees the batches it would have seen.

    Args:
        train: a source or several: a folder of images, whose subfolders are classes; or a JSON-lines file of
            {"image": path relative to the file, "captions": [text, ...]}.
        validation: the same; its images are not augmented, their first caption is taken, and their order is kept.
        weights: how often an epoch sees each training source, 1 by default; 0.5 is another half in each epoch.
        size: S, pixels of a side.
        batch_size: images of one batch over all ranks together; each rank takes its equal part.
        scale: share of the photo's area that a training crop shows, least and most.
        ratio: width over height of a training crop before it becomes square, least and most.
        flip: mirror half of the training crops.
        text: False leaves captions unread.
        templates: sentences for class names, with {} for the name; or "openai" for open_clip's eighty.
        class_names: CSV file with columns folder and class_name; without it "_" in a folder's name is a space.
        context_length: text ids of a caption; longer ones are cut.
        workers: processes that decode, for each rank.
        seed: of order, crops and captions.
    """

    def __init__(
        self,
        train: str | list[str],
        validation: str | list[str] | None = None,
        weights: list[float] | None = None,
        size: int = 256,
        batch_size: int = 64,
        scale: tuple[float, float] = (0.9, 1.0),
        ratio: tuple[float, float] = (3 / 4, 4 / 3),
        flip: bool = False,
        text: bool = True,
        templates: str | list[str] = "a photo of a {}.",
        class_names: str | None = None,
        context_length: int = 77,
        workers: int = 4,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.train, self.validation = _listed(train), _listed(validation or [])
        self.weights = weights or [1.0] * len(self.train)
        if len(self.weights) != len(self.train) or min(self.weights) <= 0:
            raise ValueError(f"weights={self.weights} must be positive, one for each of {len(self.train)} sources")
        self.batch_size, self.workers, self.seed = batch_size, workers, seed
        self.text, self.context_length = text, context_length
        self.templates, self.class_names = _templates(templates), class_names
        self._training_crop = partial(training_crop, size=size, scale=scale, ratio=ratio, flip=flip)
        self._centre_crop = partial(centre_crop, size=size)
        self._train_loader: ResumableLoader | None = None
        self._pairs: dict[str, list[Pair]] = {}

    def setup(self, stage: str) -> None:
        """Read what the sources list, so that a missing or broken one is known before the first step.

        Raises:
            OSError: a source, a folder of it or an image that it lists is missing or cannot be read.
            ValueError: an empty folder, a broken line, images without captions, more images in a batch than in the
                data, or a batch that the ranks cannot share.
        """
        ranks = self.trainer.world_size if self.trainer else 1
        if self.batch_size < 1 or self.batch_size % ranks:
            raise ValueError(f"batch_size={self.batch_size} must be a multiple of ranks={ranks}, which share it")
        names = read_class_names(self.class_names) if self.class_names else None
        for source in (self.train if stage == "fit" else []) + self.validation:
            if source not in self._pairs:
                self._pairs[source] = read_pairs(source, self.templates, names)
                self._check_captions(source)

    def train_dataloader(self) -> ResumableLoader:
        """Shuffled, augmented, endless in epochs; the last incomplete batch of an epoch is left out.

        Raises:
            ValueError: fewer samples than one batch.
        """
        pairs = [self._pairs[source] for source in self.train]
        picks = [(len(p), round(len(p) * weight)) for p, weight in zip(pairs, self.weights, strict=True)]
        dataset = PairDataset(list(chain(*pairs)), self._training_crop, self._tokenize(), self.seed)
        feed = PairFeed(dataset, picks, self.batch_size, *self._rank(), workers=self.workers)
        if feed.batches_per_epoch == 0:
            raise ValueError(
                f"batch_size={self.batch_size} is more than the {sum(c for _, c in picks)} samples there are"
            )
        self._train_loader = ResumableLoader(feed)
        return self._train_loader

    def val_dataloader(self) -> list[FeedLoader]:
        """Centre crops in order, one loader for all sources; no loader where there is no source."""
        if not self.validation:
            return []
        pairs = list(chain.from_iterable(self._pairs[source] for source in self.validation))
        dataset = PairDataset(pairs, self._centre_crop, self._tokenize(), None)
        picks = [(len(pairs), len(pairs))]
        feed = PairFeed(dataset, picks, self.batch_size, *self._rank(), workers=self.workers, shuffle=False)
        return [FeedLoader(feed)]

    def test_dataloader(self) -> list[FeedLoader]:
        """As `val_dataloader`."""
        return self.val_dataloader()

    def teardown(self, stage: str) -> None:
        """Say at the end of a run if more than 1 % of its samples were corrupt."""
        report = self._train_loader.report() if self._train_loader else None
        if report:
            warnings.warn(report, stacklevel=2)

    def _rank(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    def _check_captions(self, source: str) -> None:
        silent = next((pair.image for pair in self._pairs[source] if not pair.captions), None)
        if self.text and silent is not None:
            raise ValueError(f"{silent} has no caption: sort images into class folders, or set text=false")

    def _tokenize(self) -> Tokenize | None:
        if not self.text:
            return None
        from open_clip import SimpleTokenizer

        return partial(_first, SimpleTokenizer(context_length=self.context_length))


def _first(tokenizer: Any, caption: str) -> Tensor:
    ids: Tensor = tokenizer(caption)[0]
    return ids


def _listed(sources: str | Sequence[str]) -> list[str]:
    return [sources] if isinstance(sources, str) else list(sources)


def _templates(templates: str | list[str]) -> list[str]:
    if templates == "openai":
        from open_clip import OPENAI_IMAGENET_TEMPLATES

        return [template("{}") for template in OPENAI_IMAGENET_TEMPLATES]
    for template in _listed(templates):
        if template.count("{}") != 1:
            raise ValueError(f"the template {template!r} needs exactly one {{}} for the class name")
    return _listed(templates)
