"""Alignment of features with those of a frozen teacher, by cosine."""

from torch import Tensor
from torch.nn import functional as F


def cosine_loss(features: Tensor, teacher: Tensor) -> Tensor:
    """(..., D) features and targets -> (): mean of 1 - cosine, in float32."""
    return 1 - F.cosine_similarity(features.float(), teacher.float(), dim=-1).mean()


def to_grid(maps: Tensor, grid: tuple[int, int]) -> Tensor:
    """(B, h', w', D) -> (B, h, w, D): averaged where finer than the grid, interpolated where coarser."""
    maps = maps.permute(0, 3, 1, 2)
    if maps.shape[2] >= grid[0] and maps.shape[3] >= grid[1]:
        maps = F.adaptive_avg_pool2d(maps, grid)
    else:
        maps = F.interpolate(maps, grid, mode="bilinear", align_corners=False)
    return maps.permute(0, 2, 3, 1)
