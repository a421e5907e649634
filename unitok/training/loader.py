"""Batches with a position: an epoch can be left anywhere and taken up again, batch for batch, decoding none twice."""

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from unitok.training.crops import Crop

Tokenize = Callable[[str], Tensor]

BROKEN = (OSError, ValueError)
"""What a corrupt sample raises."""

PATIENCE = 100
"""This many corrupt samples in a row are no longer bad luck."""


class Batch(NamedTuple):
    """images: (B, 3, S, S) uint8; text_ids: (B, L) int64, or None where no text is read."""

    images: Tensor
    text_ids: Tensor | None


class Sample(NamedTuple):
    """One (3, S, S) uint8 image, its (L,) int64 text ids, and what was found corrupt on the way to it."""

    image: Tensor
    text_ids: Tensor | None
    problems: tuple[str, ...] = ()


class Loaded(NamedTuple):
    """A batch, and what was found corrupt on the way to it."""

    batch: Batch
    problems: list[str]


class Reader:
    """Bytes of an image file and what may be said of it -> Sample.

    Args:
        crop: bytes and a random generator -> pixels.
        tokenize: caption -> text ids, or None where no text is read.
        seed: of crops and choice of captions; None takes the first caption.
    """

    def __init__(self, crop: Crop, tokenize: Tokenize | None, seed: int | None) -> None:
        self.crop, self.tokenize, self.seed = crop, tokenize, seed

    def __call__(self, image: bytes, captions: Sequence[str], epoch: int, slot: int) -> Sample:
        """A sample whose randomness hangs on (seed, epoch, slot in the epoch) alone: not on workers, ranks, the past.

        Raises:
            One of BROKEN: the image cannot be decoded, or text is read and there is no caption.
        """
        rng = np.random.default_rng([self.seed or 0, epoch, slot])
        pixels = self.crop(image, rng)
        if self.tokenize is None:
            return Sample(pixels, None)
        if not captions:
            raise ValueError("no caption")
        chosen = 0 if self.seed is None else int(rng.integers(len(captions)))
        return Sample(pixels, self.tokenize(captions[chosen]))


def stack(samples: Sequence[Sample]) -> Loaded:
    """B samples -> one batch, with everything that was found corrupt."""
    images = torch.stack([sample.image for sample in samples])
    texts = [sample.text_ids for sample in samples if sample.text_ids is not None]
    problems = [problem for sample in samples for problem in sample.problems]
    return Loaded(Batch(images, torch.stack(texts) if texts else None), problems)


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
