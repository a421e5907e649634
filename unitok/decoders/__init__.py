"""Decoders: (B, h, w, D) features -> (B, 3, H, W) images. A de-tokenizer is a generative decoder."""

from unitok.decoders.hybrid import HybridDecoder
from unitok.decoders.vitamin import ViTaminDecoder

__all__ = ["HybridDecoder", "ViTaminDecoder"]
