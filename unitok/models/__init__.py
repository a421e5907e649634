"""Published tokenizers, one file each: sizes as functions, and how to read the files their authors released.

To add one: write a file with a builder (and a `tiny()` for the tests), and name both it and, where there is one,
its reader of published files here.
"""

from collections.abc import Callable

from unitok.models import detokenizers, ta_tok, trained, unitok, vq16
from unitok.models.catalogue import Published
from unitok.tokenizer import Tokenizer

TOKENIZERS: dict[str, Callable[..., Tokenizer]] = {
    "detokenized": detokenizers.detokenized,
    "ta_tok": ta_tok.ta_tok,
    "unitok": unitok.unitok,
    "unitok_tiny": unitok.unitok_tiny,
    "vq16": vq16.vq16,
}

READERS: tuple[Callable[..., Published | None], ...] = (
    unitok.read_published,
    ta_tok.read_published,
    vq16.read_published,
    trained.read_trained,
)
"""Each takes an opened checkpoint and the options it knows, and answers None where the file is not of its kind."""
