"""What a catalogue entry is: a builder whose arguments are remembered, and a published file read into its terms."""

import functools
import inspect
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import UnionType
from typing import Any, Literal, NamedTuple, ParamSpec, Union, get_args, get_origin, get_type_hints

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


def check_arguments(builder: Callable[..., Tokenizer], arguments: dict[str, Any]) -> None:
    """Raise ValueError unless the arguments are the builder's own, none of them missing, each of the declared type."""
    parameters, hints = inspect.signature(builder).parameters, get_type_hints(builder)
    if unknown := sorted(arguments.keys() - parameters.keys()):
        raise ValueError(f"{builder.__name__} has no arguments {unknown}; it takes {list(parameters)}")
    required = {name for name, parameter in parameters.items() if parameter.default is parameter.empty}
    if missing := sorted(required - arguments.keys()):
        raise ValueError(f"{builder.__name__} needs the arguments {missing}")
    for name, value in arguments.items():
        if not _fits(value, hints[name]):
            kind = getattr(hints[name], "__name__", None) or str(hints[name])
            raise ValueError(f"{builder.__name__}: {name}={value!r} is not of the type {kind}")


def _fits(value: Any, hint: Any) -> bool:
    if get_origin(hint) is Literal:
        return value in get_args(hint)
    if get_origin(hint) in (Union, UnionType):
        return any(_fits(value, kind) for kind in get_args(hint))
    if hint is bool or isinstance(value, bool):
        return hint in (bool, Any) and isinstance(value, bool)
    if hint is float:
        return isinstance(value, int | float)
    kind = get_origin(hint) or hint
    if kind in (tuple, list):  # JSON has lists only
        return isinstance(value, tuple | list)
    return isinstance(value, kind) if isinstance(kind, type) else True


def open_checkpoint(path: Path) -> dict[str, Any]:
    """The table in a published checkpoint file, its tensors mapped from disk; nothing in it is executed.

    Raises:
        ValueError: not a checkpoint, or one that holds more than weights and plain values.
    """
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        reason = str(error).split("\n")[0]
        raise ValueError(f"{path} is refused: it holds more than weights and plain values ({reason})") from error
    except (RuntimeError, EOFError, KeyError, ValueError) as error:
        raise ValueError(
            f"{path} is not a readable checkpoint: {(str(error) or repr(error)).splitlines()[0]}"
        ) from error
    if not isinstance(checkpoint, dict):
        raise ValueError(f"{path} holds a {type(checkpoint).__name__}, not a checkpoint")
    return checkpoint
