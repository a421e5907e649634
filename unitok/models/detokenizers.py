"""De-tokenizers by name: generative decoders that stand at the end of any tokenizer, and their published files."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from unitok.decoders import AutoregressiveDecoder, FlowDecoder, SanaDecoder
from unitok.models import ar_dtok, sana
from unitok.models.catalogue import Published, open_checkpoint, remember_arguments
from unitok.tokenizer import Tokenizer

DETOKENIZERS: dict[str, Callable[..., nn.Module]] = {
    "ar_dtok": ar_dtok.ar_dtok,
    "flow": FlowDecoder,
    "sana": sana.sana_dtok,
}
"""Builders with plain arguments. What they build has `generative = True`, `cond_dim`, the channels of the features it
reads, and `forward(features, generator=None)`: (B, h, w, D) -> (B, 3, H, W) images."""

FILE_READERS: tuple[Callable[[dict[str, Any], str | None], Published | None], ...] = (ar_dtok.read_published,)
"""Each takes an opened checkpoint and the file of its pixel tokenizer, and answers None where it is not of its kind."""

FOLDER_READERS: tuple[Callable[[Path], Published | None], ...] = (sana.read_published,)
"""Each takes a folder, and answers None where it is not of its kind."""


def build_detokenizer(detokenizer: dict[str, Any], dim: int) -> nn.Module:
    """A de-tokenizer from {"name": ..., "arguments": {...}}, for features of `dim` channels.

    Raises:
        ValueError: a name of no de-tokenizer, or one that reads features of another width.
    """
    _check_detokenizer(detokenizer)
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


@remember_arguments
def detokenized(tokenizer: dict[str, Any], detokenizer: dict[str, Any]) -> Tokenizer:
    """Any tokenizer of the catalogue with a generative decoder in place of its own.

    Args:
        tokenizer: {"tokenizer": a name of the catalogue, "arguments": {...}}.
        detokenizer: {"name": ..., "arguments": {...}}, see `DETOKENIZERS`.

    Raises:
        ValueError: a name that is not there.
    """
    from unitok.models import TOKENIZERS

    if tokenizer.keys() != {"tokenizer", "arguments"} or tokenizer["tokenizer"] not in TOKENIZERS:
        raise ValueError(f"tokenizer={tokenizer!r} must hold 'tokenizer', one of {sorted(TOKENIZERS)}, and 'arguments'")
    _check_detokenizer(detokenizer)
    walk = TOKENIZERS[tokenizer["tokenizer"]](**tokenizer["arguments"])
    walk.decoder = DETOKENIZERS[detokenizer["name"]](**detokenizer["arguments"])
    return walk


def describe(decoder: nn.Module) -> dict[str, Any] | None:
    """{"name": ..., "arguments": {...}} that builds a de-tokenizer of this shape; None for one put together by hand."""
    if isinstance(decoder, AutoregressiveDecoder):
        arguments = ar_dtok.describe(decoder)
        return None if arguments is None else {"name": "ar_dtok", "arguments": arguments}
    if isinstance(decoder, FlowDecoder):
        return {"name": "flow", "arguments": decoder.arguments}
    return {"name": "sana", "arguments": sana.describe(decoder)} if isinstance(decoder, SanaDecoder) else None


def _check_detokenizer(detokenizer: dict[str, Any]) -> None:
    if detokenizer.keys() != {"name", "arguments"} or detokenizer["name"] not in DETOKENIZERS:
        raise ValueError(
            f"detokenizer={detokenizer!r} must be {{'name': ..., 'arguments': {{...}}}} "
            f"with a name of {sorted(DETOKENIZERS)}"
        )
