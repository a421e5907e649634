"""A run killed at any moment and given again leaves the bytes of a run that was never stopped."""

import json
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bulk.inputs import snapshot, write_tars

ROOT = Path(__file__).parents[2]


class Driver:
    def __init__(self, folder: Path) -> None:
        self.folder, self.inputs = folder, write_tars(folder / "in", tars=5, images=9)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.bulk.crash_driver"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout.readline() == "ready\n"

    def run(self, output: Path, world: int = 1, kill_after=None, victims=(), die_at=None, tars: int = 5) -> dict:
        command = {"inputs": self.inputs[:tars], "output": str(output), "world": world, "kill_after": kill_after}
        self.process.stdin.write(json.dumps({**command, "victims": victims, "die_at": die_at}) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driver]:
    driver = Driver(tmp_path_factory.mktemp("crash"))
    yield driver
    driver.process.stdin.close()
    driver.process.wait(timeout=30)
    driver.process.stdout.close()


@pytest.fixture(scope="module")
def whole(driver: Driver) -> tuple[dict[str, bytes], float]:
    """The files of a run that was never stopped, and its seconds."""
    output = driver.folder / "whole"
    driver.run(driver.folder / "warm")
    answer = driver.run(output)
    assert answer["codes"] == [0]
    files = snapshot(output)
    assert len(files) == 2 + 3 * 5
    return files, answer["seconds"]


@pytest.mark.parametrize("world", [1, 3])
def test_killed_at_20_random_moments(driver: Driver, whole, world: int):
    files, seconds = whole
    draw = random.Random(world)
    killed = trial = 0
    while killed < 20:  # a kill that came after the end was none, however busy the machine
        trial += 1
        assert trial <= 60, f"only {killed} of {trial} kills met a run at work"
        output = driver.folder / f"killed{world}"
        victims = [draw.randrange(world)] if trial % 2 else list(range(world))
        answer = driver.run(output, world, draw.uniform(0, 0.9 * seconds), victims)
        assert all(code in (0, -9) for code in answer["codes"])  # those that live on end their own share well
        killed += -9 in answer["codes"]
        again = (world, 1, 2, 4)[trial % 4] if world > 1 else 1
        assert driver.run(output, again)["codes"] == [0] * again
        assert snapshot(output) == files, f"trial {trial}"
        shutil.rmtree(output)


def _die_at_each(driver: Driver, operations: Iterator[int]) -> int:
    """Die at one file operation after another, and finish each time; the operations a run has."""
    expected = driver.folder / "two"
    driver.run(expected, tars=2)
    files = snapshot(expected)
    for operation in operations:
        output = driver.folder / "dying"
        code = driver.run(output, die_at=operation, tars=2)["codes"][0]
        assert driver.run(output, tars=2)["codes"] == [0]
        assert snapshot(output) == files, f"operation {operation}"
        shutil.rmtree(output)
        if code == 0:
            shutil.rmtree(expected)
            return operation - 1
        assert code == -9
    raise AssertionError("a run has more file operations than were tried")


def test_killed_at_file_operations(driver: Driver):
    assert _die_at_each(driver, iter([2, 5, 7, 11, 14, 19, 23, 27, 30, 34, 10**6])) > 34


@pytest.mark.slow
def test_killed_at_every_file_operation(driver: Driver):
    assert 34 < _die_at_each(driver, iter(range(1, 10**6))) < 100
