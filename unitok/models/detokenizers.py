"""De-tokenizers by name: generative decoders that stand at the end of any tokenizer, and their published files."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from unitok.models.catalogue import Published, open_checkpoint

DETOKENIZERS: dict[str, Callable[..., nn.Module]] = {}
"""Builders with plain arguments. What they build has `generative = True`, `cond_dim`, the channels of the features it
reads, and `forward(features, generator=None)`: (B, h, w, D) -> (B, 3, H, W) images."""

FILE_READERS: tuple[Callable[[dict[str, Any], str | None], Published | None], ...] = ()
"""Each takes an opened checkpoint and the file of its pixel tokenizer, and answers None where it is not of its kind."""

FOLDER_READERS: tuple[Callable[[Path], Published | None], ...] = ()
"""Each takes a folder, and answers None where it is not of its kind."""


def build_detokenizer(detokenizer: dict[str, Any], dim: int) -> nn.Module:
    """A de-tokenizer from {"name": ..., "arguments": {...}}, for features of `dim` channels.

    Raises:
        ValueError: a name of no de-tokenizer, or one that reads features of another width.
    """
    if detokenizer.keys() != {"name", "arguments"} or detokenizer["name"] not in DETOKENIZERS:
        raise ValueError(
            f"detokenizer={detokenizer!r} must be {{'name': ..., 'arguments': {{...}}}} "
            f"with a name of {sorted(DETOKENIZERS)}"
        )
    decoder: Any = DETOKENIZERS[detokenizer["name"]](**detokenizer["arguments"])
    if decoder.cond_dim != dim:
        raise ValueError(
            f"the de-tokenizer reads features of {decoder.cond_dim} channels, this tokenizer's features have {dim}"
        )
    module: nn.Module = decoder
    return module


def read_detokenizer(source: str, pixels: str | None = None) -> Published:
    """A published de-tokenizer, a file or a folder, in this library's terms; its weights carry no prefix.

    Raises:
        FileNotFoundError: nothing at `source`.
        ValueError: not a de-tokenizer this library knows, or its pixel tokenizer is missing or unfit.
    """
    path = Path(source)
    if path.is_dir():
        found = next((answer for reader in FOLDER_READERS if (answer := reader(path)) is not None), None)
        if found is not None and pixels is not None:
            raise ValueError(f"pixels={pixels!r} has no meaning for the de-tokenizer {path}, which brings its own")
    else:
        if not path.is_file():
            raise FileNotFoundError(f"no de-tokenizer file or folder at {path}")
        checkpoint = open_checkpoint(path)
        answers = (reader(checkpoint, pixels) for reader in FILE_READERS)
        found = next((answer for answer in answers if answer is not None), None)
    if found is None:
        raise ValueError(f"{path} is no de-tokenizer this library knows ({sorted(DETOKENIZERS)})")
    return found
