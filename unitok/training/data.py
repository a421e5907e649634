"""Images with captions for training: class folders, JSON-lines and WebDataset shards, shuffled and resumable."""

import warnings
from collections.abc import Sequence
from functools import partial
from itertools import chain
from typing import Any

import lightning
from torch import Tensor

from unitok.training.crops import Crop, centre_crop, training_crop
from unitok.training.loader import Batch, Feed, FeedLoader, Reader, ResumableLoader, Tokenize
from unitok.training.pairs import PairDataset, PairFeed
from unitok.training.shards import ShardFeed, count_samples, find_shards, is_shards
from unitok.training.sources import Pair, read_class_names, read_pairs

__all__ = ["Batch", "ImageTextData"]


class ImageTextData(lightning.LightningDataModule):
    """Sources on disk -> batches of (B, 3, size, size) uint8 images and (B, context_length) int64 text ids.

    A source is a folder of images, whose subfolders are classes; or a JSON-lines file of {"image": path relative to
    the file, "captions": [text, ...]}; or WebDataset tar shards, as in data/{0000..0099}.tar, of jpg, png or webp with
    txt or json. Folders and JSON-lines mix; shards mix with shards.

    Every random choice hangs on (seed, epoch, place in the epoch). With folders and JSON-lines the number of workers
    and ranks therefore does not change the batches; with shards it does. The position in the data is saved with every
    checkpoint, and a resumed run sees the batches it would have seen.

    Args:
        train: a source or several.
        validation: the same; its images are not augmented, their first caption is taken, and their order is kept.
        weights: how often an epoch sees each folder or JSON-lines file of `train`; 0.5 is another half in each epoch.
            None is once each. A shard is weighed by naming it more than once.
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
        samples_per_epoch: of shards, over all ranks; None counts the images of local ones, which reads all headers.
        shuffle_buffer: of shards, undecoded samples among which a worker draws the next one.

    Raises:
        ValueError: weights that do not fit the sources, shards mixed with others, a template without {}.
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
        samples_per_epoch: int | None = None,
        shuffle_buffer: int = 1000,
    ) -> None:
        super().__init__()
        self.train, self.validation = _listed(train), _listed(validation or [])
        for sources in (self.train, self.validation):
            if any(map(is_shards, sources)) and not all(map(is_shards, sources)):
                raise ValueError(f"{sources} mixes shards with folders or JSON-lines: write the latter as shards")
        self.weights = weights
        if weights is not None:
            _check_weights(weights, self.train)
        self.batch_size, self.workers, self.seed = batch_size, workers, seed
        self.text, self.context_length = text, context_length
        self.templates, self.class_names = _templates(templates), class_names
        self.samples_per_epoch, self.shuffle_buffer = samples_per_epoch, shuffle_buffer
        self._training_crop: Crop = partial(training_crop, size=size, scale=scale, ratio=ratio, flip=flip)
        self._centre_crop: Crop = partial(centre_crop, size=size)
        self._pairs: dict[str, list[Pair]] = {}
        self._shards: dict[str, list[str]] = {}
        self._train_loader: ResumableLoader | None = None
        if self.validation:  # a data module that has these methods must also have the data
            self.val_dataloader = self.test_dataloader = self.validation_loader

    def setup(self, stage: str) -> None:
        """Read what the sources list, so that a missing or broken one is known before the first step.

        Raises:
            OSError: a source, a folder of it or an image that it lists is missing or cannot be read.
            ValueError: an empty folder, a broken line, images without captions, a shard that was cut short, or a
                batch that the ranks cannot share.
        """
        _, ranks = self._rank()
        if self.batch_size < 1 or self.batch_size % ranks:
            raise ValueError(f"batch_size={self.batch_size} must be a multiple of ranks={ranks}, which share it")
        names = read_class_names(self.class_names) if self.class_names else None
        for source in {*(self.train if stage == "fit" else []), *self.validation} - {*self._pairs, *self._shards}:
            if is_shards(source):
                self._shards[source] = find_shards(source)
            else:
                self._pairs[source] = read_pairs(source, self.templates, names)
                self._check_captions(source)

    def train_dataloader(self) -> ResumableLoader:
        """Shuffled and augmented, epoch after epoch; the last incomplete batch of an epoch is left out.

        Raises:
            ValueError: fewer samples than one batch, or fewer shards than workers.
        """
        reader = Reader(self._training_crop, self._tokenize(), self.seed)
        self._train_loader = ResumableLoader(self._feed(self.train, reader, train=True))
        return self._train_loader

    def validation_loader(self) -> FeedLoader:
        """Centre crops in order, of all sources of `validation` one after another."""
        reader = Reader(self._centre_crop, self._tokenize(), None)
        return FeedLoader(self._feed(self.validation, reader, train=False))

    def teardown(self, stage: str) -> None:
        """Say at the end of a run if more than 1 % of its samples were corrupt."""
        report = self._train_loader.report() if self._train_loader else None
        if report:
            warnings.warn(report, stacklevel=2)

    def _feed(self, sources: list[str], reader: Reader, train: bool) -> Feed:
        rank, ranks = self._rank()
        if is_shards(sources[0]):
            shards = list(chain.from_iterable(self._shards[source] for source in sources))
            size = (self.samples_per_epoch if train else None) or count_samples(shards)
            buffer = self.shuffle_buffer if train else 0
            feed: Feed = ShardFeed(shards, reader, size, self.batch_size, rank, ranks, self.workers, buffer)
        else:
            pairs = [self._pairs[source] for source in sources]
            weights = (self.weights if train else None) or [1.0] * len(pairs)
            picks = [(len(p), round(len(p) * weight)) for p, weight in zip(pairs, weights, strict=True)]
            size = sum(count for _, count in picks)
            dataset = PairDataset(list(chain.from_iterable(pairs)), reader)
            feed = PairFeed(dataset, picks, self.batch_size, rank, ranks, self.workers, shuffle=train)
        if feed.batches_per_epoch == 0:
            raise ValueError(f"batch_size={self.batch_size} is more than the {size} samples of {', '.join(sources)}")
        return feed

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


def _check_weights(weights: Sequence[float], sources: Sequence[str]) -> None:
    if any(map(is_shards, sources)):
        raise ValueError("weights are for folders and JSON-lines: name a shard more than once to weigh it")
    if len(weights) != len(sources) or min(weights) <= 0:
        raise ValueError(f"weights={weights} must be positive, one for each of the {len(sources)} sources in train")


def _templates(templates: str | list[str]) -> list[str]:
    if templates == "openai":
        from open_clip import OPENAI_IMAGENET_TEMPLATES

        return [template("{}") for template in OPENAI_IMAGENET_TEMPLATES]
    for template in _listed(templates):
        if template.count("{}") != 1:
            raise ValueError(f"the template {template!r} needs exactly one {{}} for the class name")
    return _listed(templates)
