"""Quantizers: (B, h, w, C) latents <-> (B, K, h, w) codes."""

from unitok.quantizers.multi_codebook import MultiCodebookQuantizer
from unitok.quantizers.scan import nearest_by_scan
from unitok.quantizers.search import check_codes, nearest
from unitok.quantizers.text_aligned import TextAlignedQuantizer

__all__ = ["MultiCodebookQuantizer", "TextAlignedQuantizer", "check_codes", "nearest", "nearest_by_scan"]
