"""The fixtures' weights put into a tokenizer: filled by rule under published names, read as a published checkpoint."""

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
import unitok_fill
from safetensors.torch import load_file

from unitok.models import TOKENIZERS
from unitok.models.unitok import read_published
from unitok.tokenizer import Tokenizer

FILES = Path(__file__).parent / "unitok"


def load_json(*parts: str) -> Any:
    return json.loads(FILES.joinpath(*parts).read_text())


def golden(*parts: str) -> dict[str, torch.Tensor]:
    return load_file(FILES.joinpath(*parts))


def published(config: str) -> dict[str, Any]:
    """The checkpoint that the published trainer would have written, in its layout."""
    state = unitok_fill.state_dict_from_keys(load_json(config, "keys.json"))
    return {"args": load_json(config, "meta.json")["overrides"], "trainer": {"unitok": state}}


def filled(config: str, **arguments: Any) -> Tokenizer:
    found = read_published(published(config))
    assert found is not None
    with torch.device("meta"):
        tokenizer = TOKENIZERS[found.tokenizer](**{**found.arguments, **arguments})
    tokenizer.load_state_dict(found.state, assign=True)
    return tokenizer.eval()


def sha256(state: dict[str, torch.Tensor]) -> str:
    """Of the concatenated hexadecimal digests of all tensors, in their order."""
    digests = (hashlib.sha256(tensor.contiguous().numpy()).hexdigest() for tensor in state.values())
    return hashlib.sha256("".join(digests).encode()).hexdigest()
