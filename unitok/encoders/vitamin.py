"""The ViTamin encoder: a convolutional stem, two stages of inverted bottlenecks, then ViT blocks; stride 16."""

import torch
from timm.layers import LayerNorm
from timm.models.vitamin import MbConvStages, VitCfg
from torch import Tensor, nn

from unitok.layers import vitamin_blocks


class ViTaminEncoder(nn.Module):
    """(B, 3, H, W) images in [0, 1] -> (B, H / 16, W / 16, D) features.

    Positions are known only from the convolutions, so any height and width that are multiples of 16 can be encoded.

    Args:
        stage_widths: channels of the stem and first stage, of the second stage, and of the blocks (D).
        stage_depths: inverted-bottleneck blocks in the first and second stage.
        depth: ViT blocks.
        num_heads: attention heads of a block.
        drop_path: rate at the last block, growing linearly from 0.

    Source: ViTamin (arXiv 2404.02132), "Meta Architecture"; UniTok (arXiv 2502.20321), "Implementation Details".
    """

    stride = 16

    def __init__(
        self,
        stage_widths: tuple[int, int, int],
        stage_depths: tuple[int, int],
        depth: int,
        num_heads: int,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        self.dim = stage_widths[-1]
        self.stages = MbConvStages(VitCfg(embed_dim=stage_widths, depths=stage_depths, stem_width=stage_widths[0]))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1, self.dim), requires_grad=False)
        self.blocks = vitamin_blocks(self.dim, depth, num_heads, drop_path)
        self.norm = LayerNorm(self.dim, eps=1e-6)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) images in [0, 1] -> (B, h, w, D) features."""
        images = (images + images - 1).to(self.pos_embed.dtype, memory_format=torch.channels_last)
        maps = self.stages(images)
        tokens = maps.flatten(2).transpose(1, 2) + self.pos_embed
        return self.norm(self.blocks(tokens)).unflatten(1, maps.shape[2:])
