import hashlib
import tarfile

import pytest
import torch

from unitok.evaluation.photos import batches, content_hash, find_photos
from unitok.evaluation.protocol import Pipeline

SMALL = Pipeline(64, "bicubic", 64)


def test_a_tar_and_a_folder_of_the_same_photos_are_the_same_data(folder, tmp_path, run):
    with tarfile.open(tmp_path / "photos.tar", "w") as archive:
        archive.add(folder, arcname=".")
    in_folder, in_tar = find_photos(folder), find_photos(tmp_path / "photos.tar")
    assert [photo.read() for photo in in_folder] == [photo.read() for photo in in_tar]
    digests = sorted(hashlib.sha256(path.read_bytes()).digest() for path in folder.rglob("*.png"))
    expected = hashlib.sha256(b"".join(digests)).hexdigest()
    assert content_hash(in_folder, run.ranks) == content_hash(in_tar, run.ranks) == expected


def test_a_limit_is_spread_over_the_sorted_names(folder):
    assert [photo.name for photo in find_photos(folder, 3)] == ["cat/0.png", "cat/4.png", "red_fox/1.png"]


def test_unreadable_photos_are_named_and_left_out(folder, run):
    (folder / "cat" / "2.png").write_bytes(b"not a picture")
    (folder / "cat" / "4.png").write_bytes(b"")
    (folder / "red_fox" / "1.png").write_bytes((folder / "red_fox" / "1.png").read_bytes()[:200])
    found = list(batches(find_photos(folder), SMALL, run))
    assert [index for batch in found for index in batch.indices] == [0, 3, 5, 6]
    excluded = [name for batch in found for name in batch.excluded]
    assert [name.split(":")[0] for name in excluded] == ["cat/2.png", "cat/4.png", "red_fox/1.png"]
    assert "empty" in excluded[1]
    assert all(batch.images.dtype == torch.uint8 for batch in found)


def test_bad_places(tmp_path, folder):
    with pytest.raises(FileNotFoundError, match="no folder or shard"):
        find_photos(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no images"):
        find_photos(tmp_path / "empty")
    with pytest.raises(ValueError, match="limit=0"):
        find_photos(folder, 0)
    (tmp_path / "half.tar").write_bytes(b"half")
    with pytest.raises(ValueError, match="not a whole tar"):
        find_photos(tmp_path / "half.tar")
