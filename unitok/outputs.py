"""What the walk returns: named tuples, the same fields in every mode."""

from typing import NamedTuple

from torch import Tensor


class Quantized(NamedTuple):
    """What a quantizer returns in training.

    Attributes:
        latents: (B, h, w, C) code vectors with a straight-through gradient.
        codes: (B, K, h, w) int64 codes.
        loss: () codebook and commitment loss.
        entropy_loss: () entropy term, zero where the quantizer computes none.
    """

    latents: Tensor
    codes: Tensor
    loss: Tensor
    entropy_loss: Tensor


class Reconstruction(NamedTuple):
    """What a tokenizer returns in training.

    Attributes:
        images: (b, 3, H, W) decoded images, not clamped; b <= B where only a part of the batch is decoded.
        features: (B, h, w, D) features of the codes, with gradient.
        codes: (B, K, h, w) int64 codes.
        quantizer_loss: () codebook and commitment loss.
        entropy_loss: () entropy term of the quantizer.
    """

    images: Tensor
    features: Tensor
    codes: Tensor
    quantizer_loss: Tensor
    entropy_loss: Tensor
