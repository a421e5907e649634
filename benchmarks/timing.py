"""How every benchmark here measures: variants interleaved in one process, medians, and a JSON that says it all."""

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import torch

RESULTS = Path(__file__).parent / "results"


def interleave(
    variants: dict[str, Callable[[], Any]],
    repeats: int = 5,
    warmup: int = 1,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Median seconds of each variant, run A B A B ... so that a busy machine slows all alike.

    `clock=time.process_time` with one thread counts what this process computed, whoever else was on the machine.
    """
    times: dict[str, list[float]] = {name: [] for name in variants}
    for turn in range(warmup + repeats):
        for name, run in variants.items():
            _synchronize()
            start = clock()
            run()
            _synchronize()
            if turn >= warmup:
                times[name].append(clock() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def write_result(name: str, figures: dict[str, Any], **about: Any) -> Path:
    """Write results/<name>.json: the figures, and the command, commit, machine, versions and date they belong to."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    report = {
        "command": " ".join(["python", os.path.relpath(sys.argv[0]), *sys.argv[1:]]),
        "commit": commit.stdout.strip(),
        "date": date.today().isoformat(),
        "device": _device(),
        "threads": torch.get_num_threads(),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        **about,
        "figures": figures,
    }
    path.write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(figures, indent=2))
    return path


def _device() -> str:
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "CPU")
    return f"{model}, {os.cpu_count()} cores"


def _synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
