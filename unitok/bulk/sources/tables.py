"""Parquet files with image bytes or paths."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from unitok.bulk.sources.base import Record, edge_fingerprint
from unitok.bulk.sources.lines import record_of_fields

BATCH_ROWS = 64


@dataclass(frozen=True)
class TableShard:
    """A run of row groups of one file.

    Columns: `image`, a path from the file's folder on, a URL, an image file's bytes, or a struct of `bytes` and
    `path`; or `bytes`; and `key` (where missing: the path, or else the number of the row). All others are metadata.
    """

    name: str
    fs: Any
    path: str
    first: int
    count: int
    groups: tuple[int, ...]

    def fingerprint(self) -> str:
        """Of the size, the head and the tail of the file, where its statistics are."""
        return edge_fingerprint(self.fs, self.path, *self.groups)

    def records(self) -> Iterator[Record]:
        """One for each row."""
        with self.fs.open(self.path, "rb") as file:
            row = self.first
            for batch in _parquet(file, self.name).iter_batches(BATCH_ROWS, row_groups=list(self.groups)):
                for fields in batch.to_pylist():
                    yield record_of_fields(self.fs, self.path, f"row {row}", fields)
                    row += 1


def table_shards(url: str, fs: Any, path: str, shard_size: int) -> list[TableShard]:
    """Cut a file between row groups, into shards of `shard_size` rows or one group, whichever is more."""
    with fs.open(path, "rb") as file:
        about = _parquet(file, url).metadata
        sizes = [about.row_group(group).num_rows for group in range(about.num_row_groups)]
    shards: list[TableShard] = []
    first, rows, groups = 0, 0, list[int]()
    for group, size in enumerate(sizes):
        groups.append(group)
        rows += size
        if rows >= shard_size or group == len(sizes) - 1:
            if rows:
                shards.append(TableShard(f"{url}#{first}", fs, path, first, rows, tuple(groups)))
            first, rows, groups = first + rows, 0, []
    return shards


def _parquet(file: Any, name: str) -> Any:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise ValueError('Parquet needs pyarrow: pip install "unitok-vision[parquet]"') from error
    try:
        return pq.ParquetFile(file)
    except pa.ArrowInvalid as error:
        raise OSError(f"{name} is not a whole Parquet file: {error}") from error
