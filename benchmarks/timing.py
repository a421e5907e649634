"""How every benchmark here measures: variants interleaved in one process, medians, and a JSON that says it all."""

import json
import os
import platform
import statistics
import subprocess
import sys
import time
import weakref
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

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


def peak_bytes(run: Callable[[], Any]) -> int:
    """Bytes of the tensors that `run` made and that were alive at once: no machine, allocator or library in it."""
    with _Live() as live:
        run()
    return live.peak


class _Live(TorchDispatchMode):
    """Adds the storage of every new tensor, and takes it off when it is freed; what stood before does not count."""

    def __init__(self) -> None:
        super().__init__()
        self.known: set[int] = set()
        self.now = self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.known |= {key for _, key in _storages((args, kwargs))}
        out = func(*args, **(kwargs or {}))
        for storage, key in _storages(out):
            if key not in self.known:
                self.known.add(key)
                self.now += storage.nbytes()
                weakref.finalize(storage, self._free, key, storage.nbytes())
        self.peak = max(self.peak, self.now)
        return out

    def _free(self, key: int, size: int) -> None:
        self.known.discard(key)
        self.now -= size


def _storages(tree: Any) -> list[tuple[torch.UntypedStorage, int]]:
    tensors = [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]
    return [(storage, storage._cdata) for storage in (tensor.untyped_storage() for tensor in tensors)]


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
