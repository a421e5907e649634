"""A run's JSON: figures, the protocol they belong to, and where they were made. Written whole or not at all."""

import json
import os
import platform
import subprocess
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import torch

from unitok.evaluation.protocol import Protocol, protocol_id
from unitok.evaluation.ranks import Run
from unitok.files import replacing
from unitok.hub import weights_sha256
from unitok.tokenizer import Tokenizer

Figures = dict[str, Any]


class Report(NamedTuple):
    """One run of one tokenizer under one protocol.

    Attributes:
        tokenizer: its name as it was given.
        protocol: the fields of Protocol.
        protocol_id: see Protocol.id.
        figures: name -> number, or list for those of each codebook or class. Fractions, not per cent.
        excluded: photos that could not be read, with the reason; they are in no figure.
        warnings: what a reader of the figures must know.
        about: command, commit, date, device, dtype, versions, and the sha256 of the tokenizer's weights.
        picture: file name of the grid of reconstructions beside the JSON, or None.
    """

    tokenizer: str
    protocol: dict[str, Any]
    protocol_id: str
    figures: Figures
    excluded: list[str]
    warnings: list[str]
    about: dict[str, Any]
    picture: str | None = None


def make_report(
    name: str,
    model: Any,
    protocol: Protocol,
    figures: Figures,
    run: Run,
    excluded: list[str] | None = None,
    warnings: list[str] | None = None,
) -> Report:
    """The report of a run that has just ended here.

    Raises:
        ValueError: a figure that is not finite.
    """
    for key, value in figures.items():
        if isinstance(value, float) and not -1e300 < value < 1e300:
            raise ValueError(f"{key}={value} is no figure: the reconstructions or features are not finite")
    about = {
        "command": " ".join([os.path.basename(sys.argv[0]), *sys.argv[1:]]),
        "commit": _commit(),
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "device": device_name(run.ranks.device),
        "processes": run.ranks.size,
        "dtype": str(run.dtype).removeprefix("torch."),
        "versions": {"python": platform.python_version()}
        | {package: version(package) for package in ("torch", "torchvision", "torchmetrics", "timm", "pillow")},
    }
    if isinstance(model, Tokenizer):
        about["weights_sha256"] = weights_sha256(model)
    return Report(name, asdict(protocol), protocol.id, figures, excluded or [], warnings or [], about)


def write_report(report: Report, path: Path) -> None:
    """Write the JSON beside nothing half-written; folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(report._asdict(), indent=2, allow_nan=False) + "\n")


def read_report(path: Path) -> Report:
    """A JSON of `write_report`.

    Raises:
        FileNotFoundError: no such file.
        ValueError: another JSON, or a protocol that was edited after its id was made.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no report {path}")
    try:
        report = Report(**json.loads(path.read_text()))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} is no report of `unitok eval`: {error}") from error
    if protocol_id(report.protocol) != report.protocol_id:
        raise ValueError(
            f"{path} says protocol {report.protocol_id}, but its fields make {protocol_id(report.protocol)}: "
            "it was edited; run the evaluation again"
        )
    return report


def print_report(report: Report) -> None:
    """The figures, one a line, with the protocol's id; warnings last."""
    print(f"{report.tokenizer}   protocol {report.protocol_id} ({report.protocol['count']} photos)")
    for name, value in report.figures.items():
        if not isinstance(value, list | dict):
            print(f"  {name:28} {value:.6g}" if isinstance(value, float) else f"  {name:28} {value}")
    for warning in report.warnings:
        print(f"warning: {warning}")


def device_name(device: torch.device) -> str:
    """The processor's or accelerator's own name."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    return f"{model}, {torch.get_num_threads()} threads"


def _commit() -> str:
    """The commit of this package's checkout, with a star where it was changed since; its version where it has none."""
    here = Path(__file__).parent
    git = ["git", "-C", str(here)]
    try:
        commit = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
        changed = subprocess.run(
            [*git, "status", "--porcelain", "--", ".."], capture_output=True, text=True, check=False
        )
    except OSError:
        return version("unitok-vision")
    if commit.returncode:
        return version("unitok-vision")
    return commit.stdout.strip() + ("*" if changed.stdout.strip() else "")
