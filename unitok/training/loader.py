"""Batches with a position: an epoch can be left anywhere and taken up again, batch for batch, decoding nothing twice."""

import struct
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from unitok.training.crops import Crop, Pixels
from unitok.training.sources import Pair

Tokenize = Callable[[str], Tensor]
Key = tuple[int, int, int]
"""(epoch, slot in the epoch, pair): all that a sample's randomness hangs on, so workers and ranks do not matter."""

BROKEN = (OSError, ValueError, SyntaxError, EOFError, struct.error, Image.DecompressionBombError)
PATIENCE = 100
"""This many corrupt samples in a row are no longer bad luck."""


class Batch(NamedTuple):
    """images: (B, 3, S, S) uint8; text_ids: (B, L) int64, or None where no text is read."""

    images: Tensor
    text_ids: Tensor | None


class Sample(NamedTuple):
    """One (3, S, S) uint8 image, its (L,) int64 text ids, and what was found corrupt on the way to it."""

    image: Pixels
    text_ids: Tensor | None
    problems: tuple[str, ...] = ()


class Loaded(NamedTuple):
    """A batch, and what was found corrupt on the way to it."""

    batch: Batch
    problems: list[str]


class Feed(Protocol):
    """What a position is kept of: batches of one rank, from any sample of any epoch on."""

    batches_per_epoch: int
    batch_size: int
    """Of all ranks together."""
    identity: dict[str, int]
    """What must be the same for a saved position to mean the same."""

    def batches(self, epoch: int, start: int) -> Iterable[Loaded]:
        """The batches of `epoch` from its sample `start` (counted over all ranks) on."""
        ...


class Position:
    """Where in the data a run is: an epoch, and how many of its samples all ranks together were given."""

    def __init__(self) -> None:
        self.epoch, self.samples = 0, 0

    def set_epoch(self, epoch: int) -> None:
        """Go to the start of another epoch; the present one goes on where it is. Lightning calls this."""
        if epoch != self.epoch:
            self.epoch, self.samples = epoch, 0


class FeedLoader:
    """A feed from its first sample to its last, every time alike; it counts what was corrupt on the way."""

    def __init__(self, feed: Feed) -> None:
        self.feed = feed
        self.seen, self.corrupt = 0, 0
        self.examples: list[str] = []

    def __len__(self) -> int:
        """Batches of a whole epoch."""
        return self.feed.batches_per_epoch

    def __iter__(self) -> Iterator[Batch]:
        for loaded in self.feed.batches(0, 0):
            yield self._counted(loaded)

    def report(self) -> str | None:
        """A sentence where more than 1 % of the samples were corrupt, else None."""
        if self.corrupt <= 0.01 * self.seen:
            return None
        share = f"{self.corrupt / max(self.seen, 1):.1%} of the samples were corrupt"
        return f"{share} ({self.corrupt} among {self.seen} on this rank); for example {'; '.join(self.examples)}"

    def _counted(self, loaded: Loaded) -> Batch:
        self.seen += len(loaded.batch.images)
        self.corrupt += len(loaded.problems)
        for problem in loaded.problems[: 5 - len(self.examples)]:
            self.examples.append(problem)
            warnings.warn(f"corrupt sample passed over: {problem}", stacklevel=2)
        return loaded.batch


class ResumableLoader(FeedLoader):
    """A feed with a position; iterating goes on where it was left, and after the last batch the next epoch follows.

    Lightning puts `state_dict` into every checkpoint. The position counts the batches that were handed out, so a
    checkpoint that is written between batches resumes exactly.
    """

    def __init__(self, feed: Feed) -> None:
        super().__init__(feed)
        self.sampler = Position()  # the name under which Lightning looks for set_epoch

    def __iter__(self) -> Iterator[Batch]:
        position, size = self.sampler, self.feed.batch_size
        if position.samples // size >= len(self):
            position.set_epoch(position.epoch + 1)
        for loaded in self.feed.batches(position.epoch, position.samples):
            position.samples += size
            yield self._counted(loaded)

    def state_dict(self) -> dict[str, int]:
        """Position, counts, and what they belong to."""
        counts = {"seen": self.seen, "corrupt": self.corrupt}
        return {"epoch": self.sampler.epoch, "samples": self.sampler.samples, **counts, **self.feed.identity}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go to a saved position.

        Raises:
            ValueError: it belongs to other data, or to a loader that would give other batches from there.
        """
        here = self.feed.identity
        other = [f"{name}={state.get(name)} in the checkpoint, {here[name]} here" for name in here]
        other = [text for text, name in zip(other, here, strict=True) if state.get(name) != here[name]]
        if other:
            raise ValueError(f"the position in the data cannot be resumed exactly: {'; '.join(other)}")
        self.sampler.epoch, self.sampler.samples = state["epoch"], state["samples"]
        self.seen, self.corrupt = state["seen"], state["corrupt"]


class PairDataset(Dataset[Sample]):
    """Key -> Sample: one pair read, cropped and its caption tokenized; a corrupt pair gives way to the next good one.

    Args:
        pairs: what there is to read.
        crop: bytes and a random generator -> pixels.
        tokenize: caption -> text ids, or None where no text is read.
        seed: of crops and choice of captions; None takes the first caption.
    """

    def __init__(self, pairs: Sequence[Pair], crop: Crop, tokenize: Tokenize | None, seed: int | None) -> None:
        self.pairs, self.crop, self.tokenize, self.seed = pairs, crop, tokenize, seed

    def __getitem__(self, key: Key) -> Sample:
        epoch, slot, index = key
        problems: list[str] = []
        for pair in islice(self._from(index), PATIENCE):
            rng = np.random.default_rng([self.seed or 0, epoch, slot])
            try:
                image = self.crop(Path(pair.image).read_bytes(), rng)
            except BROKEN as error:
                problems.append(f"{pair.image} ({error})")
                continue
            return Sample(image, self._text(pair, rng), tuple(problems))
        raise ValueError(f"{len(problems)} corrupt samples in a row, the first of them {problems[0]}")

    def _from(self, index: int) -> Iterator[Pair]:
        return (self.pairs[(index + step) % len(self.pairs)] for step in range(len(self.pairs)))

    def _text(self, pair: Pair, rng: np.random.Generator) -> Tensor | None:
        if self.tokenize is None:
            return None
        chosen = 0 if self.seed is None else int(rng.integers(len(pair.captions)))
        return self.tokenize(pair.captions[chosen])


class PairFeed:
    """Shuffled batches of pairs: of every batch each rank takes its part, so ranks change who reads, not what is read.

    Args:
        dataset: of all sources, one after another.
        picks: how many samples of each source an epoch has, as (pairs in the source, samples of an epoch).
        batch_size: of all ranks together.
        rank: of this process.
        ranks: how many there are.
        workers: processes that read; their number does not change the batches.
        shuffle: False gives every rank every `ranks`-th pair in order and keeps the last, smaller batch; the first
            pairs come twice where the ranks do not divide them.
    """

    def __init__(
        self,
        dataset: PairDataset,
        picks: Sequence[tuple[int, int]],
        batch_size: int,
        rank: int = 0,
        ranks: int = 1,
        workers: int = 0,
        shuffle: bool = True,
    ) -> None:
        self.dataset, self.picks, self.batch_size = dataset, picks, batch_size
        self.rank, self.ranks, self.workers, self.shuffle = rank, ranks, workers, shuffle
        size = sum(count for _, count in picks)
        self.batches_per_epoch = size // batch_size if shuffle else -(-size // batch_size)
        self.identity = {"samples_per_epoch": size, "seed": dataset.seed or 0}

    def batches(self, epoch: int, start: int) -> Iterable[Loaded]:
        """The batches of `epoch` from its sample `start` on."""
        return DataLoader(
            self.dataset,
            batch_sampler=list(self._keys(epoch, start)),
            num_workers=self.workers,
            collate_fn=stack,
            pin_memory=torch.cuda.is_available(),
        )

    def _keys(self, epoch: int, start: int) -> Iterator[list[Key]]:
        order = self._order(epoch)
        for first in range(start, len(order), self.batch_size):
            slots = range(first, min(first + self.batch_size, len(order)))
            if self.shuffle and len(slots) < self.batch_size:
                return
            share = -(-len(slots) // self.ranks)
            mine = [(first + self.rank * share + i) % len(order) for i in range(share)]
            yield [(epoch, slot, int(order[slot])) for slot in mine]

    def _order(self, epoch: int) -> np.ndarray[Any, np.dtype[np.int64]]:
        rng = np.random.default_rng([self.dataset.seed or 0, epoch])
        parts, first = [], 0
        for pairs, count in self.picks:
            copies, rest = divmod(count, pairs)
            parts += [np.tile(np.arange(pairs), copies) + first, rng.permutation(pairs)[:rest] + first]
            first += pairs
        order = np.concatenate(parts)
        return rng.permutation(order) if self.shuffle else order


def stack(samples: Sequence[Sample]) -> Loaded:
    """B samples -> one batch, with everything that was found corrupt."""
    images = torch.from_numpy(np.stack([sample.image for sample in samples]))
    texts = [sample.text_ids for sample in samples if sample.text_ids is not None]
    problems = [problem for sample in samples for problem in sample.problems]
    return Loaded(Batch(images, torch.stack(texts) if texts else None), problems)
