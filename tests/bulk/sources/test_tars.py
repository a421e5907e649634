import json
from pathlib import Path

import pytest
import webdataset

from tests.bulk.inputs import picture, write_tar
from unitok.bulk.sources import plan


def test_the_samples_that_webdataset_writes(tmp_path: Path):
    path = tmp_path / "a.tar"
    with webdataset.TarWriter(str(path)) as sink:
        for number in range(3):
            sink.write({"__key__": f"x/{number:03}", "jpg": picture(number), "txt": f"no {number}", "cls": number})
    (shard,) = plan([str(path)], 10)
    found = [(record.key, record.load(), record.metadata) for record in shard.records()]
    assert found == [(f"x/{i:03}", picture(i), {"caption": f"no {i}", "label": i}) for i in range(3)]


def test_samples_out_of_the_ordinary(tmp_path: Path):
    path = write_tar(
        tmp_path / "a.tar",
        {
            "two": {"left.jpg": b"l", "right.jpg": b"r", "json": json.dumps({"n": 1}).encode()},
            "none": {"txt": b"only words"},
            "bad": {"jpg": b"j", "json": b"{"},
        },
    )
    records = list(plan([str(path)], 10)[0].records())
    assert [record.key for record in records] == ["two.left", "two.right", "none", "bad"]
    assert [records[0].load(), records[1].load(), records[1].metadata] == [b"l", b"r", {"n": 1}]
    with pytest.raises(ValueError, match="no image"):
        records[2].load()
    with pytest.raises(ValueError, match="metadata"):
        records[3].load()


@pytest.mark.parametrize("where", ["in a member", "between members", "before the end mark"])
def test_truncated(tmp_path: Path, where: str):
    path = write_tar(tmp_path / "a.tar", {str(i): {"jpg": b"j" * 700} for i in range(3)})
    data = path.read_bytes()
    path.write_bytes(data[: {"in a member": 2048 + 900, "between members": 2 * 1536, "before the end mark": 3 * 1536}[where]])
    with pytest.raises(OSError, match=r"a\.tar is not a whole tar"):
        list(plan([str(path)], 10)[0].records())


def test_fingerprint_sees_head_and_tail(tmp_path: Path):
    path = write_tar(tmp_path / "a.tar", {"a": {"jpg": b"one"}})
    before = plan([str(path)], 10)[0].fingerprint()
    write_tar(path, {"a": {"jpg": b"two"}})
    assert plan([str(path)], 10)[0].fingerprint() != before
