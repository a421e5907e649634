"""Quantizers: (B, h, w, C) latents <-> (B, K, h, w) codes."""

from unitok.quantizers.multi_codebook import MultiCodebookQuantizer
from unitok.quantizers.search import check_codes, nearest

__all__ = ["MultiCodebookQuantizer", "check_codes", "nearest"]
