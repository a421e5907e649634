"""Encoders: (B, 3, H, W) images in [0, 1] -> (B, h, w, D) features. Each keeps its own pixel mean and deviation."""

from unitok.encoders.hybrid import HybridEncoder
from unitok.encoders.siglip import SiglipEncoder
from unitok.encoders.vitamin import ViTaminEncoder
from unitok.encoders.vqgan import VQGANEncoder

__all__ = ["HybridEncoder", "SiglipEncoder", "VQGANEncoder", "ViTaminEncoder"]
