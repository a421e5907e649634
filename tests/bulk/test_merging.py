import json
from pathlib import Path

import pytest
import torch

from tests.bulk.inputs import snapshot, tiny_tokenizer, write_tars
from unitok.bulk import TokenDataset, merge, tokenize


@pytest.fixture
def runs(tmp_path: Path) -> list[str]:
    inputs = write_tars(tmp_path / "in", 3, 4)
    for name, part in (("a", inputs[:2]), ("b", inputs[2:]), ("whole", inputs)):
        tokenize(part, str(tmp_path / name), tiny_tokenizer(), device="cpu")
    return [str(tmp_path / name) for name in ("a", "b", "whole")]


def test_merged_runs_are_the_run_of_all_inputs(runs: list[str], tmp_path: Path):
    merge(runs[:2], str(tmp_path / "merged"))
    assert snapshot(tmp_path / "merged") == snapshot(tmp_path / "whole")
    merge(runs[:2], str(tmp_path / "merged"))
    assert len(TokenDataset(tmp_path / "merged")) == 9


def test_keys_of_both_are_counted(runs: list[str], tmp_path: Path):
    merge([runs[0], runs[2]], str(tmp_path / "merged"))
    totals = json.loads((tmp_path / "merged" / "manifest.json").read_text())["totals"]
    assert (totals["rows"], totals["failed"], totals["duplicate_keys"]) == (15, 5, 6)
    dataset = TokenDataset(tmp_path / "merged")
    assert torch.equal(dataset[0].codes, dataset[6].codes)


def test_unlike_runs_are_refused(runs: list[str], tmp_path: Path):
    inputs = write_tars(tmp_path / "in", 1, 4)
    tokenize(inputs, str(tmp_path / "other"), tiny_tokenizer(1), device="cpu")
    tokenize(inputs, str(tmp_path / "small"), tiny_tokenizer(), size=32, device="cpu")
    for other, reason in (("other", "codebooks_sha256"), ("small", "size")):
        with pytest.raises(ValueError, match=f"{reason}.*only like runs"):
            merge([runs[0], str(tmp_path / other)], str(tmp_path / "merged"))
    with pytest.raises(ValueError, match="each given once"):
        merge([runs[0], runs[0]], str(tmp_path / "merged"))
    assert not (tmp_path / "merged").exists()


def test_a_damaged_shard_is_named(runs: list[str], tmp_path: Path):
    victim = Path(runs[1], "shards", "000000.jsonl")
    victim.write_bytes(victim.read_bytes().replace(b"picture", b"Picture", 1))
    with pytest.raises(OSError, match=r"000000\.jsonl is damaged"):
        merge(runs[:2], str(tmp_path / "merged"))
