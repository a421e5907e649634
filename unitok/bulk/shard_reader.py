"""One output shard, read back: codes through a memory map, each row guarded by its checksum."""

import hashlib
import json
import zlib
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from unitok.bulk.folder import Folder
from unitok.bulk.packing import unpack
from unitok.bulk.shards import Grid, Packing, Sidecar, codes_name, sidecar_name

_DTYPES = {"U8": np.uint8, "U16": np.uint16, "U32": np.uint32, "U64": np.uint64}


class ShardReader:
    """Rows of one output shard.

    Args:
        folder: of the run.
        shard: number of the shard.
        entry: what the manifest says of it.
        sidecar: kind of the sidecar.
    """

    def __init__(self, folder: Folder, shard: int, entry: dict[str, Any], sidecar: Sidecar) -> None:
        self.folder, self.shard, self.entry, self.sidecar = folder, shard, entry, sidecar
        self.grids: list[tuple[Grid, int, int]] = []
        """Each grid with the numbers of its first row and of the row after its last."""
        start = 0
        for height, width, count in entry["grids"]:
            self.grids.append(((height, width), start, start + count))
            start += count

    def __len__(self) -> int:
        return int(self.entry["rows"])

    def grid_of(self, row: int) -> Grid:
        """(h, w) of a row."""
        return next(grid for grid, _, stop in self.grids if row < stop)

    def stored(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """(n,) numbers of rows of one grid -> (n, columns) as they are stored, checked.

        Raises:
            OSError: the file or one of these rows is damaged.
        """
        (height, width), start, stop = next(entry for entry in self.grids if rows[0] < entry[2])
        if rows.min() < start or rows.max() >= stop:
            raise ValueError(f"rows {rows.min()} to {rows.max()} of shard {self.shard} have several grids")
        if len(rows) > 1 and (np.diff(rows) == 1).all():
            found = self._tensors[f"codes.{height}x{width}"][rows[0] - start : rows[-1] + 1 - start]
        else:
            found = self._tensors[f"codes.{height}x{width}"][rows - start]
        expected = self._tensors["crc32"][rows]
        for row, data, crc32 in zip(rows, found, expected.tolist(), strict=True):
            if zlib.crc32(data) != crc32:
                raise OSError(f"{self._path} is damaged: row {row} ({self.row(int(row))['key']!r}) fails its checksum")
        return found

    def codes(self, rows: NDArray[np.int64], packing: Packing) -> NDArray[np.int64]:
        """(n,) numbers of rows of one grid -> (n, K, h, w) int64 codes; OSError as `stored`."""
        height, width = self.grid_of(int(rows[0]))
        stored, count = self.stored(rows), packing.num_codebooks * height * width
        flat = unpack(stored, count, packing.bits) if packing.layout == "packed" else stored.astype(np.int64)
        tokens = flat.reshape(len(rows), height * width, packing.num_codebooks)
        return tokens.swapaxes(1, 2).reshape(len(rows), packing.num_codebooks, height, width)

    def row(self, number: int) -> dict[str, Any]:
        """A row of the sidecar; OSError where the sidecar is damaged."""
        if self.sidecar == "jsonl":
            lines = self._lines
            start = int(lines[number - 1]) + 1 if number else 0
            found: dict[str, Any] = json.loads(self._sidecar[start : int(lines[number])])
            return found
        row: dict[str, Any] = self._table.slice(number, 1).to_pylist()[0]
        return row | {"metadata": json.loads(row["metadata"])}

    @property
    def key_hashes(self) -> NDArray[np.uint64]:
        """(rows,) hashes of key and view, see `shards.key_hash`."""
        hashes: NDArray[np.uint64] = self._tensors["key_hash"]
        return hashes

    def check(self) -> None:
        """Read both files whole; OSError where one is not what was written."""
        for name in (codes_name(self.shard), sidecar_name(self.shard, self.sidecar)):
            kind: str = "codes" if name == codes_name(self.shard) else "sidecar"
            if hashlib.sha256(self.folder.read(name)).hexdigest() != self.entry[kind]["sha256"]:
                raise OSError(f"{self.folder.path(name)} is damaged: its sha256 is not the one in the manifest")

    @property
    def _path(self) -> str:
        return self.folder.path(codes_name(self.shard))

    @cached_property
    def _tensors(self) -> dict[str, NDArray[Any]]:
        """Views into the mapped file: safetensors' own slices copy, and cost more than a row."""
        path = self.folder.local(codes_name(self.shard))
        try:
            with safe_open(path, framework="numpy") as file:
                names = set(file.keys())
            mapped = np.memmap(path, np.uint8, "r")
            length = int.from_bytes(mapped[:8].tobytes(), "little")
            header = json.loads(mapped[8 : 8 + length].tobytes())
            tensors = {}
            for name in names:
                start, stop = (8 + length + offset for offset in header[name]["data_offsets"])
                dtype = _DTYPES[header[name]["dtype"]]
                tensors[name] = mapped[start:stop].view(dtype).reshape(header[name]["shape"])
        except FileNotFoundError:
            raise
        except (SafetensorError, ValueError, KeyError) as error:
            raise OSError(f"{path} is damaged: {error}") from error
        expected = {f"codes.{h}x{w}": stop - start for (h, w), start, stop in self.grids}
        expected |= {"crc32": len(self), "key_hash": len(self)}
        if {name: len(tensor) for name, tensor in tensors.items()} != expected:
            raise OSError(f"{path} is damaged: it has not the tensors that the manifest names ({expected})")
        return tensors

    @cached_property
    def _sidecar(self) -> bytes:
        path = self.folder.local(sidecar_name(self.shard, self.sidecar))
        data = path.read_bytes()
        if hashlib.sha256(data).hexdigest() != self.entry["sidecar"]["sha256"]:
            raise OSError(f"{path} is damaged: its sha256 is not the one in the manifest")
        return data

    @cached_property
    def _lines(self) -> NDArray[np.int64]:
        """Where each line ends."""
        return np.flatnonzero(np.frombuffer(self._sidecar, np.uint8) == ord("\n"))

    @cached_property
    def _table(self) -> Any:
        try:
            import pyarrow as pa
            import pyarrow.parquet as pq
        except ImportError as error:
            raise ValueError('this sidecar needs pyarrow: pip install "unitok-vision[parquet]"') from error
        return pq.read_table(pa.BufferReader(self._sidecar))
