"""Decoders: (B, h, w, D) features -> (B, 3, H, W) images. A de-tokenizer is a generative decoder."""

from unitok.decoders.hybrid import HybridDecoder
from unitok.decoders.scale_adaptive import ScaleAdaptiveDecoder
from unitok.decoders.vitamin import ViTaminDecoder
from unitok.decoders.vqgan import VQGANDecoder

__all__ = ["HybridDecoder", "ScaleAdaptiveDecoder", "VQGANDecoder", "ViTaminDecoder"]
