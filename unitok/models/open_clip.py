"""A head start: the encoder and text tower of an OpenCLIP ViTamin model, put into a UniTok tokenizer.

Source: UniTok (arXiv 2502.20321), "Implementation Details" and the comparison of initialisations: a CLIP start raised
zero-shot accuracy and lowered the score of language models that read the codes.
"""

import os
import pickle
import re
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from unitok.models.unitok import rename
from unitok.tokenizer import Tokenizer


class Initialised(NamedTuple):
    """What an initialisation did.

    Attributes:
        taken: names of the tokenizer's weights that now come from the checkpoint.
        left: names of the checkpoint that have no place in the tokenizer: image head, its norm, positions, logit scale.
    """

    taken: list[str]
    left: list[str]


@torch.no_grad()
def initialise_from_open_clip(tokenizer: Tokenizer, source: str | os.PathLike[str] | dict[str, Tensor]) -> Initialised:
    """Copy `visual.trunk.*` into the encoder and `text.*` into the text tower, in place.

    Taken is what fits by name: weights with `head` or `pos_embed` in their names and the logit scale are not, and
    a tokenizer without a text tower takes the encoder alone. What is taken must fit in shape. OpenCLIP normalises
    after pooling (`fc_norm`) and the encoder before it, so `encoder.norm` starts where it stood.

    Args:
        tokenizer: a UniTok tokenizer with an encoder of the checkpoint's size.
        source: an OpenCLIP state dict, or a file with one (safetensors, or a checkpoint read with weights_only=True).

    Raises:
        ValueError: the file holds no weights, none of the encoder's names, or weights of another shape.
        FileNotFoundError: no such file.
    """
    state = source if isinstance(source, dict) else _read(Path(source))
    state = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    ours = tokenizer.state_dict(keep_vars=True)
    pairs = {name: target for name in state if (target := _place(name)) in ours}
    if not any(target.startswith("encoder.") for target in pairs.values()):
        raise ValueError(f"no weights of a ViTamin encoder (visual.trunk.*) that fit; it begins with {list(state)[:4]}")
    wrong = [
        f"{name} {tuple(state[name].shape)} for {target} {tuple(ours[target].shape)}"
        for name, target in pairs.items()
        if state[name].shape != ours[target].shape
    ]
    if wrong:
        raise ValueError(f"{len(wrong)} weights are of another shape, so another size of model: {'; '.join(wrong[:4])}")
    missing = [
        name for name in ours if re.match(r"encoder\.(?!pos_embed|norm)", name) and name not in set(pairs.values())
    ]
    if missing:
        raise ValueError(f"{len(missing)} weights of the encoder are not in the checkpoint: {', '.join(missing[:4])}")
    for name, target in pairs.items():
        ours[target].copy_(state[name])
    return Initialised(sorted(pairs.values()), sorted(state.keys() - pairs.keys()))


def _place(name: str) -> str:
    """An OpenCLIP name -> ours; "" for what is not taken."""
    if name.startswith("text."):
        return rename("text_encoder." + name.removeprefix("text."))
    if name.startswith("visual.trunk.") and "head" not in name and "pos_embed" not in name:
        return rename("encoder." + name.removeprefix("visual.trunk."))
    return ""


def _read(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint file at {path}")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        found: Any = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(f"{path} is refused: it holds more than weights and plain values") from error
    except (SafetensorError, RuntimeError, EOFError, KeyError) as error:
        raise ValueError(
            f"{path} is not a readable checkpoint: {(str(error) or repr(error)).splitlines()[0]}"
        ) from error
    found = found.get("state_dict", found) if isinstance(found, dict) else {}
    return {name: tensor for name, tensor in found.items() if isinstance(tensor, Tensor)}
