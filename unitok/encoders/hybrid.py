"""The small encoder: patches of 4 px, a few ConvNeXt blocks on them, patches of those, then ViT blocks; stride 16."""

import torch
from timm.layers import LayerNorm
from timm.models.convnext import ConvNeXtBlock
from torch import Tensor, nn

from unitok.layers import vitamin_blocks


class HybridEncoder(nn.Module):
    """(B, 3, H, W) images in [0, 1] -> (B, H / 16, W / 16, D) features.

    Every part of it but the last norm is residual or linear, so that it starts out as a linear transform of
    16 px patches and reconstructs within minutes of training. Positions are known only from the convolutions, so any
    height and width that are multiples of 16 can be encoded.

    Args:
        conv_width: channels at a quarter of the resolution; from 48 on the 4 px patches lose nothing.
        conv_depth: ConvNeXt blocks there.
        dim: D.
        depth: ViT blocks.
        num_heads: attention heads of a block.

    Source: "A ConvNet for the 2020s" (arXiv 2201.03545) for the convolutional blocks, ViTamin (arXiv 2404.02132) for
    the order convolution, then attention, and for the ViT blocks.
    """

    stride = 16

    def __init__(self, conv_width: int, conv_depth: int, dim: int, depth: int, num_heads: int) -> None:
        super().__init__()
        self.dim = dim
        self.stem = nn.Conv2d(3, conv_width, 4, stride=4)
        self.convs = nn.Sequential(
            *(ConvNeXtBlock(conv_width, conv_width, mlp_ratio=2, ls_init_value=None) for _ in range(conv_depth))
        )
        self.patch_embed = nn.Conv2d(conv_width, dim, 4, stride=4)
        self.blocks = vitamin_blocks(dim, depth, num_heads)
        self.norm = LayerNorm(dim, eps=1e-6)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) images in [0, 1] -> (B, h, w, D) features."""
        images = (images + images - 1).to(self.stem.weight.dtype, memory_format=torch.channels_last)
        maps = self.patch_embed(self.convs(self.stem(images)))
        return self.norm(self.blocks(maps.flatten(2).transpose(1, 2))).unflatten(1, maps.shape[2:])
