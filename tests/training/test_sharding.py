"""Two ranks with half the batch are one process with the whole."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from unitok.mllm import VisualAssistant
from unitok.training.sharding import gather_shards

SCRIPT = Path(__file__).with_name("small_run.py")


def small_run(*words):
    return subprocess.run([sys.executable, SCRIPT, *map(str, words)], capture_output=True, text=True, check=False)


def losses(folder):
    lines = (folder / "losses.csv").read_text().splitlines()
    return [[float.fromhex(value) for value in line.split(",")[1:]] for line in lines]


def compare(one, two):
    for a, b in zip(losses(one), losses(two), strict=True):
        assert a == pytest.approx(b, rel=1e-4)
    first, second = (torch.load(folder / "gradients.pt", weights_only=True) for folder in (one, two))
    assert first.keys() == second.keys()
    for name, gradient in first.items():
        torch.testing.assert_close(second[name], gradient, atol=1e-6, rtol=1e-4, msg=name)


def test_two_ranks_of_ddp(tmp_path):
    assert small_run(tmp_path / "one", 2, "--plain").returncode == 0
    ran = small_run(tmp_path / "two", 2, "--plain", "--ranks", 2, "--strategy", "ddp")
    assert ran.returncode == 0, ran.stderr
    compare(tmp_path / "one", tmp_path / "two")


def test_a_folder_without_shards(tmp_path):
    with pytest.raises(FileNotFoundError, match="no sharded checkpoint"):
        gather_shards(tmp_path, tmp_path / "whole.ckpt")


@pytest.mark.slow
def test_two_shards_and_their_checkpoint_in_one_process(tmp_path):
    assert small_run(tmp_path / "one", 2, "--plain").returncode == 0
    ran = small_run(tmp_path / "two", 2, "--plain", "--ranks", 2, "--strategy", "sharded")
    assert ran.returncode == 0, ran.stderr
    compare(tmp_path / "one", tmp_path / "two")
    folder = tmp_path / "two" / "checkpoints" / "last.ckpt"
    gather_shards(folder, tmp_path / "whole.ckpt")
    whole = torch.load(tmp_path / "whole.ckpt", weights_only=True)["state_dict"]
    alone = torch.load(tmp_path / "one" / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    assert whole.keys() == alone.keys()
    for name, tensor in alone.items():
        torch.testing.assert_close(whole[name], tensor, atol=2e-3, rtol=0, msg=name)  # two steps of Adam at lr 1e-3


def language_run(*words):
    command = [sys.executable, "-m", "tests.training.language_run", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])


@pytest.mark.slow
def test_two_shards_of_a_language_model(tmp_path):
    alone, ran = language_run(tmp_path / "one"), language_run(tmp_path / "two", "--ranks", 2)
    assert alone.returncode == 0, alone.stderr
    assert ran.returncode == 0, ran.stderr
    one, two = (torch.load(tmp_path / name / "gradients.pt", weights_only=True) for name in ("one", "two"))
    assert (one["sharded"], two["sharded"] > 10) == (0, True)
    assert one["whole"].keys() == two["whole"].keys()
    for name, gradient in one["whole"].items():
        torch.testing.assert_close(two["whole"][name], gradient, atol=1e-6, rtol=1e-4, msg=name)
    models = [VisualAssistant.load(tmp_path / name / "language_model").model.state_dict() for name in ("one", "two")]
    assert models[0].keys() == models[1].keys()
    for name, tensor in models[0].items():
        torch.testing.assert_close(models[1][name], tensor, atol=2e-3, rtol=0, msg=name)  # two steps of Adam at lr 1e-3
    gather_shards(tmp_path / "two" / "last.ckpt", tmp_path / "whole.ckpt")
    whole = torch.load(tmp_path / "whole.ckpt", weights_only=True)["state_dict"]
    kept = torch.load(tmp_path / "one" / "last.ckpt", weights_only=True)["state_dict"]
    assert whole.keys() == kept.keys()
