"""What every input gives: shards in a fixed order, each a run of records in a fixed order."""

import hashlib
import json
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol

EDGE_BYTES = 2**16


class Record(NamedTuple):
    """One image of the input, not yet read where it lies in a file of its own.

    Attributes:
        key: its name in the input.
        load: gives the bytes of the image file; OSError or ValueError with the reason where there are none.
        metadata: what the input says about it: caption, label, and whatever else it has.
    """

    key: str
    load: Callable[[], bytes]
    metadata: dict[str, Any]


class InputShard(Protocol):
    """A part of the input that becomes one output shard.

    Attributes:
        name: tells it from all others, and says where it is.
        count: its records, None where only reading tells.
    """

    @property
    def name(self) -> str:
        """See above."""

    @property
    def count(self) -> int | None:
        """See above."""

    def fingerprint(self) -> str:
        """Tells whether the input changed since another run, without reading all of it."""

    def records(self) -> Iterator[Record]:
        """Its records, always in the same order. OSError or ValueError where it cannot be read to its end."""


def edge_fingerprint(fs: Any, path: str, *more: Any) -> str:
    """Of a file: its size and the sha256 of its first and last 64 KB, where archives and tables keep their indices.

    A change in the middle that keeps the size is not seen.
    """
    size = int(fs.info(path)["size"])
    edges = fs.cat_file(path, 0, min(EDGE_BYTES, size)) + fs.cat_file(path, max(0, size - EDGE_BYTES), size)
    return hashlib.sha256(json.dumps([size, *more]).encode() + edges).hexdigest()


def loader(fs: Any, path: str) -> Callable[[], bytes]:
    """Reads a file when called."""

    def load() -> bytes:
        data: bytes = fs.cat_file(path)
        return data

    return load


def refusing(reason: str) -> Callable[[], bytes]:
    """A loader of a record that has no image: raises ValueError(reason)."""

    def load() -> bytes:
        raise ValueError(reason)

    return load
