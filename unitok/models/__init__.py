"""Published tokenizers, one file each: sizes as functions, and how to read the files their authors released.

To add one: write a file with a builder (and a `tiny()` for the tests), and name both it and, where there is one,
its reader of published files here.
"""

from collections.abc import Callable
from typing import Any

from unitok.models import unitok
from unitok.models.catalogue import Published
from unitok.tokenizer import Tokenizer

TOKENIZERS: dict[str, Callable[..., Tokenizer]] = {
    "unitok": unitok.unitok,
    "unitok_tiny": unitok.unitok_tiny,
}

READERS: tuple[Callable[[dict[str, Any]], Published | None], ...] = (unitok.read_published,)
"""Each takes an opened checkpoint and answers None where it is not of its kind."""
