"""Checkpoints of the published layout with the deterministic weights of fill.py, and their golden tensors."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from tests.parity.tar import fill

HERE = Path(__file__).parent


def goldens(config: str) -> dict[str, Tensor]:
    return load_file(HERE / config / "golden.safetensors")


def meta(config: str) -> dict[str, Any]:
    return json.loads((HERE / config / "meta.json").read_text())


def weights(config: str) -> dict[str, Tensor]:
    """The state dict of keys.json; numbers and buffers as the reference constructs them."""
    state = {}
    for name, (shape, dtype, kind) in json.loads((HERE / config / "keys.json").read_text()).items():
        if kind == "buffer":
            value = 0.5 if name.startswith("scale_layer") else 0
            state[name] = torch.full(shape, value, dtype=getattr(torch, dtype))
        else:
            state[name] = fill.value(name, shape) if shape else torch.tensor(10.0)
    return state


def ta_tok_checkpoint(config: str) -> dict[str, Any]:
    return {"model": {"args": meta(config)["args"], "sd": weights(config)}}


def vq_checkpoint(config: str) -> dict[str, Any]:
    return {"model": weights(config)}
