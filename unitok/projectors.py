"""Projectors: features <-> latents on the grid. A linear projector is `torch.nn.Linear` itself."""

import torch
from timm.models.vitamin import GeGluMlp
from torch import Tensor, nn
from torch.nn import functional as F

from unitok.layers import initialise


class AttentionProjector(nn.Module):
    """Change of width by one bidirectional attention layer: (B, h, w, in_dim) -> (B, h, w, out_dim).

    Narrowing averages the heads; widening concatenates them. LayerNorms around the attention use eps 1e-5.

    Args:
        in_dim: channels before; it must divide out_dim or be a multiple of it.
        out_dim: channels after.
        num_heads: attention heads over max(in_dim, out_dim) channels; when narrowing, a head is out_dim wide.

    Raises:
        ValueError: the widths or the number of heads do not divide.

    Source: UniTok (arXiv 2502.20321), "Attention Factorization".
    """

    def __init__(self, in_dim: int, out_dim: int, num_heads: int) -> None:
        super().__init__()
        wide, narrow = max(in_dim, out_dim), min(in_dim, out_dim)
        if wide % narrow:
            raise ValueError(f"out_dim={out_dim} must divide or be a multiple of in_dim={in_dim}")
        if wide % num_heads:
            raise ValueError(f"max(in_dim, out_dim)={wide} must be a multiple of num_heads={num_heads}")
        if in_dim > out_dim and wide // num_heads != out_dim:
            raise ValueError(f"a head of {wide // num_heads} channels must be as wide as out_dim={out_dim}")
        self.num_heads, self.widening = num_heads, in_dim <= out_dim
        self.norm1 = nn.LayerNorm(in_dim)
        self.norm2 = nn.LayerNorm(out_dim)
        self.norm3 = nn.LayerNorm(in_dim)
        self.qkv = nn.Linear(in_dim, 3 * wide, bias=False)
        self.q_bias = nn.Parameter(torch.zeros(wide))
        self.v_bias = nn.Parameter(torch.zeros(wide))
        self.attn_proj = nn.Linear(out_dim, out_dim)
        self.proj = nn.Linear(in_dim, out_dim)
        self.mlp = GeGluMlp(out_dim, 2 * out_dim, act_layer="gelu_tanh")
        self.apply(initialise)

    def forward(self, grid: Tensor) -> Tensor:
        """(B, h, w, in_dim) -> (B, h, w, out_dim)."""
        tokens = grid.flatten(1, 2)
        tokens = self.proj(self.norm3(tokens)) + self._attend(self.norm1(tokens))
        tokens = tokens + self.mlp(self.norm2(tokens))
        return tokens.unflatten(1, grid.shape[1:3])

    def _attend(self, tokens: Tensor) -> Tensor:
        """(B, N, in_dim) -> (B, N, out_dim). Keys carry no bias: a constant there leaves the softmax unchanged."""
        bias = torch.cat([self.q_bias, torch.zeros_like(self.q_bias), self.v_bias])
        qkv = F.linear(tokens, self.qkv.weight, bias).unflatten(-1, (3, self.num_heads, -1))
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        heads = F.scaled_dot_product_attention(query, key, value)  # (B, heads, N, head_dim)
        merged = heads.transpose(1, 2).flatten(2) if self.widening else heads.mean(1)
        return self.attn_proj(merged)
