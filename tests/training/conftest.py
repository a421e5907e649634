import io
import json
import tarfile

import numpy as np
import pytest
from PIL import Image


def _png(number, width=12, height=10):
    pixels = np.random.default_rng(number).integers(0, 256, (height, width, 3), dtype=np.uint8)
    pixels[:, :, 0] = number
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def _write_shard(path, files):
    with tarfile.open(path, "w") as tar:
        for name, data in files:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))


@pytest.fixture
def png():
    """A number -> a PNG: red tells the number wherever a crop is taken, green and blue are noise and tell where."""
    return _png


@pytest.fixture
def write_shard():
    """(path, [(name, bytes), ...]) -> a tar file."""
    return _write_shard


@pytest.fixture
def class_folder(tmp_path):
    """Twenty-four images, numbers 0 to 23, in three classes of eight."""
    for number in range(24):
        folder = tmp_path / "photos" / ["church", "gas_pump", "tench"][number // 8]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number:02d}.png").write_bytes(_png(number))
    return tmp_path / "photos"


@pytest.fixture
def lines(tmp_path):
    """Six images, numbers 30 to 35, in a JSON-lines file with two captions each."""
    (tmp_path / "files").mkdir()
    records = []
    for number in range(30, 36):
        (tmp_path / "files" / f"{number}.png").write_bytes(_png(number))
        records.append({"image": f"files/{number}.png", "captions": [f"number {number}", f"{number} in one colour"]})
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


@pytest.fixture
def shards(tmp_path):
    """Four shards of eight images, numbers 0 to 31; even numbers with txt, odd ones with json."""
    for shard in range(4):
        files = []
        for number in range(8 * shard, 8 * shard + 8):
            files.append((f"{number:06d}.png", _png(number)))
            if number % 2:
                files.append((f"{number:06d}.json", json.dumps({"caption": f"number {number}"}).encode()))
            else:
                files.append((f"{number:06d}.txt", f"number {number}\n".encode()))
        _write_shard(tmp_path / f"{shard:04d}.tar", files)
    return str(tmp_path / "{0000..0003}.tar")


@pytest.fixture
def numbers():
    """Batches -> the number of every image, from its red."""

    def read(batches):
        return [np.asarray(batch.images)[:, 0, 0, 0].tolist() for batch in batches]

    return read
