"""The ViTamin pixel decoder: ViT blocks, then the encoder's convolutions mirrored, up to 16 times the grid."""

import torch
from timm.layers import LayerNorm, LayerNorm2d
from torch import Tensor, nn
from torch.nn import functional as F

from unitok.layers import UpsampleConv, initialise, vitamin_blocks


class InvertedBottleneck(nn.Module):
    """Norm, 1x1 to `mid`, depthwise 3x3, 1x1 to `out`, plus a shortcut: (B, in, H, W) -> (B, out, H, W) or x2.

    With `upsample` a dense x2 up-convolution on the wide map stands before the depthwise one, and one in the shortcut.
    """

    def __init__(self, in_channels: int, out_channels: int, upsample: bool = False, expansion: int = 4) -> None:
        super().__init__()
        mid = expansion * out_channels
        self.pre_norm = LayerNorm2d(in_channels, eps=1e-6)
        self.conv1_1x1 = nn.Conv2d(in_channels, mid, 1)
        self.up = UpsampleConv(mid, mid) if upsample else nn.Identity()
        self.conv2_kxk = nn.Conv2d(mid, mid, 3, padding=1, groups=mid)
        self.conv3_1x1 = nn.Conv2d(mid, out_channels, 1)
        self.shortcut = UpsampleConv(in_channels, out_channels) if upsample else nn.Identity()

    def forward(self, maps: Tensor) -> Tensor:
        """(B, in, H, W) -> (B, out, H, W), or (B, out, 2H, 2W) with `upsample`."""
        wide = self.up(F.gelu(self.conv1_1x1(self.pre_norm(maps))))
        wide = F.gelu(self.conv2_kxk(wide))
        return self.conv3_1x1(wide) + self.shortcut(maps)


class ViTaminDecoder(nn.Module):
    """(B, h, w, D) features -> (B, 3, 16h, 16w) images, not clamped to [0, 1].

    Args:
        stage_widths: as the encoder's: channels of the finest stage, of the next, and of the blocks (D).
        stage_depths: inverted-bottleneck blocks of the finest and of the next stage.
        depth: ViT blocks.
        num_heads: attention heads of a block.
        drop_path: rate at the last block.
        expansion: width of an inverted bottleneck over its output.

    Source: UniTok (arXiv 2502.20321), "Implementation Details".
    """

    stride = 16

    def __init__(
        self,
        stage_widths: tuple[int, int, int],
        stage_depths: tuple[int, int],
        depth: int,
        num_heads: int,
        drop_path: float = 0.0,
        expansion: int = 4,
    ) -> None:
        super().__init__()
        fine, coarse, dim = stage_widths
        self.dim = dim
        self.blocks = vitamin_blocks(dim, depth, num_heads, drop_path)
        self.norm = LayerNorm(dim, eps=1e-6)
        self.up1 = UpsampleConv(dim, coarse)
        self.up2 = _stage(coarse, coarse, stage_depths[1], expansion)
        self.up3 = _stage(coarse, fine, stage_depths[0], expansion)
        self.up4 = UpsampleConv(fine, fine)
        self.out_norm = LayerNorm2d(fine, eps=1e-6)
        self.out_conv = nn.Conv2d(fine, 3, 3, padding=1)
        self.apply(initialise)

    @property
    def last_layer(self) -> Tensor:
        """The weight at which the adaptive adversarial weight compares gradients."""
        return self.out_conv.weight

    def forward(self, features: Tensor) -> Tensor:
        """(B, h, w, D) features -> (B, 3, 16h, 16w) images."""
        tokens = self.norm(self.blocks(features.to(self.out_conv.weight.dtype).flatten(1, 2)))
        maps = tokens.unflatten(1, features.shape[1:3]).permute(0, 3, 1, 2)  # a view: channels stay last in memory
        maps = self.up3(self.up2(self.up1(maps)))
        maps = F.gelu(self.out_norm(self.up4(maps)))
        return self.out_conv(maps).to(torch.promote_types(features.dtype, torch.float32)) * 0.5 + 0.5


def _stage(in_channels: int, out_channels: int, depth: int, expansion: int) -> nn.Sequential:
    first = InvertedBottleneck(in_channels, out_channels, upsample=True, expansion=expansion)
    rest = (InvertedBottleneck(out_channels, out_channels, expansion=expansion) for _ in range(depth - 1))
    return nn.Sequential(first, *rest)
