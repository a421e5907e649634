"""unitok: images to discrete codes and back.

>>> import unitok
>>> tokenizer = unitok.load_tokenizer()
>>> codes = tokenizer.encode(unitok.read_images(["photo.jpg"], size=256))
>>> unitok.write_images(tokenizer.decode(codes), ["copy.png"])
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unitok.hub import list_tokenizers, load_tokenizer, save_tokenizer
    from unitok.images import read_images, write_images
    from unitok.tokenizer import Tokenizer

__version__ = "0.1.0"

_HOMES = {
    "Tokenizer": "tokenizer",
    "list_tokenizers": "hub",
    "load_tokenizer": "hub",
    "read_images": "images",
    "save_tokenizer": "hub",
    "write_images": "images",
}
__all__ = ["Tokenizer", "list_tokenizers", "load_tokenizer", "read_images", "save_tokenizer", "write_images"]


def __getattr__(name: str) -> Any:
    """Public names are imported when first used, so that `unitok --help` needs no torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'unitok' has no attribute {name!r}")
    return getattr(import_module(f"unitok.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
