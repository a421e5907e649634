"""Adversarial losses on logits, their adaptive weight, and the warm-up clock of the discriminator."""

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

Criterion = Literal["hinge", "softplus", "linear"]


def discriminator_loss(real: Tensor, fake: Tensor, criterion: Criterion = "hinge") -> Tensor:
    """(B, n) logits of real and of reconstructed images -> ().

    Raises:
        ValueError: an unknown criterion.
    """
    if criterion == "hinge":
        return F.relu(1 - real).mean() + F.relu(1 + fake).mean()
    if criterion == "softplus":
        return F.softplus(-real).mean() + F.softplus(fake).mean()
    if criterion == "linear":
        return fake.mean() - real.mean()
    raise ValueError(f"criterion={criterion!r} is not one of 'hinge', 'softplus', 'linear'")


def generator_loss(fake: Tensor) -> Tensor:
    """(B, n) logits of reconstructed images -> (): what the decoder wants small."""
    return -fake.mean()


def consistency_loss(strong: Tensor, plain: Tensor) -> Tensor:
    """(B, n) logits of strongly and of plainly augmented images -> (). Targets are not detached.

    Source: balanced consistency regularization (arXiv 2002.04724).
    """
    return F.mse_loss(strong, plain)


def adaptive_weight(reconstruction: Tensor, adversarial: Tensor, low: float, high: float) -> Tensor:
    """Gradients of both losses at the last layer, any equal shape -> (): the ratio of their norms, clamped.

    Source: "Taming Transformers" (arXiv 2012.09841), "Learning a Perceptually Rich Codebook".
    """
    ratio = reconstruction.float().norm() / (adversarial.float().norm() + 1e-6)
    return torch.clamp(ratio, low, high).detach()
