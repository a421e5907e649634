"""One output shard: codes in safetensors, what belongs to them in a sidecar, written and read.

`NNNNNN.safetensors` holds, for each grid h x w that occurs, `codes.HxW`: with layout "packed" (n, bytes) uint8, each
row the codes of one image, token by token, row by row, the K codes of a token side by side, as a little-endian stream
of bits; with layout "uint16" (n, h * w * K) uint16 in the same order. `crc32` (n,) uint32 guards each row and
`key_hash` (n,) uint64 finds it. Rows stand in the order of the grids, and within one grid in that of the input; the
sidecar has one line (or Parquet row) for each, in the same order.
"""

import hashlib
import io
import json
import zlib
from collections.abc import Iterable
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from unitok.bulk.batches import Row
from unitok.bulk.packing import bits_of, pack

Layout = Literal["packed", "uint16"]
Sidecar = Literal["jsonl", "parquet"]
Grid = tuple[int, int]


class Packing(NamedTuple):
    """How codes lie in a shard: layout, K and V."""

    layout: Layout
    num_codebooks: int
    codebook_size: int

    def check(self) -> None:
        """Raise ValueError where a code does not fit into the layout."""
        if self.layout == "uint16" and self.codebook_size > 2**16:
            raise ValueError(f"layout uint16 holds codes below 65536, not those of codebook_size={self.codebook_size}")

    @property
    def bits(self) -> int:
        """Of one code in the packed layout."""
        return bits_of(self.codebook_size)

    def rows(self, tokens: NDArray[Any]) -> NDArray[Any]:
        """(n, h, w, K) codes -> (n, columns) as they are stored."""
        flat = tokens.reshape(len(tokens), -1)
        return pack(flat, self.bits) if self.layout == "packed" else flat.astype(np.uint16)


class Finished(NamedTuple):
    """An output shard ready to be written.

    Attributes:
        codes: bytes of the safetensors file.
        sidecar: bytes of the sidecar.
        summary: what the ledger says of it.
    """

    codes: bytes
    sidecar: bytes
    summary: dict[str, Any]


class ShardDraft:
    """Collects the codes of one shard, packed; nothing is written before `finish`."""

    def __init__(self, packing: Packing, sidecar: Sidecar) -> None:
        self.packing, self.sidecar = packing, sidecar
        self.grids: dict[Grid, tuple[list[NDArray[Any]], list[Row]]] = {}
        self.failures: list[dict[str, str]] = []

    def add(self, tokens: NDArray[Any], rows: list[Row]) -> None:
        """(B, h, w, K) codes and their B sidecar rows."""
        height, width = tokens.shape[1:3]
        stored, about = self.grids.setdefault((height, width), ([], []))
        stored.append(self.packing.rows(tokens))
        about += rows

    def finish(self, images: int) -> Finished:
        """The shard's files, the same bytes whenever the same codes went in."""
        grids = sorted(self.grids)
        rows = [row for grid in grids for row in self.grids[grid][1]]
        tensors = {f"codes.{h}x{w}": np.concatenate(self.grids[h, w][0]) for h, w in grids}
        crc32 = [zlib.crc32(row) for grid in tensors.values() for row in grid]
        hashes = [key_hash(row["key"], row["view"]) for row in rows]
        tensors |= {"crc32": np.array(crc32, np.uint32), "key_hash": np.array(hashes, np.uint64)}
        codes, sidecar = save(tensors), _SIDECARS[self.sidecar](rows)
        summary = {
            "images": images,
            "rows": len(rows),
            "grids": [[*grid, len(self.grids[grid][1])] for grid in grids],
            "codes": {"bytes": len(codes), "sha256": hashlib.sha256(codes).hexdigest()},
            "sidecar": {"bytes": len(sidecar), "sha256": hashlib.sha256(sidecar).hexdigest()},
            "failures": self.failures,
        }
        return Finished(codes, sidecar, summary)


def key_hash(key: str, view: int) -> int:
    """64 bits of the sha256 of a key and a view."""
    return int.from_bytes(hashlib.sha256(f"{key}\0{view}".encode()).digest()[:8], "little")


def codes_name(shard: int) -> str:
    """Where the codes of a shard are."""
    return f"shards/{shard:06}.safetensors"


def sidecar_name(shard: int, sidecar: Sidecar) -> str:
    """Where the sidecar of a shard is."""
    return f"shards/{shard:06}.{sidecar}"


def json_lines(rows: Iterable[dict[str, Any]]) -> bytes:
    """One JSON object per line."""
    return "".join(json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in rows).encode(errors="replace")


def _parquet(rows: list[Row]) -> bytes:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise ValueError('a Parquet sidecar needs pyarrow: pip install "unitok-vision[parquet]"') from error
    kinds = {"key": pa.string(), "view": pa.int32(), "width": pa.int32(), "height": pa.int32()}
    schema = pa.schema({**kinds, "crop": pa.list_(pa.float64()), "flipped": pa.bool_(), "metadata": pa.string()})
    flat = [row | {"metadata": json.dumps(row["metadata"], ensure_ascii=False, default=str)} for row in rows]
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(flat, schema), buffer)
    return buffer.getvalue()


_SIDECARS = {"jsonl": json_lines, "parquet": _parquet}
