import os
from pathlib import Path

import fsspec
import pytest

from unitok.bulk.folder import Folder, open_url


@pytest.fixture(params=["path", "file", "memory"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Folder:
    if request.param == "memory":
        fsspec.filesystem("memory").store.clear()
        return Folder("memory://run")
    return Folder(tmp_path / "run" if request.param == "path" else f"file://{tmp_path}/run")


def test_write_read_list(folder: Folder):
    assert folder.size("a/b.txt") is None
    assert folder.names("a") == []
    folder.write("a/b.txt", b"one")
    folder.write("a/b.txt", b"four")
    assert folder.read("a/b.txt") == b"four"
    assert folder.size("a/b.txt") == 4
    assert folder.names("a") == ["b.txt"]
    assert folder.local("a/b.txt").read_bytes() == b"four"
    with pytest.raises(FileNotFoundError):
        folder.read("none")


def test_create_keeps_the_first(folder: Folder):
    assert folder.create("m", b"first") == b"first"
    assert folder.create("m", b"second") == b"first"
    assert folder.names("") == ["m"]


def test_sweep_removes_only_what_was_left_of_that_file(tmp_path: Path):
    folder = Folder(tmp_path)
    for name in (".a.json.x1", ".ab.json.x2", "a.json"):
        (tmp_path / name).write_text("")
    folder.sweep("a.json")
    assert sorted(os.listdir(tmp_path)) == [".ab.json.x2", "a.json"]


def test_a_full_disk_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = Folder(tmp_path)
    folder.write("a", b"old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        folder.write("a", b"new")
    monkeypatch.undo()
    assert folder.read("a") == b"old"
    assert os.listdir(tmp_path) == ["a"]


def test_unknown_protocol():
    with pytest.raises(ValueError, match="nosuch"):
        open_url("nosuch://bucket/x")
