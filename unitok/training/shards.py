"""Pairs in WebDataset tar shards, read as streams: split by rank and worker, shuffled, resumed without decoding."""

import json
import os
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import count, islice
from typing import Any

import numpy as np
import torch
import webdataset
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from unitok.training.loader import BROKEN, PATIENCE, Loaded, Reader, Sample, stack

SUFFIXES = (".tar", ".tar.gz", ".tgz")
IMAGES = ("jpg", "jpeg", "png", "webp")

Fields = Mapping[str, Any]
"""A sample of a shard: "__key__", "__url__" and the bytes of its files by suffix."""


def is_shards(source: str) -> bool:
    """Whether a source names tar shards, here or elsewhere, rather than a folder or a JSON-lines file."""
    return source.endswith(SUFFIXES) or not _is_local(source)


def find_shards(pattern: str) -> list[str]:
    """A shard, or a brace pattern as data/{0000..0099}.tar -> shards, each local one looked at for its end.

    Raises:
        OSError: a local shard is missing or cannot be read.
        ValueError: one was cut short; compressed and remote shards are only found out when they are read.
    """
    shards: list[str] = webdataset.SimpleShardList(pattern).urls
    for shard in filter(_is_local, shards):
        _check_end(shard)
    return shards


def count_samples(shards: Sequence[str]) -> int:
    """Images in local shards, from the headers of their files alone.

    Raises:
        ValueError: a shard is not local, or holds no image.
    """
    total = 0
    for shard in shards:
        if not _is_local(shard):
            raise ValueError(f"{shard} is not local and cannot be counted: give samples_per_epoch")
        with tarfile.open(shard) as tar:
            images = sum(member.name.lower().rsplit(".", 1)[-1] in IMAGES for member in tar)
        if images == 0:
            raise ValueError(f"{shard} holds no image: looked for files that end in {', '.join(IMAGES)}")
        total += images
    return total


class ShardFeed:
    """Batches from shards; a worker reads its own shards one after another, again from the start if an epoch asks more.

    The order of the shards is drawn for each epoch, then dealt to ranks and to their workers. A corrupt sample gives
    way to the next good one, and a shard that ends too early to the next shard; both are counted. Other than with
    pairs, the number of ranks and workers changes the batches, and a resumed run must have the same.

    Args:
        shards: at least one for each worker of each rank.
        reader: bytes and captions -> Sample.
        samples_per_epoch: over all ranks; the last incomplete batch is left out.
        batch_size: of all ranks together.
        rank: of this process.
        ranks: how many there are.
        workers: processes that read, for each rank.
        shuffle: samples, still undecoded, among which a worker draws the next one; 0 keeps all orders as they are.

    Raises:
        ValueError: fewer shards than readers.
    """

    def __init__(
        self,
        shards: Sequence[str],
        reader: Reader,
        samples_per_epoch: int,
        batch_size: int,
        rank: int = 0,
        ranks: int = 1,
        workers: int = 0,
        shuffle: int = 1000,
    ) -> None:
        readers = ranks * max(workers, 1)
        if len(shards) < readers:
            raise ValueError(
                f"{len(shards)} shards are fewer than the {readers} readers of ranks={ranks} times workers={workers}:"
                " write smaller shards or use fewer workers"
            )
        self.shards, self.reader, self.batch_size, self.shuffle = shards, reader, batch_size, shuffle
        self.rank, self.ranks, self.workers, self.seed = rank, ranks, workers, reader.seed or 0
        self.batches_per_epoch = samples_per_epoch // batch_size
        self.identity = {
            "samples_per_epoch": samples_per_epoch,
            "seed": self.seed,
            "shards": len(shards),
            "batch_size": batch_size,
            "ranks": ranks,
            "workers": max(workers, 1),
            "shuffle": shuffle,
        }

    def batches(self, epoch: int, start: int) -> Iterable[Loaded]:
        """The batches of `epoch` from its sample `start` on; what comes before is read but not decoded."""
        return DataLoader(
            _Stream(self, epoch, start // self.batch_size),
            batch_size=None,
            collate_fn=_as_it_is,
            num_workers=self.workers,
            pin_memory=torch.cuda.is_available(),
        )

    def raw(self, epoch: int, role: int, roles: int) -> Iterator[Fields]:
        """Samples of one of `roles` workers of this rank, undecoded, without end.

        Raises:
            ValueError: none of its shards gives a sample.
        """
        for turn in count():
            rng = np.random.default_rng([self.seed, epoch, turn])
            order = rng.permutation(len(self.shards)) if self.shuffle else range(len(self.shards))
            mine = [self.shards[i] for i in order[self.rank :: self.ranks][role::roles]]
            stages: list[Any] = [lambda mine=mine: _read(mine)]
            if self.shuffle:
                seed = int(rng.integers(2**31)) + role * self.ranks + self.rank
                stages.append(webdataset.detshuffle(bufsize=self.shuffle, initial=max(1, self.shuffle // 5), seed=seed))
            sample = None
            for sample in webdataset.DataPipeline(*stages):
                yield sample
            if sample is None:
                raise ValueError(f"no samples in {len(mine)} shards, the first of them {mine[0]}")


class _Stream(IterableDataset[Loaded]):
    """The batches of one epoch from number `first` on, dealt to the workers in turn."""

    def __init__(self, feed: ShardFeed, epoch: int, first: int) -> None:
        self.feed, self.epoch, self.first = feed, epoch, first

    def __iter__(self) -> Iterator[Loaded]:
        feed, worker = self.feed, get_worker_info()
        roles = worker.num_workers if worker else 1
        role = ((worker.id if worker else 0) + self.first) % roles  # worker 0 is asked first: it takes up batch `first`
        share = feed.batch_size // feed.ranks
        done = len(range(role, self.first, roles))
        slots = (
            number * feed.batch_size + feed.rank * share + place
            for number in count(role + done * roles, roles)
            for place in range(share)
        )
        raw = islice(feed.raw(self.epoch, role, roles), done * share, None)
        samples = _good(raw, slots, feed.reader, self.epoch)
        for _ in range(role + done * roles, feed.batches_per_epoch, roles):
            yield stack(list(islice(samples, share)))


def _good(raw: Iterator[Fields], slots: Iterator[int], reader: Reader, epoch: int) -> Iterator[Sample]:
    """As many samples as raw ones: the next good one stands in for each corrupt one before it."""
    problems: list[str] = []
    places = 1
    for fields, slot in zip(raw, slots, strict=False):
        if "problem" in fields:
            problems.append(fields["problem"])
            sample = None
        else:
            try:
                sample = reader(_image(fields), _captions(fields), epoch, slot)
            except BROKEN as error:
                problems.append(f"{fields['__key__']} in {fields['__url__']} ({error})")
                sample = None
        if sample is None:
            places += 1
            if places > PATIENCE:
                raise ValueError(f"{len(problems)} corrupt samples in a row, the first of them {problems[0]}")
            continue
        yield sample._replace(problems=tuple(problems))
        yield from [sample] * (places - 1)
        problems, places = [], 1


def _read(shards: Sequence[str]) -> Iterator[Fields]:
    for shard in shards:
        failures: list[Exception] = []

        def stop(error: Exception, failures: list[Exception] = failures) -> bool:
            failures.append(error)
            return False

        source: dict[str, Any] = {"url": shard}
        try:
            yield from webdataset.tarfile_samples([source], handler=stop)
        finally:
            with suppress(
                KeyError, OSError
            ):  # webdataset leaves the stream open; a command that was cut off fails, as it should
                source["stream"].close()
        if failures:
            yield {"problem": f"the rest of shard {shard} ({failures[0].args[0]})"}


def _image(fields: Fields) -> bytes:
    for name, data in fields.items():
        if name.rsplit(".", 1)[-1] in IMAGES:
            return bytes(data)
    raise ValueError(f"no image, only {', '.join(name for name in fields if not name.startswith('__')) or 'nothing'}")


def _captions(fields: Fields) -> list[str]:
    """The text file; else "captions", "caption" or "text" of the JSON file; else none."""
    if "txt" in fields:
        return [fields["txt"].decode("utf-8").strip()]
    record = json.loads(fields["json"]) if "json" in fields else {}
    record = record if isinstance(record, dict) else {}
    found: Any = next((record[name] for name in ("captions", "caption", "text") if record.get(name)), [])
    return [found] if isinstance(found, str) else list(found)


def _check_end(shard: str) -> None:
    if not shard.endswith(".tar"):
        os.stat(shard)
        return
    with open(shard, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 1024))
        if size < 1024 or any(file.read()):
            raise ValueError(
                f"{shard} is cut short: a tar file ends in 1,024 zero bytes; write it again or leave it out"
            )


def _is_local(shard: str) -> bool:
    return "://" not in shard and not shard.startswith("pipe:")


def _as_it_is(loaded: Any) -> Any:
    return loaded
