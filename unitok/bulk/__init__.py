"""Many images to codes on disk, once and for all, and back: tokenize, merge, TokenDataset, TokenStream."""

from unitok.bulk.merging import merge
from unitok.bulk.pictures import decode_tokens
from unitok.bulk.reading import Sample, TokenDataset
from unitok.bulk.stream import TokenStream
from unitok.bulk.tokenize import tokenize

__all__ = ["Sample", "TokenDataset", "TokenStream", "decode_tokens", "merge", "tokenize"]
