"""A causal transformer that writes codes after a prefix of condition features.

Source: Tar (arXiv 2506.18898), "Generative De-Tokenizer"; the block is LLaMA's (arXiv 2302.13971, "Architecture")
with added positions in place of rotary ones.
"""

import math
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Cache(NamedTuple):
    """Keys and values of every layer, each (L, B, G, T, c): G key-value heads of c channels, room for T positions."""

    keys: Tensor
    values: Tensor


class PrefixTransformer(nn.Module):
    """(B, n, D) condition features and (B, N) codes -> (B, N, V) logits of each code given the ones before it.

    Args:
        cond_dim: D, channels of the condition.
        codebook_size: V of the codes it writes.
        num_codes: N, the longest sequence of codes.
        max_condition: the longest prefix n; a shorter one leaves fewer positions before the first code.
        dim: channels of the transformer.
        depth: its blocks.
        num_heads: query heads.
        num_kv_heads: key-value heads, shared by groups of query heads; None: as many as query heads.
        mlp_dim: inner channels of the SwiGLU; None: `swiglu_dim(dim)`.
        fixed_positions: sin-cos positions instead of learned ones.
        dropout: rate on embeddings, attention output and SwiGLU output, in training.
        norm_eps: epsilon of the RMS norms.
        condition_norm: layer-norm the condition first, without gain and bias: for features far from unit scale, beside
            which positions and codes would not be seen (unitok_tiny's have a deviation of 69).
        aligned_start: for a condition on the very grid of the codes: training starts with the first block looking from
            where code t is written at condition token t. Nothing else changes, the weights learn as any. It wants
            features of unit scale.

    Raises:
        ValueError: heads that do not divide; aligned_start with fixed positions or for a grid of another size.
    """

    positions: Tensor

    def __init__(
        self,
        cond_dim: int,
        codebook_size: int,
        num_codes: int,
        max_condition: int,
        dim: int = 1280,
        depth: int = 30,
        num_heads: int = 20,
        num_kv_heads: int | None = None,
        mlp_dim: int | None = None,
        fixed_positions: bool = False,
        dropout: float = 0.0,
        norm_eps: float = 1e-5,
        condition_norm: bool = False,
        aligned_start: bool = False,
    ) -> None:
        super().__init__()
        self.cond_dim, self.codebook_size = cond_dim, codebook_size
        self.num_codes, self.max_condition = num_codes, max_condition
        self.condition_norm = condition_norm
        self.condition = nn.Linear(cond_dim, dim)
        self.embedding = nn.Embedding(codebook_size, dim)
        self.dropout = nn.Dropout(dropout)
        kv_heads = num_heads if num_kv_heads is None else num_kv_heads
        blocks = (_Block(dim, num_heads, kv_heads, mlp_dim or swiglu_dim(dim), dropout, norm_eps) for _ in range(depth))
        self.blocks = nn.ModuleList(blocks)
        self.norm = _RMSNorm(dim, norm_eps)
        self.head = nn.Linear(dim, codebook_size, bias=False)
        self.cache_shape = (depth, kv_heads, dim // num_heads)
        length = num_codes + max_condition - 1
        if fixed_positions:
            self.register_buffer("positions", sin_cos_positions(length, dim))
        else:
            self.positions = nn.Parameter(0.02 * torch.randn(1, length, dim))
        self.apply(_initialise)
        nn.init.zeros_(self.head.weight)
        if aligned_start:
            self._align(fixed_positions)

    @torch.no_grad()
    def _align(self, fixed_positions: bool) -> None:
        """The first block's query at code t is the key of condition token t.

        Both have the same place, with its channels rolled by half where it belongs to a code, so that a code's own key
        is unlike its query; the key's weights, rolled likewise, are the query's.
        """
        if fixed_positions or self.num_codes != self.max_condition:
            raise ValueError(
                f"aligned_start needs learned positions (fixed_positions={fixed_positions}) and as many codes as "
                f"condition tokens (num_codes={self.num_codes}, max_condition={self.max_condition})"
            )
        dim, scale = self.positions.shape[-1], 0.1
        places = scale * torch.randn(1, self.num_codes, dim)
        rolled = places[:, 1:].roll(dim // 2, -1)  # the last condition token writes code 0
        self.positions.copy_(torch.cat([places, rolled], dim=1))
        nn.init.normal_(self.embedding.weight, std=scale)
        nn.init.normal_(self.condition.weight, std=scale / self.cond_dim**0.5)
        first = cast("_Block", self.blocks[0])
        query, key, _ = first.qkv.weight.view(-1, first.width, dim).split((first.heads, first.kv_heads, first.kv_heads))
        nn.init.normal_(key, std=(12 / (dim * first.width**0.5)) ** 0.5)  # a place scores 12 with itself, 0 with others
        query.copy_(key.roll(dim // 2, -1).repeat_interleave(first.heads // first.kv_heads, 0))

    def forward(self, condition: Tensor, codes: Tensor) -> Tensor:
        """(B, n, D) condition, (B, N') codes, N' <= N -> (B, N', V) logits; row t has seen codes 0 ... t - 1.

        Raises:
            ValueError: a condition of another width or too long, more codes than positions.
        """
        self.check_condition(condition)
        if not 1 <= codes.shape[1] <= self.num_codes:
            raise ValueError(f"{codes.shape[1]} codes in a sequence must lie in [1, num_codes={self.num_codes}]")
        tokens = torch.cat([self._prefix(condition), self.embedding(codes[:, :-1])], dim=1)
        tokens = self.dropout(tokens + self.positions[:, : tokens.shape[1]])
        for block in self.blocks:
            tokens, _ = block(tokens)
        logits: Tensor = self.head(self.norm(tokens[:, condition.shape[1] - 1 :]))
        return logits

    def prefill(self, condition: Tensor) -> tuple[Tensor, Cache]:
        """(B, n, D) condition -> (B, V) logits of the first code, and the prefix's Cache (T = n)."""
        self.check_condition(condition)
        tokens = self._prefix(condition) + self.positions[:, : condition.shape[1]]
        filled = []
        for block in self.blocks:
            tokens, key_value = block(tokens)
            filled.append(key_value)
        cache = Cache(*(torch.stack(part) for part in zip(*filled, strict=True)))
        return self.head(self.norm(tokens[:, -1])), cache

    def step(self, codes: Tensor, position: Tensor, cache: Cache, visible: int | None = None) -> Tensor:
        """(B,) codes standing at () int64 `position` -> (B, V) logits of the next ones; writes into the cache.

        Args:
            codes: the codes drawn last.
            position: their place in the sequence, condition included.
            cache: static; its rows before `position` are filled.
            visible: `position + 1` as a plain number lets attention read only the filled part; None masks the rest
                instead, so that every step has the same shapes and one compiled graph serves all.
        """
        tokens = self.embedding(codes)[:, None] + self.positions.index_select(1, position.view(1))
        places = torch.arange(cache.keys.shape[3], device=codes.device)
        mask = None if visible is not None else (places <= position).view(1, 1, 1, -1)
        for block, keys, values in zip(self.blocks, cache.keys, cache.values, strict=True):
            tokens = cast("_Block", block).step(tokens, position.view(1), keys, values, mask, visible)
        logits: Tensor = self.head(self.norm(tokens[:, -1]))
        return logits

    def _prefix(self, condition: Tensor) -> Tensor:
        """(B, n, D) -> (B, n, dim); a null condition of zeros stays one under the norm."""
        condition = condition.to(self.head.weight.dtype)
        prefix: Tensor = self.condition(F.layer_norm(condition, (self.cond_dim,)) if self.condition_norm else condition)
        return prefix

    def check_condition(self, condition: Tensor) -> None:
        """Raise ValueError unless `condition` is (B, n, D) with this D and a prefix length that has positions."""
        length, width = condition.shape[1:]
        if width != self.cond_dim:
            raise ValueError(f"features have D={width} channels, this de-tokenizer reads cond_dim={self.cond_dim}")
        if not 1 <= length <= self.max_condition:
            raise ValueError(f"{length} condition tokens must lie in [1, max_condition={self.max_condition}]")


class _Block(nn.Module):
    """Pre-norm causal attention and SwiGLU: (B, T, dim) -> (B, T, dim)."""

    def __init__(self, dim: int, heads: int, kv_heads: int, mlp_dim: int, dropout: float, eps: float) -> None:
        super().__init__()
        if dim % heads or heads % kv_heads:
            raise ValueError(
                f"dim={dim} must be a multiple of num_heads={heads}, and that one of num_kv_heads={kv_heads}"
            )
        self.width, self.heads, self.kv_heads = dim // heads, heads, kv_heads
        self.attention_norm, self.mlp_norm = _RMSNorm(dim, eps), _RMSNorm(dim, eps)
        self.qkv = nn.Linear(dim, (heads + 2 * kv_heads) * self.width, bias=False)
        self.proj = nn.Linear(dim, dim, bias=False)
        self.gate = nn.Linear(dim, mlp_dim, bias=False)
        self.up = nn.Linear(dim, mlp_dim, bias=False)
        self.down = nn.Linear(mlp_dim, dim, bias=False)
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """(B, T, dim) -> (B, T, dim) and its keys and values, each (B, G, T, c)."""
        query, key, value = self._heads(tokens)
        grouped = self.heads != self.kv_heads
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=grouped)
        return self._finish(tokens, mixed.transpose(1, 2).flatten(2)), (key, value)

    def step(
        self, tokens: Tensor, position: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, visible: int | None
    ) -> Tensor:
        """(B, 1, dim) -> (B, 1, dim); the queries of a group stand side by side, so its keys are read once."""
        query, key, value = self._heads(tokens)
        keys.index_copy_(2, position, key)
        values.index_copy_(2, position, value)
        grouped = query.reshape(len(tokens), self.kv_heads, -1, self.width)
        mixed = F.scaled_dot_product_attention(grouped, keys[:, :, :visible], values[:, :, :visible], attn_mask=mask)
        return self._finish(tokens, mixed.reshape(len(tokens), 1, -1))

    def _heads(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        qkv = self.qkv(self.attention_norm(tokens)).unflatten(-1, (-1, self.width)).transpose(1, 2)
        query, key, value = qkv.split((self.heads, self.kv_heads, self.kv_heads), dim=1)
        return query, key, value

    def _finish(self, tokens: Tensor, mixed: Tensor) -> Tensor:
        tokens = tokens + self.dropout(self.proj(mixed))
        normed = self.mlp_norm(tokens)
        hidden = self.down(F.silu(self.gate(normed)) * self.up(normed))
        return tokens + self.dropout(hidden)


class _RMSNorm(nn.Module):
    """Root-mean-square norm in float32, cast back before the gain."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(dim)), eps

    def forward(self, tokens: Tensor) -> Tensor:
        """(..., dim) -> (..., dim)."""
        return F.rms_norm(tokens.float(), self.weight.shape, eps=self.eps).to(tokens.dtype) * self.weight


def swiglu_dim(dim: int, multiple_of: int = 256, multiplier: float | None = None) -> int:
    """LLaMA's inner width: int(8/3 dim), times `multiplier`, rounded up to a multiple."""
    hidden = int(2 * (4 * dim) / 3)
    if multiplier is not None:
        hidden = int(multiplier * hidden)
    return math.ceil(hidden / multiple_of) * multiple_of


def sin_cos_positions(length: int, dim: int) -> Tensor:
    """(1, length, dim) sines then cosines of position * 10000^(-i / (dim / 2)), i = 0 ... dim / 2 - 1."""
    rates = 10000 ** -(torch.arange(dim // 2, dtype=torch.float64) / (dim / 2))
    angles = torch.arange(length, dtype=torch.float64)[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=-1).float()[None]


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)
