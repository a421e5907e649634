"""The convolutional VQGAN encoder: residual blocks, halved between levels, attention at the coarsest."""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from unitok.layers import ConvAttention, ConvResBlock


class VQGANEncoder(nn.Module):
    """(B, 3, H, W) images in [0, 1] -> (B, H / s, W / s, D) features, s = 2 ** (levels - 1).

    Args:
        channels: width of the finest level, a multiple of 32.
        multipliers: width of each level over `channels`, finest first.
        dim: D.
        depth: residual blocks of a level.

    Source: VQGAN (arXiv 2012.09841); LlamaGen (arXiv 2406.06525), "Image Tokenizer".
    """

    def __init__(self, channels: int, multipliers: Sequence[int], dim: int, depth: int = 2) -> None:
        super().__init__()
        self.dim, self.stride = dim, 2 ** (len(multipliers) - 1)
        widths = [channels * multiplier for multiplier in multipliers]
        self.conv_in = nn.Conv2d(3, channels, 3, padding=1)
        self.levels = nn.ModuleList()
        for index, (before, width) in enumerate(zip([channels, *widths], widths, strict=False)):
            last = index == len(widths) - 1
            level: list[nn.Module] = []
            for block in range(depth):
                level.append(ConvResBlock(width if block else before, width))
                if last:
                    level.append(ConvAttention(width))
            self.levels.append(nn.Sequential(*level, nn.Identity() if last else HalvingConv(width)))
        self.middle = nn.Sequential(
            ConvResBlock(widths[-1], widths[-1]), ConvAttention(widths[-1]), ConvResBlock(widths[-1], widths[-1])
        )
        self.norm = nn.GroupNorm(32, widths[-1], eps=1e-6)
        self.conv_out = nn.Conv2d(widths[-1], dim, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) images in [0, 1] -> (B, h, w, D) features."""
        maps = self.conv_in((images + images - 1).to(self.conv_in.weight.dtype))
        for level in self.levels:
            maps = level(maps)
        maps = self.conv_out(F.silu(self.norm(self.middle(maps))))
        return maps.permute(0, 2, 3, 1).contiguous()


class HalvingConv(nn.Conv2d):
    """A 3x3 convolution of stride 2, zeros at the right and bottom edge only: (B, C, H, W) -> (B, C, H/2, W/2)."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, 3, stride=2)

    def forward(self, maps: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H / 2, W / 2)."""
        return super().forward(F.pad(maps, (0, 1, 0, 1)))
