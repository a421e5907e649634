"""Decoders: (B, h, w, D) features -> (B, 3, H, W) images. A de-tokenizer is a generative decoder."""

from unitok.decoders.autoregressive import AutoregressiveDecoder
from unitok.decoders.diffusion import SanaDecoder
from unitok.decoders.flow import FlowDecoder
from unitok.decoders.hybrid import HybridDecoder
from unitok.decoders.sampling import Sampling
from unitok.decoders.scale_adaptive import ScaleAdaptiveDecoder
from unitok.decoders.vitamin import ViTaminDecoder
from unitok.decoders.vqgan import VQGANDecoder

__all__ = [
    "AutoregressiveDecoder",
    "FlowDecoder",
    "HybridDecoder",
    "Sampling",
    "SanaDecoder",
    "ScaleAdaptiveDecoder",
    "VQGANDecoder",
    "ViTaminDecoder",
]
