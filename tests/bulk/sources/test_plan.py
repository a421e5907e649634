from pathlib import Path

import fsspec
import pytest

from tests.bulk.inputs import picture, write_tars
from unitok.bulk.sources import plan


def test_braces_and_stars_in_order(tmp_path: Path):
    paths = write_tars(tmp_path, 3, 1)
    assert [shard.name for shard in plan([f"{tmp_path}/{{000..002}}.tar"], 10)] == paths
    assert [shard.name for shard in plan([f"{tmp_path}/*.tar"], 10)] == paths


def test_kinds_are_cut_alike(tmp_path: Path):
    (tmp_path / "photos").mkdir()
    for number in range(5):
        (tmp_path / "photos" / f"{number}.jpg").write_bytes(picture(number))
    (tmp_path / "list.jsonl").write_text("".join(f'{{"image": "photos/{i}.jpg"}}\n' for i in range(5)))
    for source in ("photos", "list.jsonl"):
        assert [shard.count for shard in plan([str(tmp_path / source)], 2)] == [2, 2, 1]


def test_urls():
    memory = fsspec.filesystem("memory")
    memory.pipe_file("/photos/a.jpg", picture(0))
    (shard,) = plan(["memory://photos"], 10)
    (record,) = shard.records()
    assert (record.key, record.load()) == ("a.jpg", picture(0))


def test_refused(tmp_path: Path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("")
    (tmp_path / "none.jsonl").write_text("\n")
    tar = write_tars(tmp_path / "tars", 1, 1)[0]
    for inputs, message in (
        (["empty"], "no images in"),
        (["none.jsonl"], "no images in"),
        (["notes.txt"], "neither a folder"),
    ):
        with pytest.raises(ValueError, match=message):
            plan([str(tmp_path / name) for name in inputs], 10)
    with pytest.raises(ValueError, match="given twice"):
        plan([tar, tar], 10)
    with pytest.raises(ValueError, match="shard_size=0"):
        plan([tar], 0)
    with pytest.raises(FileNotFoundError, match="no input"):
        plan([str(tmp_path / "gone")], 10)
    with pytest.raises(FileNotFoundError, match="nothing fits"):
        plan([f"{tmp_path}/*.parquet"], 10)
