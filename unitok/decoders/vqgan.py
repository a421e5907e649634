"""The convolutional VQGAN decoder: the encoder mirrored, one residual block more at each level."""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from unitok.layers import ConvAttention, ConvResBlock, UpsampleConv


class VQGANDecoder(nn.Module):
    """(B, h, w, D) features -> (B, 3, s h, s w) images, not clamped to [0, 1]; s = 2 ** (levels - 1).

    Args:
        channels: width of the finest level, a multiple of 32.
        multipliers: width of each level over `channels`, finest first, as the encoder's.
        dim: D.
        depth: residual blocks of a level.

    Source: VQGAN (arXiv 2012.09841); LlamaGen (arXiv 2406.06525), "Image Tokenizer".
    """

    def __init__(self, channels: int, multipliers: Sequence[int], dim: int, depth: int = 3) -> None:
        super().__init__()
        self.dim, self.stride = dim, 2 ** (len(multipliers) - 1)
        widths = [channels * multiplier for multiplier in reversed(multipliers)]
        self.conv_in = nn.Conv2d(dim, widths[0], 3, padding=1)
        self.middle = nn.Sequential(
            ConvResBlock(widths[0], widths[0]), ConvAttention(widths[0]), ConvResBlock(widths[0], widths[0])
        )
        self.levels = nn.ModuleList()
        for index, (before, width) in enumerate(zip([widths[0], *widths], widths, strict=False)):
            level: list[nn.Module] = []
            for block in range(depth):
                level.append(ConvResBlock(width if block else before, width))
                if index == 0:
                    level.append(ConvAttention(width))
            last = index == len(widths) - 1
            self.levels.append(nn.Sequential(*level, nn.Identity() if last else UpsampleConv(width, width)))
        self.norm = nn.GroupNorm(32, widths[-1], eps=1e-6)
        self.conv_out = nn.Conv2d(widths[-1], 3, 3, padding=1)

    @property
    def last_layer(self) -> Tensor:
        """The weight at which the adaptive adversarial weight compares gradients."""
        return self.conv_out.weight

    def forward(self, features: Tensor) -> Tensor:
        """(B, h, w, D) features -> (B, 3, s h, s w) images."""
        maps = self.middle(self.conv_in(features.to(self.conv_in.weight.dtype).permute(0, 3, 1, 2)))
        for level in self.levels:
            maps = level(maps)
        return self.conv_out(F.silu(self.norm(maps))).float() * 0.5 + 0.5
