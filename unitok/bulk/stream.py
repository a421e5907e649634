"""Tokens of a run in a shuffled stream that ranks and workers share out, and that can go on where it was stopped."""

import os
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import IterableDataset, get_worker_info

from unitok.bulk.ranks import launched_rank
from unitok.bulk.reading import Sample, TokenDataset

READ_AHEAD = 64


class TokenStream(IterableDataset[Sample]):
    """One epoch per iteration; each image goes to exactly one consumer, a consumer being a worker of a rank.

    The order is a function of `seed` and the epoch: shards are permuted, and rows are permuted within `window` shards
    at a time. Consumers take turns, all get equally many, and the rest (fewer images than there are consumers) is left
    out, other ones in each epoch. `state_dict` counts images of all consumers, so a run may go on with another number.

    Args:
        folder: path or URL of the run.
        shuffle: False keeps the order of the run.
        seed: of the order.
        window: shards that are mixed with each other.
        rank: of this process; by default as the launcher says (torchrun, Lightning, SLURM).
        world_size: how many processes there are; by default as the launcher says.

    Raises:
        ValueError, OSError: as TokenDataset; rank is not below world_size.

    With worker processes the state lives in them: torchdata's StatefulDataLoader saves it; torch's own DataLoader
    does so with num_workers=0 only.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        shuffle: bool = True,
        seed: int = 0,
        window: int = 8,
        rank: int | None = None,
        world_size: int | None = None,
    ) -> None:
        launched = launched_rank()
        self.dataset = TokenDataset(folder)
        self.shuffle, self.seed, self.window = shuffle, seed, max(1, window)
        self.rank = launched.number if rank is None else rank
        self.world_size = launched.world if world_size is None else world_size
        if not 0 <= self.rank < self.world_size:
            raise ValueError(f"rank={self.rank} must be at least 0 and below world_size={self.world_size}")
        self.epoch = self.position = 0
        """The epoch, and the images of it that all consumers together have seen."""

    def __len__(self) -> int:
        """Images of this rank in one epoch, where there are no worker processes."""
        return len(self.dataset) // self.world_size

    def __iter__(self) -> Iterator[Sample]:
        worker = get_worker_info()
        workers, number = (worker.num_workers, worker.id) if worker else (1, 0)
        consumers, consumer = self.world_size * workers, self.rank * workers + number
        end = len(self.dataset) // consumers * consumers
        mine: list[int] = []
        for start, order in self._windows():
            first = start + (consumer - start) % consumers
            turns = np.arange(first, min(start + len(order), end), consumers)
            turns = turns[turns >= self.position]
            mine += order[turns - start].tolist()
            while len(mine) >= READ_AHEAD:
                yield from self._read(mine[:READ_AHEAD], consumers)
                mine = mine[READ_AHEAD:]
        yield from self._read(mine, consumers)
        self.epoch, self.position = self.epoch + 1, 0

    def state_dict(self) -> dict[str, Any]:
        """Where the stream stands."""
        return {"epoch": self.epoch, "position": self.position, "seed": self.seed, "images": len(self.dataset)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there at the next iteration; ValueError where the state is of another stream."""
        if (state["seed"], state["images"]) != (self.seed, len(self.dataset)):
            raise ValueError(
                f"the state is of a stream with seed={state['seed']} over {state['images']} images, "
                f"this one has seed={self.seed} over {len(self.dataset)}"
            )
        self.epoch, self.position = state["epoch"], state["position"]

    def _read(self, indices: list[int], consumers: int) -> Iterator[Sample]:
        for sample in self.dataset.__getitems__(indices):
            self.position += consumers
            yield sample

    def _windows(self) -> Iterator[tuple[int, NDArray[np.int64]]]:
        """Places in the epoch's order where windows start, and the indices of images in them; seen ones are skipped."""
        random = np.random.default_rng((self.seed, self.epoch))
        sizes = [shard["rows"] for shard in self.dataset.manifest["shards"]]
        starts = np.cumsum([0, *sizes])
        shards = random.permutation(len(sizes)) if self.shuffle else np.arange(len(sizes))
        place = 0
        for cut in range(0, len(shards), self.window):
            members = shards[cut : cut + self.window]
            seed = int(random.integers(2**63))
            count = sum(sizes[shard] for shard in members)
            if place + count > self.position:
                order = np.concatenate([np.arange(starts[shard], starts[shard + 1]) for shard in members])
                yield place, np.random.default_rng(seed).permutation(order) if self.shuffle else order
            place += count
