"""The small pixel decoder: ViT blocks, then 4 x 4 cells for every token, ConvNeXt blocks, and 4 x 4 pixels a cell."""

import torch
from timm.layers import LayerNorm
from timm.models.convnext import ConvNeXtBlock
from torch import Tensor, nn
from torch.nn import functional as F

from unitok.layers import vitamin_blocks


class HybridDecoder(nn.Module):
    """(B, h, w, D) features -> (B, 3, 16h, 16w) images, not clamped to [0, 1]. The small encoder mirrored.

    Args:
        conv_width: channels at a quarter of the resolution.
        conv_depth: ConvNeXt blocks there.
        dim: D.
        depth: ViT blocks.
        num_heads: attention heads of a block.

    Source: as `unitok.encoders.HybridEncoder`; sub-pixel output from arXiv 1609.05158, "Efficient sub-pixel
    convolution layer".
    """

    stride = 16

    def __init__(self, conv_width: int, conv_depth: int, dim: int, depth: int, num_heads: int) -> None:
        super().__init__()
        self.dim = dim
        self.blocks = vitamin_blocks(dim, depth, num_heads)
        self.norm = LayerNorm(dim, eps=1e-6)
        self.cells = nn.Linear(dim, 16 * conv_width)
        self.convs = nn.Sequential(
            *(ConvNeXtBlock(conv_width, conv_width, mlp_ratio=2, ls_init_value=None) for _ in range(conv_depth))
        )
        self.out_conv = nn.Conv2d(conv_width, 48, 3, padding=1)

    @property
    def last_layer(self) -> Tensor:
        """The weight at which the adaptive adversarial weight compares gradients."""
        return self.out_conv.weight

    def forward(self, features: Tensor) -> Tensor:
        """(B, h, w, D) features -> (B, 3, 16h, 16w) images."""
        batch, height, width, _ = features.shape
        tokens = self.norm(self.blocks(features.to(self.cells.weight.dtype).flatten(1, 2)))
        cells = self.cells(tokens).view(batch, height, width, 4, 4, -1).transpose(2, 3)
        maps = cells.reshape(batch, 4 * height, 4 * width, -1).permute(0, 3, 1, 2)  # channels stay last in memory
        images = F.pixel_shuffle(self.out_conv(self.convs(maps)), 4)
        return images.to(torch.promote_types(features.dtype, torch.float32)) * 0.5 + 0.5
