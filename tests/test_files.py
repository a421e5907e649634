import hashlib
import os
from pathlib import Path

import pytest

from unitok.files import replacing, sha256


def test_a_file_appears_whole(tmp_path):
    with replacing(tmp_path / "codes.bin") as path:
        path.write_bytes(b"new")
        assert path.parent == tmp_path
        assert path.suffix == ".bin"
        assert not (tmp_path / "codes.bin").exists()
    assert (tmp_path / "codes.bin").read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [tmp_path / "codes.bin"]


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path):
    (tmp_path / "a").write_text("old")
    with pytest.raises(FileNotFoundError), replacing(tmp_path / "a") as path:
        path.write_text(Path(f"{path}.missing").read_text())
    assert (tmp_path / "a").read_text() == "old"
    assert list(tmp_path.iterdir()) == [tmp_path / "a"]


def test_permissions_follow_the_umask(tmp_path):
    old = os.umask(0o027)
    try:
        with replacing(tmp_path / "a") as path:
            path.write_text("x")
    finally:
        os.umask(old)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640


def test_sha256_of_a_known_text(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert sha256(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    (tmp_path / "b").write_bytes(bytes(300_000))
    assert sha256(tmp_path / "b") == hashlib.sha256(bytes(300_000)).hexdigest()
