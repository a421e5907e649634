import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from unitok.bulk.folder import Folder
from unitok.bulk.ledger import Ledger, check_alike, read_manifest
from unitok.bulk.shards import Packing, ShardDraft


@dataclass
class Source:
    name: str = "input"
    print: str = "abc"
    count: None = None

    def fingerprint(self) -> str:
        return self.print

    def records(self):
        return iter(())


def _ledger(folder: Path) -> Ledger:
    return Ledger(Folder(folder), {"sidecar": "jsonl", "batch_size": 4})


def _commit(ledger: Ledger, shard: int) -> None:
    done = ShardDraft(Packing("packed", 2, 32), "jsonl").finish(0)
    ledger.commit(shard, done.codes, done.sidecar, {"input": "input", "fingerprint": "abc", **done.summary})


def test_a_shard_counts_once_all_three_files_are_there(tmp_path: Path):
    ledger = _ledger(tmp_path)
    assert ledger.entry(0, Source()) is None
    _commit(ledger, 0)
    assert ledger.entry(0, Source())["rows"] == 0
    assert ledger.missing(2) == 1
    (tmp_path / "shards" / "000000.safetensors").write_bytes(b"short")
    assert _ledger(tmp_path).entry(0, Source()) is None
    with pytest.raises(ValueError, match="input other is not what it was"):
        ledger.entry(0, Source(name="other"))


def test_several_processes_may_close_the_book(tmp_path: Path):
    first, second = _ledger(tmp_path), _ledger(tmp_path)
    _commit(first, 0)
    with pytest.raises(ValueError, match="not complete"):
        read_manifest(first.folder)
    assert first.close(1) == second.close(1)
    assert first.close(1)["totals"]["rows"] == 0
    assert json.loads((tmp_path / "manifest.json").read_text())["complete"]


def test_alike():
    check_alike({"a": 1, "version": 1}, {"a": 1, "version": 2}, "x", "y", "so what")
    with pytest.raises(ValueError, match="x has b=1, y has b=2: so what"):
        check_alike({"a": {"b": 1}}, {"a": {"b": 2}}, "x", "y", "so what")
    with pytest.raises(ValueError, match="x has c=None, y has c=3"):
        check_alike({}, {"c": 3}, "x", "y", "so what")
