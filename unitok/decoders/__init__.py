"""Decoders: (B, h, w, D) features -> (B, 3, H, W) images. A de-tokenizer is a generative decoder."""

from unitok.decoders.autoregressive import AutoregressiveDecoder
from unitok.decoders.vitamin import ViTaminDecoder

__all__ = ["AutoregressiveDecoder", "ViTaminDecoder"]
