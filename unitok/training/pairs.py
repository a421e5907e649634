"""Pairs in random access: which sample stands where in an epoch, and who reads it."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from unitok.training.loader import BROKEN, PATIENCE, Loaded, Reader, Sample, stack
from unitok.training.sources import Pair

Key = tuple[int, int, int]
"""(epoch, slot in the epoch, pair)."""


class PairDataset(Dataset[Sample]):
    """Key -> Sample: one pair, read; a corrupt one gives way to the next good one."""

    def __init__(self, pairs: Sequence[Pair], reader: Reader) -> None:
        self.pairs, self.reader = pairs, reader

    def __getitem__(self, key: Key) -> Sample:
        epoch, slot, index = key
        problems: list[str] = []
        for pair in islice(self._from(index), PATIENCE):
            try:
                sample = self.reader(Path(pair.image).read_bytes(), pair.captions, epoch, slot)
            except BROKEN as error:
                problems.append(f"{pair.image} ({error})")
                continue
            return sample._replace(problems=tuple(problems))
        raise ValueError(f"{len(problems)} corrupt samples in a row, the first of them {problems[0]}")

    def _from(self, index: int) -> Iterator[Pair]:
        return (self.pairs[(index + step) % len(self.pairs)] for step in range(len(self.pairs)))


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
        self.seed = dataset.reader.seed or 0
        self.rank, self.ranks, self.workers, self.shuffle = rank, ranks, workers, shuffle
        size = sum(count for _, count in picks)
        self.batches_per_epoch = size // batch_size if shuffle else -(-size // batch_size)
        self.identity = {"samples_per_epoch": size, "seed": self.seed}

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
        rng = np.random.default_rng([self.seed, epoch])
        parts, first = [], 0
        for pairs, count in self.picks:
            copies, rest = divmod(count, pairs)
            parts += [np.tile(np.arange(pairs), copies) + first, rng.permutation(pairs)[:rest] + first]
            first += pairs
        order = np.concatenate(parts)
        return rng.permutation(order) if self.shuffle else order
