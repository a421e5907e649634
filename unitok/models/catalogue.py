"""What a catalogue entry is: a builder whose arguments are remembered, and a published file read into its terms."""

import functools
import inspect
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, ParamSpec

import torch
from torch import Tensor

from unitok.tokenizer import Tokenizer

P = ParamSpec("P")


class Published(NamedTuple):
    """A published checkpoint in this library's terms.

    Attributes:
        tokenizer: name of a builder in the catalogue.
        arguments: its plain arguments.
        state: weights under this library's names.
    """

    tokenizer: str
    arguments: dict[str, Any]
    state: dict[str, Tensor]


def remember_arguments(builder: Callable[P, Tokenizer]) -> Callable[P, Tokenizer]:
    """Give the built tokenizer a `config`: the builder's name and its arguments, all a saved folder needs."""
    signature = inspect.signature(builder)

    @functools.wraps(builder)
    def build(*args: P.args, **kwargs: P.kwargs) -> Tokenizer:
        tokenizer = builder(*args, **kwargs)
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        tokenizer.config = {"tokenizer": builder.__name__, "arguments": dict(bound.arguments)}
        return tokenizer

    return build


def open_checkpoint(path: Path) -> dict[str, Any]:
    """The table in a published checkpoint file, its tensors mapped from disk; nothing in it is executed.

    Raises:
        ValueError: not a checkpoint, or one that holds more than weights and plain values.
    """
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        reason = str(error).split("\n")[0]
        raise ValueError(f"{path} is refused: it holds more than weights and plain values ({reason})") from error
    except (RuntimeError, EOFError, KeyError, ValueError) as error:
        raise ValueError(f"{path} is not a readable checkpoint: {str(error).splitlines()[0]}") from error
    if not isinstance(checkpoint, dict):
        raise ValueError(f"{path} holds a {type(checkpoint).__name__}, not a checkpoint")
    return checkpoint
