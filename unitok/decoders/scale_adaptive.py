"""The scale-adaptive decoder: code vectors of any grid -> text-aligned features. TA-Tok's `project_out`."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unitok.layers import siglip_blocks


class ScaleAdaptiveDecoder(nn.Module):
    """(B, h, w, C) latents -> (B, h, w, D) features; a small vision transformer with 1 x 1 patches.

    Its square table of positions is resized to the grid at hand, so every h x w is served. The published tokenizer
    was trained on square grids (27, 13 and 9 a side); what it makes of others has not been measured.

    Args:
        latent_dim: C.
        dim: D.
        depth: blocks.
        num_heads: attention heads.
        mlp_dim: channels inside a block's MLP.
        position_grid: side of the table of positions.
        linear: a linear layer of C channels before all else.

    Raises:
        ValueError: dim is not a multiple of num_heads.

    Source: Tar (arXiv 2506.18898), "Scale-Adaptive Pooling and Decoding".
    """

    def __init__(
        self,
        latent_dim: int = 1536,
        dim: int = 1152,
        depth: int = 3,
        num_heads: int = 12,
        mlp_dim: int = 3072,
        position_grid: int = 16,
        linear: bool = True,
    ) -> None:
        super().__init__()
        self.position_grid = position_grid
        self.linear = nn.Linear(latent_dim, latent_dim) if linear else nn.Identity()
        self.embed = nn.Linear(latent_dim, dim)
        self.positions = nn.Parameter(torch.empty(position_grid**2, dim).normal_(std=0.02))
        self.blocks = siglip_blocks(dim, depth, num_heads, mlp_dim)
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.task = nn.Sequential(nn.Linear(dim, dim), nn.Tanh(), nn.Linear(dim, dim))

    def forward(self, latents: Tensor) -> Tensor:
        """(B, h, w, C) latents -> (B, h, w, D) features."""
        grid = latents.shape[1:3]
        tokens = (self.embed(self.linear(latents)) + self._positions(grid)).flatten(1, 2)
        features: Tensor = self.task(self.norm(self.blocks(tokens))).unflatten(1, grid)
        return features

    def _positions(self, grid: torch.Size) -> Tensor:
        """(h, w, D): the table resized in float32, antialiased as in training."""
        table = self.positions.float().view(1, self.position_grid, self.position_grid, -1).permute(0, 3, 1, 2)
        resized = F.interpolate(table, tuple(grid), mode="bilinear", align_corners=False, antialias=True)
        return resized[0].permute(1, 2, 0).to(self.positions.dtype)
