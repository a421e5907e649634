from pathlib import Path

from unitok.bulk.sources import plan


def test_records_and_fingerprint(tmp_path: Path):
    for name in ("b.jpg", "cat/a.PNG", "cat/a.txt", ".hidden/c.jpg", "notes.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    (shard,) = plan([str(tmp_path)], 10)
    records = list(shard.records())
    assert [(r.key, r.load(), r.metadata) for r in records] == [
        ("b.jpg", b"b.jpg", {}),
        ("cat/a.PNG", b"cat/a.PNG", {"label": "cat", "caption": "cat/a.txt"}),
    ]
    before = shard.fingerprint()
    assert plan([str(tmp_path)], 10)[0].fingerprint() == before
    (tmp_path / "b.jpg").write_bytes(b"longer than before")
    assert plan([str(tmp_path)], 10)[0].fingerprint() != before
