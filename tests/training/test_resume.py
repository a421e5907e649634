"""A run that is killed and resumed gives the losses of one that was not."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("small_run.py")


def small_run(*words):
    return subprocess.run([sys.executable, SCRIPT, *map(str, words)], capture_output=True, text=True, check=False)


def lines(folder):
    return (folder / "losses.csv").read_text().splitlines()


@pytest.mark.filterwarnings("ignore")
def test_kill_9_and_resume(tmp_path):
    spec = importlib.util.spec_from_file_location("small_run", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    assert small_run(tmp_path / "killed", 9, "--kill", 6).returncode == -9
    assert len(lines(tmp_path / "killed")) == 6
    script.run(tmp_path / "killed", 9, resume=True)  # from step 4
    script.run(tmp_path / "whole", 9)
    whole, killed = lines(tmp_path / "whole"), lines(tmp_path / "killed")
    assert len({line.split(",")[3] for line in whole}) == 9
    assert any(line.split(",")[-1] != "0x0.0p+0" for line in whole)  # the discriminator plays
    assert killed[:6] == whole[:6]
    assert killed[6:] == whole[4:]
