"""A trained tokenizer as the start of a training, by name in a recipe."""

from unitok.hub import load_tokenizer
from unitok.tokenizer import Tokenizer


def pretrained(source: str = "unitok_tiny") -> Tokenizer:
    """A name, folder, published file or Hub repository -> its tokenizer, all parts, in training mode.

    Args:
        source: whatever `load_tokenizer` takes.
    """
    return load_tokenizer(source).train()
