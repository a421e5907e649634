"""Tokens of a run at random: `dataset[i]`, slices, keys."""

import bisect
import os
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any, NamedTuple, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from unitok.bulk.folder import Folder
from unitok.bulk.ledger import read_manifest
from unitok.bulk.shard_reader import ShardReader
from unitok.bulk.shards import Packing, key_hash

OPEN_SHARDS = 64


class Sample(NamedTuple):
    """One image's tokens.

    Attributes:
        key: its name in the input.
        codes: (K, h, w) int64.
        row: its sidecar row: key, view, width, height, crop, flipped, metadata (caption, label, ...).
    """

    key: str
    codes: Tensor
    row: dict[str, Any]


class TokenDataset(Dataset[Sample]):
    """All tokens of a complete run, map-style, memory-mapped; cheap to open, to pickle and to fork.

    Shards are opened when first read. Every row is checked against its checksum as it is read, every sidecar when it
    is opened. A run behind fsspec is fetched shard by shard into a temporary folder.

    Args:
        folder: path or URL of the run.

    Raises:
        FileNotFoundError: no run there.
        ValueError: the run is not complete, or of an unknown format.

    Reading raises OSError where a file is damaged, naming the file and the row.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Folder(folder)
        self.manifest = read_manifest(self.folder)
        tokenizer = self.manifest["tokenizer"]
        self.num_codebooks, self.codebook_size = tokenizer["num_codebooks"], tokenizer["codebook_size"]
        self.packing = Packing(self.manifest["layout"], self.num_codebooks, self.codebook_size)
        self._starts = np.cumsum([0, *(shard["rows"] for shard in self.manifest["shards"])]).tolist()
        self._readers: OrderedDict[int, ShardReader] = OrderedDict()

    def __len__(self) -> int:
        return self._starts[-1]

    @overload
    def __getitem__(self, index: int) -> Sample: ...

    @overload
    def __getitem__(self, index: slice) -> list[Sample]: ...

    def __getitem__(self, index: int | slice) -> Sample | list[Sample]:
        if isinstance(index, slice):
            return self.__getitems__(range(*index.indices(len(self))))
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Iterable[int]) -> list[Sample]:
        """Several at once, in the order asked for; torch's DataLoader calls this."""
        places = [self._place(index) for index in indices]
        codes: list[Tensor | None] = [None] * len(places)
        for (shard, _), members in self._by_grid(places).items():
            rows = np.array([places[member][1] for member in members])
            for member, found in zip(members, self._codes(shard, rows), strict=True):
                codes[member] = found
        rows_of = [self.reader(shard).row(row) for shard, row in places]
        return [Sample(row["key"], found, row) for row, found in zip(rows_of, codes, strict=True) if found is not None]

    def codes(self, indices: slice | Sequence[int]) -> Tensor:
        """(n, K, h, w) int64 codes without metadata, the fastest way to read; all of one grid.

        Raises:
            ValueError: nothing asked for, or images of several grids.
        """
        places = [self._place(i) for i in (range(len(self))[indices] if isinstance(indices, slice) else indices)]
        grids = {self.reader(shard).grid_of(row) for shard, row in places}
        if len(grids) != 1:
            raise ValueError(f"these {len(places)} images have {len(grids)} grids {sorted(grids)[:4]}, not one")
        groups = self._by_grid(places)
        if len(groups) == 1:
            return self._codes(places[0][0], np.array([row for _, row in places]))
        codes = torch.empty(len(places), self.num_codebooks, *grids.pop(), dtype=torch.int64)
        for (shard, _), members in groups.items():
            codes[members] = self._codes(shard, np.array([places[member][1] for member in members]))
        return codes

    def find(self, key: str, view: int = 0) -> int:
        """The index of a key.

        Raises:
            KeyError: no such key and view.
            ValueError: several images have this key.
        """
        hashes, order = self._hashes
        wanted = np.uint64(key_hash(key, view))
        first, stop = np.searchsorted(hashes, wanted, "left"), np.searchsorted(hashes, wanted, "right")
        if first == stop:
            raise KeyError(f"no image has key={key!r} and view={view}")
        if stop - first > 1:
            raise ValueError(f"{stop - first} images have key={key!r}; at {sorted(order[first:stop].tolist())[:4]}")
        return int(order[first])

    def shard_of(self, index: int) -> int:
        """The number of the shard that an image is in."""
        return self._place(index)[0]

    def reader(self, shard: int) -> ShardReader:
        """A shard, opened; the most recent ones stay open."""
        if shard in self._readers:
            self._readers.move_to_end(shard)
        else:
            entry = self.manifest["shards"][shard]
            self._readers[shard] = ShardReader(self.folder, shard, entry, self.manifest["sidecar"])
            if len(self._readers) > OPEN_SHARDS:
                self._readers.popitem(last=False)
        return self._readers[shard]

    def __getstate__(self) -> dict[str, Any]:
        state = {name: value for name, value in self.__dict__.items() if name != "_hashes"}
        return state | {"_readers": OrderedDict(), "folder": self.folder.url}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state | {"folder": Folder(state["folder"])})

    def _place(self, index: int) -> tuple[int, int]:
        """Shard and row of an image; negative numbers count from the end."""
        number = index + len(self) if index < 0 else index
        if not 0 <= number < len(self):
            raise IndexError(f"index {index} is out of range for {len(self)} images")
        shard = bisect.bisect_right(self._starts, number) - 1
        return shard, number - self._starts[shard]

    def _by_grid(self, places: list[tuple[int, int]]) -> dict[tuple[int, tuple[int, int]], list[int]]:
        groups: dict[tuple[int, tuple[int, int]], list[int]] = {}
        for member, (shard, row) in enumerate(places):
            groups.setdefault((shard, self.reader(shard).grid_of(row)), []).append(member)
        return groups

    def _codes(self, shard: int, rows: NDArray[np.int64]) -> Tensor:
        return torch.from_numpy(self.reader(shard).codes(rows, self.packing))

    @cached_property
    def _hashes(self) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
        hashes = np.concatenate([self.reader(shard).key_hashes for shard in range(len(self.manifest["shards"]))])
        order = np.argsort(hashes, kind="stable")
        return hashes[order], order
