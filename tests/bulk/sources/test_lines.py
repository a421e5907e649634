import base64
import json
from pathlib import Path

import pytest

from unitok.bulk.sources import plan


def test_records(tmp_path: Path):
    (tmp_path / "a.jpg").write_bytes(b"a")
    lines = [
        json.dumps({"image": "a.jpg", "captions": ["x", "ü"]}),
        "",
        json.dumps({"bytes": base64.b64encode(b"b").decode(), "key": "kb"}),
        "{broken",
        "[1]",
        json.dumps({"caption": "nothing"}),
        json.dumps({"bytes": "?", "key": "k"}),
        json.dumps({"image": f"file://{tmp_path}/a.jpg"}),
    ]
    (tmp_path / "list.jsonl").write_text("\n".join(lines))  # the last line without its end
    shards = plan([str(tmp_path / "list.jsonl")], 3)
    assert [shard.count for shard in shards] == [3, 3, 1]
    records = [record for shard in shards for record in shard.records()]
    assert [(r.key, r.metadata) for r in records[:2]] == [("a.jpg", {"captions": ["x", "ü"]}), ("kb", {})]
    assert [r.load() for r in (records[0], records[1], records[6])] == [b"a", b"b", b"a"]
    assert [r.key for r in records[2:6]] == ["line 4", "line 5", "line 6", "k"]
    for record, reason in zip(records[2:6], ["not JSON", "a JSON list", "neither", "base64"], strict=True):
        with pytest.raises(ValueError, match=reason):
            record.load()
