"""Records of many input shards -> batches of pictures of one shape, decoded ahead by threads."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from unitok.bulk.sources import InputShard, Record
from unitok.bulk.views import Photo

OPEN_BATCHES = 8
"""Batches' worth of pictures that may wait for others of their shape before a shorter batch is made."""

Row: TypeAlias = dict[str, Any]


class Batch(NamedTuple):
    """Pictures of one shape from one shard.

    Attributes:
        shard: the shard's place in the plan.
        pixels: (B, H, W, 3) uint8.
        rows: what the sidecar says of each.
    """

    shard: int
    pixels: NDArray[np.uint8]
    rows: list[Row]


class Failed(NamedTuple):
    """A record that gave no picture, and why."""

    shard: int
    key: str
    reason: str


class Closed(NamedTuple):
    """The end of a shard; with an error, what came of it so far is void."""

    shard: int
    images: int
    error: Exception | None


Event: TypeAlias = Batch | Failed | Closed
_Decoded: TypeAlias = tuple[Record, Photo | str]


def batches(
    shards: Iterable[tuple[int, InputShard]],
    views: Callable[[bytes], Photo],
    batch_size: int,
    workers: int,
) -> Iterator[Event]:
    """Batches and failures shard by shard, each shard ended by `Closed`.

    What is in a batch depends on the shard alone: pictures of one shape, in the order of the input, `batch_size` of
    them until the shard runs out (or until too many shapes wait). So it does not matter which process works on which
    shard. Threads decode ahead, into the next shard too; Pillow and simplejpeg let them run side by side.
    """
    with ThreadPoolExecutor(workers) as pool:
        buckets, images = _Buckets(batch_size), 0
        for shard, item in _ahead(shards, views, pool, 2 * batch_size + 2 * workers):
            if isinstance(item, tuple):
                record, photo = item
                images += 1
                if isinstance(photo, str):
                    yield Failed(shard, record.key, photo)
                else:
                    yield from (Batch(shard, *full) for full in buckets.add(record, photo))
                continue
            if item is None:
                yield from (Batch(shard, *rest) for rest in buckets.rest())
            yield Closed(shard, images, item)
            buckets, images = _Buckets(batch_size), 0


def _ahead(
    shards: Iterable[tuple[int, InputShard]], views: Callable[[bytes], Photo], pool: ThreadPoolExecutor, ahead: int
) -> Iterator[tuple[int, _Decoded | Exception | None]]:
    """Decoded records in order, with `ahead` of them in work; after each shard its error or None."""
    waiting: deque[tuple[int, Future[_Decoded] | Exception | None]] = deque()
    try:
        for shard, item in _records(shards):
            waiting.append((shard, pool.submit(_decode, item, views) if isinstance(item, Record) else item))
            while len(waiting) > ahead:
                yield _result(*waiting.popleft())
        while waiting:
            yield _result(*waiting.popleft())
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _result(shard: int, item: Any) -> tuple[int, Any]:
    return shard, item.result() if isinstance(item, Future) else item


def _records(shards: Iterable[tuple[int, InputShard]]) -> Iterator[tuple[int, Record | Exception | None]]:
    for index, shard in shards:
        try:
            for record in shard.records():
                yield index, record
        except (OSError, ValueError) as error:
            yield index, error
        else:
            yield index, None


def _decode(record: Record, views: Callable[[bytes], Photo]) -> _Decoded:
    try:
        return record, views(record.load())
    except FileNotFoundError:
        return record, "no such file"
    except (OSError, ValueError) as error:
        return record, str(error)


class _Buckets:
    """Pictures that wait for others of their shape."""

    def __init__(self, batch_size: int) -> None:
        self.batch_size = batch_size
        self.waiting: dict[tuple[int, int], list[tuple[NDArray[np.uint8], Row]]] = {}
        self.count = 0

    def add(self, record: Record, photo: Photo) -> Iterator[tuple[NDArray[np.uint8], list[Row]]]:
        """The batches that became full."""
        for number, view in enumerate(photo.views):
            row = {
                "key": record.key,
                "view": number,
                "width": photo.width,
                "height": photo.height,
                "crop": [round(side, 2) for side in view.crop],
                "flipped": view.flipped,
                "metadata": record.metadata,
            }
            shape = view.pixels.shape[0], view.pixels.shape[1]
            bucket = self.waiting.setdefault(shape, [])
            bucket.append((view.pixels, row))
            self.count += 1
            if len(bucket) == self.batch_size:
                yield self._take(shape)
            elif self.count >= OPEN_BATCHES * self.batch_size:
                yield self._take(max(self.waiting, key=lambda shape: len(self.waiting[shape])))

    def rest(self) -> Iterator[tuple[NDArray[np.uint8], list[Row]]]:
        """All that still waits."""
        for shape in list(self.waiting):
            yield self._take(shape)

    def _take(self, shape: tuple[int, int]) -> tuple[NDArray[np.uint8], list[Row]]:
        bucket = self.waiting.pop(shape)
        self.count -= len(bucket)
        return np.stack([pixels for pixels, _ in bucket]), [row for _, row in bucket]
