"""Differentiable augmentation before a discriminator, with a blur that fades.

Source: StyleGAN-T (arXiv 2301.09515), "Discriminator"; DiffAugment (arXiv 2006.10738).
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def augment(images: Tensor, blur: float = 0.0, probability: float = 1.0, cutout: float = 0.2) -> Tensor:
    """(B, 3, H, W) in [-1, 1] -> the same shape: blur, then translation, colour and cutout, each by one coin.

    Args:
        images: what a discriminator is to see.
        blur: 1 blurs with sigma = sqrt(H / 2) pixels, 0 not at all.
        probability: of each of the three; the coin is thrown for the whole batch, the strength for each image.
        cutout: side of the hole as a share of the image.
    """
    images = gaussian_blur(images, math.sqrt(images.shape[2] / 2) * blur)
    coins = (torch.rand(3) <= probability).tolist()
    for coin, change in zip(coins, (_translate, _recolour, lambda x: _cut_out(x, cutout)), strict=True):
        images = change(images) if coin else images
    return images


def gaussian_blur(images: Tensor, sigma: float) -> Tensor:
    """(B, C, H, W) -> the same, blurred by exp(-k^2 / 2 sigma^2) out to 3 sigma, borders reflected.

    The published code uses 2^-(k / sigma)^2, whose deviation is 0.849 sigma; this is the Gaussian it is named after.
    """
    radius = min(math.floor(3 * sigma), min(images.shape[2:]) - 1)
    if radius < 1:
        return images
    places = torch.arange(-radius, radius + 1, device=images.device, dtype=torch.float32)
    kernel = torch.exp(-0.5 * (places / sigma) ** 2)
    kernel = (kernel / kernel.sum()).to(images.dtype).expand(images.shape[1], 1, -1)
    padded = F.pad(images, (radius, radius, radius, radius), mode="reflect")
    rows = F.conv2d(padded, kernel.unsqueeze(2), groups=images.shape[1])
    return F.conv2d(rows, kernel.unsqueeze(3), groups=images.shape[1])


def _each(images: Tensor, low: float, high: float) -> Tensor:
    return torch.empty(len(images), 1, 1, 1, device=images.device, dtype=images.dtype).uniform_(low, high)


def _translate(images: Tensor, share: float = 0.125) -> Tensor:
    """Shift each image by up to an eighth, zeros coming in."""
    batch, _, height, width = images.shape
    reach_y, reach_x = round(height * share), round(width * share)
    padded = F.pad(images, (reach_x, reach_x, reach_y, reach_y))
    top = torch.randint(0, 2 * reach_y + 1, (batch, 1), device=images.device)
    left = torch.randint(0, 2 * reach_x + 1, (batch, 1), device=images.device)
    rows = (top + torch.arange(height, device=images.device))[:, None, :, None]
    columns = (left + torch.arange(width, device=images.device))[:, None, None, :]
    batches = torch.arange(batch, device=images.device)[:, None, None, None]
    channels = torch.arange(images.shape[1], device=images.device)[None, :, None, None]
    return padded[batches, channels, rows, columns]


def _recolour(images: Tensor) -> Tensor:
    images = images + _each(images, -0.5, 0.5)
    grey = images.mean(1, keepdim=True)
    images = (images - grey) * _each(images, 0, 2) + grey
    mean = images.mean((1, 2, 3), keepdim=True)
    return (images - mean) * _each(images, 0.5, 1.5) + mean


def _cut_out(images: Tensor, share: float) -> Tensor:
    batch, _, height, width = images.shape
    sides = (round(height * share), round(width * share))
    inside = []
    for side, length in zip(sides, (height, width), strict=True):
        start = torch.randint(-(side // 2), length - side // 2 + 1, (batch, 1), device=images.device)
        place = torch.arange(length, device=images.device)
        inside.append((place >= start) & (place < start + side))
    hole = inside[0][:, :, None] & inside[1][:, None, :]
    return images * (~hole).unsqueeze(1)
