"""Pixel losses, and the PSNR that people read."""

import torch
from torch import Tensor
from torch.nn import functional as F


def l1(reconstructed: Tensor, images: Tensor) -> Tensor:
    """(B, 3, H, W) twice -> (): mean absolute error. The published weights hold for images in [-1, 1]."""
    return F.l1_loss(reconstructed, images)


def l2(reconstructed: Tensor, images: Tensor) -> Tensor:
    """(B, 3, H, W) twice -> (): mean squared error. The published weights hold for images in [-1, 1]."""
    return F.mse_loss(reconstructed, images)


def psnr(reconstructed: Tensor, images: Tensor) -> Tensor:
    """(B, 3, H, W) twice, in [0, 1] -> (): mean over images of their PSNR in dB; clamped, not rounded to 8 bit."""
    error = (reconstructed.float().clamp(0, 1) - images.float()).square().mean((1, 2, 3))
    return (-10 * torch.log10(error.clamp_min(1e-10))).mean()
