from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from unitok.bulk.sources import plan


def test_hugging_face_image_column(tmp_path: Path):
    rows = [{"image": {"bytes": bytes([i]), "path": f"{i}.jpg"}, "label": i} for i in range(5)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet", row_group_size=2)
    shards = plan([str(tmp_path / "a.parquet")], 3)
    assert [(shard.name[-2:], shard.count) for shard in shards] == [("#0", 4), ("#4", 1)]
    records = [record for shard in shards for record in shard.records()]
    assert [(r.key, r.load(), r.metadata) for r in records] == [(f"{i}.jpg", bytes([i]), {"label": i}) for i in range(5)]


def test_paths_and_plain_bytes(tmp_path: Path):
    (tmp_path / "x.jpg").write_bytes(b"x")
    pq.write_table(pa.table({"image": ["x.jpg"], "caption": ["c"]}), tmp_path / "paths.parquet")
    pq.write_table(pa.table({"bytes": [b"y"]}), tmp_path / "bytes.parquet")
    records = [r for shard in plan([f"{tmp_path}/{n}.parquet" for n in ("paths", "bytes")], 9) for r in shard.records()]
    assert [(r.key, r.load(), r.metadata) for r in records] == [("x.jpg", b"x", {"caption": "c"}), ("row 0", b"y", {})]


def test_truncated(tmp_path: Path):
    pq.write_table(pa.table({"bytes": [b"y" * 1000]}), tmp_path / "a.parquet")
    (tmp_path / "a.parquet").write_bytes((tmp_path / "a.parquet").read_bytes()[:-20])
    with pytest.raises(OSError, match="not a whole Parquet"):
        plan([str(tmp_path / "a.parquet")], 9)
