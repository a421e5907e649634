import pytest
import torch

from unitok.training import checkpoints
from unitok.training.checkpoints import AtomicCheckpointIO


def test_a_full_disk_leaves_the_old_checkpoint_whole(tmp_path, monkeypatch):
    path, store = tmp_path / "last.ckpt", AtomicCheckpointIO()
    store.save_checkpoint({"step": 1}, path)

    def full(checkpoint, temporary):
        temporary.write_bytes(b"half")
        raise RuntimeError("[enforce fail at inline_container.cc] PytorchStreamWriter failed writing file")

    monkeypatch.setattr(checkpoints.torch, "save", full)
    with pytest.raises(OSError, match="could not be written"):
        store.save_checkpoint({"step": 2}, path)
    assert store.load_checkpoint(path) == {"step": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]


def test_half_a_checkpoint_and_none(tmp_path):
    path, store = tmp_path / "last.ckpt", AtomicCheckpointIO()
    with pytest.raises(FileNotFoundError, match="no checkpoint at"):
        store.load_checkpoint(path)
    store.save_checkpoint({"weights": torch.zeros(1000)}, path)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(ValueError, match="not a readable checkpoint"):
        store.load_checkpoint(path)
