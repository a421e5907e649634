"""The text-aligned encoder: a SigLIP vision transformer read one block before its end, pooled to one of three grids."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unitok.layers import siglip_blocks


class SiglipEncoder(nn.Module):
    """(B, 3, H, W) images in [0, 1] of any size -> (B, h, w, D) features at one of three scales.

    Images of another size are squeezed to image_size x image_size: the aspect ratio is not kept, and the grid is
    always g x g with g = image_size // patch_size, then divided by the scale (a remainder is dropped: 27 -> 13 at
    scale 2). Frames of a video are images: fold (B, T, 3, H, W) with `video.flatten(0, 1)`.

    Args:
        image_size: the side every image is brought to.
        patch_size: pixels of a patch; a rest at the right and bottom edge is not seen.
        dim: D.
        depth: blocks. SigLIP's last block, final norm and pooling head give no feature here and are not built.
        num_heads: attention heads.
        mlp_dim: channels inside a block's MLP.

    Raises:
        ValueError: the grid is smaller than the coarsest scale, or dim is not a multiple of num_heads.

    Source: Tar (arXiv 2506.18898), "Text-Aligned Tokenizer"; SigLIP 2 (arXiv 2502.14786).
    """

    stride = None
    scales = (1, 2, 3)

    def __init__(
        self,
        image_size: int = 384,
        patch_size: int = 14,
        dim: int = 1152,
        depth: int = 26,
        num_heads: int = 16,
        mlp_dim: int = 4304,
    ) -> None:
        super().__init__()
        self.image_size, self.dim, self.grid = image_size, dim, image_size // patch_size
        if self.grid < max(self.scales):
            raise ValueError(
                f"image_size={image_size} and patch_size={patch_size} give {self.grid} patches a side; "
                f"scale {max(self.scales)} needs at least {max(self.scales)}"
            )
        self.patches = nn.Conv2d(3, dim, patch_size, patch_size)
        self.positions = nn.Parameter(torch.empty(self.grid**2, dim).normal_(std=0.02))
        self.blocks = siglip_blocks(dim, depth, num_heads, mlp_dim)
        self.task = nn.Sequential(nn.Linear(dim, dim), nn.Tanh())

    def forward(self, images: Tensor, scale: int = 1) -> Tensor:
        """(B, 3, H, W) images in [0, 1] -> (B, g // scale, g // scale, D) features."""
        tokens = self.hidden(images)
        if scale > 1:
            maps = F.avg_pool2d(tokens.permute(0, 3, 1, 2), scale)
            tokens = maps.permute(0, 2, 3, 1)
        features: Tensor = self.task(tokens)
        return features

    def hidden(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) images in [0, 1] -> (B, g, g, D): SigLIP's own features, what a teacher is asked for."""
        images = (images - 0.5) / 0.5
        if images.shape[2:] != (self.image_size, self.image_size):
            images = F.interpolate(images, (self.image_size, self.image_size), mode="bilinear", antialias=True)
        maps = self.patches(images.to(self.positions.dtype))
        tokens = maps.flatten(2).transpose(1, 2) + self.positions
        hidden: Tensor = self.blocks(tokens).unflatten(1, (self.grid, self.grid))
        return hidden
