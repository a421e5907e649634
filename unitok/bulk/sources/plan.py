"""From what a user types to the shards of the work: the same list, in the same order, on every process."""

from collections.abc import Iterable, Sequence
from typing import Any

from braceexpand import braceexpand

from unitok.bulk.folder import open_url
from unitok.bulk.sources.base import InputShard
from unitok.bulk.sources.lines import line_shards
from unitok.bulk.sources.photos import photo_shards
from unitok.bulk.sources.tables import table_shards
from unitok.bulk.sources.tars import TarShard

TARS = (".tar", ".tar.gz", ".tgz")
LINES = (".jsonl", ".ndjson")


def plan(inputs: Iterable[str], shard_size: int) -> list[InputShard]:
    """Folders, tars, JSON-lines and Parquet files, with {000..012} and * in names -> shards of the work.

    Args:
        inputs: paths or URLs. A tar is one shard; the others are cut.
        shard_size: records of one shard, where the input is no tar.

    Raises:
        FileNotFoundError: an input that does not exist.
        ValueError: nothing to do, one input given twice, or a file of an unknown kind.
    """
    if shard_size < 1:
        raise ValueError(f"shard_size={shard_size} must be at least 1")
    given = list(inputs)
    shards = [shard for pattern in given for url in _expanded(pattern) for shard in _cut(url, shard_size)]
    if not shards:
        raise ValueError(f"no images in {given}: folders need image files in them, files at least one record")
    names = [shard.name for shard in shards]
    if len(set(names)) < len(names):
        raise ValueError(f"given twice: {sorted({name for name in names if names.count(name) > 1})[:4]}")
    return shards


def _expanded(pattern: str) -> list[str]:
    urls: list[str] = []
    for url in braceexpand(pattern) if "{" in pattern else [pattern]:
        fs, path = open_url(url)
        if "*" in url:
            found = sorted(fs.glob(path))
            if not found:
                raise FileNotFoundError(f"nothing fits {url}")
            urls += [name if url.startswith("/") or "://" not in url else fs.unstrip_protocol(name) for name in found]
        elif fs.exists(path):
            urls.append(url)
        else:
            raise FileNotFoundError(f"no input {url}")
    return urls


def _cut(url: str, shard_size: int) -> Sequence[InputShard]:
    fs: Any
    fs, path = open_url(url)
    if fs.isdir(path):
        return photo_shards(url, fs, path, shard_size)
    if url.endswith(TARS):
        return [TarShard(url, fs, path)]
    if url.endswith(LINES):
        return line_shards(url, fs, path, shard_size)
    if url.endswith(".parquet"):
        return table_shards(url, fs, path, shard_size)
    raise ValueError(f"{url} is neither a folder nor one of {[*TARS, *LINES, '.parquet']}")
