"""Discriminators: heads on frozen DINOv2 features, or a small PatchGAN."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unitok.losses.frozen import TimmNetwork


class DinoDiscriminator(nn.Module):
    """(B, 3, H, W) in [-1, 1] -> (B, n) logits: one head on each of several depths of a frozen DINOv2 ViT-S.

    Images are brought down to multiples of 14 by a random crop or by area resize, one coin for the batch.

    Args:
        weights: DINOv2 ViT-S/14 weights, the authors' file or timm's.
        layers: blocks whose tokens are read, un-normalised, the class token added to each.
        kernel_size: of the circular convolution along the tokens.
        network: timm's name of the network.

    Source: StyleGAN-T (arXiv 2301.09515), "Discriminator"; UniTok (arXiv 2502.20321), "Implementation Details".
    """

    def __init__(
        self,
        weights: str,
        layers: Sequence[int] = (0, 2, 5, 8, 11),
        kernel_size: int = 9,
        network: str = "vit_small_patch14_dinov2",
    ) -> None:
        super().__init__()
        self.features = TimmNetwork(network, weights, {"dynamic_img_size": True})
        self.layers, self.patch = tuple(layers), int(self.features.network.patch_embed.patch_size[0])
        width = self.features.num_features
        self.heads = nn.ModuleList(_head(width, kernel_size) for _ in self.layers)
        self.apply(_initialise)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] -> (B, len(layers) * N) logits."""
        images = _fit(images * 0.5 + 0.5, self.patch)
        found = self.features.intermediates(
            images, self.layers, norm=False, output_fmt="NLC", return_prefix_tokens=True
        )
        logits = [
            head((tokens + prefix[:, :1]).transpose(1, 2))
            for head, (tokens, prefix) in zip(self.heads, found, strict=True)
        ]
        return torch.cat([part.flatten(1) for part in logits], dim=1)


class PatchDiscriminator(nn.Module):
    """(B, 3, H, W) in [-1, 1] -> (B, n) logits, one for each overlapping patch; small enough for one GPU or a CPU.

    GroupNorm stands where the original has BatchNorm, so that ranks need not exchange statistics.

    Args:
        width: channels after the first convolution.
        depth: strided convolutions.

    Source: "Image-to-Image Translation with Conditional Adversarial Networks" (arXiv 1611.07004), "PatchGAN".
    """

    def __init__(self, width: int = 64, depth: int = 3) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, width, 4, 2, 1), nn.LeakyReLU(0.2)]
        channels = width
        for index in range(1, depth + 1):
            wider = width * min(2**index, 8)
            layers += [nn.Conv2d(channels, wider, 4, 2 if index < depth else 1, 1), nn.GroupNorm(8, wider)]
            layers += [nn.LeakyReLU(0.2)]
            channels = wider
        self.layers = nn.Sequential(*layers, nn.Conv2d(channels, 1, 4, 1, 1))
        self.apply(_initialise)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] -> (B, n) logits."""
        return self.layers(images).flatten(1)


class _Residual(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, maps: Tensor) -> Tensor:
        return (self.inner(maps) + maps) / math.sqrt(2)


def _head(width: int, kernel_size: int) -> nn.Sequential:
    around = nn.Conv1d(width, width, kernel_size, padding=kernel_size // 2, padding_mode="circular")
    return nn.Sequential(
        _normed(nn.Conv1d(width, width, 1), width), _Residual(_normed(around, width)), nn.Conv1d(width, 1, 1)
    )


def _normed(convolution: nn.Module, width: int) -> nn.Sequential:
    return nn.Sequential(convolution, nn.GroupNorm(32, width, eps=1e-6), nn.LeakyReLU(0.2))


def _fit(images: Tensor, multiple: int) -> Tensor:
    """Bring both sides down to multiples; below one multiple, up to it."""
    height, width = (max(multiple, side // multiple * multiple) for side in images.shape[2:])
    if (height, width) == tuple(images.shape[2:]):
        return images
    if height > images.shape[2] or width > images.shape[3]:
        return F.interpolate(images, (height, width), mode="bicubic", align_corners=False)
    if torch.rand(()) < 0.5:
        return F.interpolate(images, (height, width), mode="area")
    top = int(torch.randint(0, images.shape[2] - height + 1, ()))
    left = int(torch.randint(0, images.shape[3] - width + 1, ()))
    return images[:, :, top : top + height, left : left + width]


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv1d | nn.Conv2d):
        nn.init.xavier_normal_(module.weight, gain=0.5)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
