"""Statistics of the original photos, kept on disk under a name made of everything they depend on."""

import hashlib
import json
import os
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from unitok.evaluation.judges import FeatureNetwork
from unitok.evaluation.protocol import Pipeline
from unitok.files import replacing
from unitok.metrics.frechet import Gaussian


def find_reference(
    data: str, pipeline: Pipeline, network: FeatureNetwork | None, cache: Path | None
) -> Gaussian | None:
    """The kept statistics of these photos under this pipeline and network; None where there are none or broken ones."""
    if network is None:
        return None
    path = _path(data, pipeline, network, cache)
    try:
        kept = load_file(path)
        return Gaussian(kept["mean"], kept["covariance"], int(kept["samples"]))
    except (OSError, SafetensorError, KeyError):
        return None


def keep_reference(
    reference: Gaussian, data: str, pipeline: Pipeline, network: FeatureNetwork | None, cache: Path | None
) -> None:
    """Keep the statistics for the next run; 32 MB at 2,048 dimensions."""
    if network is None or (path := _path(data, pipeline, network, cache)).is_file():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {"mean": reference.mean, "covariance": reference.covariance, "samples": torch.tensor(reference.samples)}
    with replacing(path) as temporary:
        save_file({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, temporary)


def _path(data: str, pipeline: Pipeline, network: FeatureNetwork, cache: Path | None) -> Path:
    folder = cache or Path(os.environ.get("UNITOK_CACHE", Path.home() / ".cache" / "unitok"))
    key = json.dumps([data, asdict(pipeline), network.name, network.sha256])
    return folder / f"reference-{hashlib.sha256(key.encode()).hexdigest()[:20]}.safetensors"
