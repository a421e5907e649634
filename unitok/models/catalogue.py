"""What a catalogue entry is: a builder whose arguments are remembered, and a published file read into its terms."""

import functools
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple, ParamSpec

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
