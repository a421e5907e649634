"""The K codes of one position, one after another: a small transformer over codebooks, behind a language model."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unitok.decoders.sampling import Sampling, guide
from unitok.mllm.code_embedding import random_maps

Cache = list[tuple[Tensor, Tensor]]


class DepthLoss(NamedTuple):
    """What N positions cost.

    Attributes:
        nats: (N,) minus the log-probability of all K codes of a position together.
        z: () mean squared logarithm of the softmax's denominator.
    """

    nats: Tensor
    z: Tensor


class DepthHead(nn.Module):
    """(N, hidden) states of a language model -> K codes for each, autoregressively over the codebooks.

    Code k sees the state and the codes before it; each codebook has an embedding and an output of its own. Training
    is one pass over all K, sampling K short steps over a cache of at most K places.

    Args:
        hidden: width of the language model.
        num_codebooks: K.
        codebook_size: V.
        dim: channels of this transformer.
        depth: its blocks.
        num_heads: its attention heads.

    Source: RQ-Transformer (arXiv 2203.01941) "Depth Transformer"; UniTok (arXiv 2502.20321), "Unified MLLM".
    """

    def __init__(
        self, hidden: int, num_codebooks: int, codebook_size: int, dim: int = 1024, depth: int = 3, num_heads: int = 16
    ) -> None:
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"dim={dim} must be a multiple of num_heads={num_heads}")
        self.num_codebooks, self.codebook_size, self.num_heads = num_codebooks, codebook_size, num_heads
        self.project = nn.Linear(hidden, dim)
        self.embeddings = nn.Parameter(torch.randn(num_codebooks - 1, codebook_size, dim) * 0.02)
        self.positions = nn.Parameter(torch.randn(num_codebooks, dim) * 0.02)
        self.blocks = nn.ModuleList(_Block(dim, num_heads) for _ in range(depth))
        self.norm = nn.RMSNorm(dim, eps=1e-6)
        self.outputs = nn.Parameter(torch.randn(num_codebooks, dim, codebook_size) * 0.02)

    @property
    def settings(self) -> dict[str, int]:
        """The arguments that only this head knows: dim, depth and num_heads."""
        return {"dim": self.project.out_features, "depth": len(self.blocks), "num_heads": self.num_heads}

    @torch.no_grad()
    def start_from(self, vectors: Tensor) -> None:
        """Inputs and outputs from (K, V, d) code vectors, by `random_maps`, instead of unrelated random rows.

        Raises:
            ValueError: vectors of another K or V.
        """
        sizes = (self.num_codebooks, self.codebook_size)
        if vectors.ndim != 3 or vectors.shape[:2] != sizes:
            raise ValueError(f"vectors must have shape (K, V, d) with (K, V)={sizes}, got {tuple(vectors.shape)}")
        dim = self.positions.shape[1]
        self.embeddings.copy_(random_maps(vectors[:-1], dim) * 0.02)
        self.outputs.copy_(random_maps(vectors, dim).transpose(1, 2) * 0.02)

    def forward(self, states: Tensor, codes: Tensor) -> Tensor:
        """(N, hidden) states, (N, K) codes -> (N, K, V) logits of each code, given the ones before it."""
        places = [self.project(states), *(self.embeddings[k][codes[:, k]] for k in range(self.num_codebooks - 1))]
        tokens = torch.stack(places, dim=1) + self.positions
        for block in self.blocks:
            tokens, _ = block(tokens)
        return torch.einsum("nkd,kdv->nkv", self.norm(tokens), self.outputs)

    def loss(self, states: Tensor, codes: Tensor) -> DepthLoss:
        """(N, hidden) states, (N, K) codes -> DepthLoss, in float32."""
        logits = self(states, codes).float()
        nats = F.cross_entropy(logits.flatten(0, 1), codes.flatten(), reduction="none").view_as(codes).sum(-1)
        return DepthLoss(nats, logits.logsumexp(-1).square().mean() if len(codes) else logits.sum())

    @torch.no_grad()
    def sample(
        self,
        states: Tensor,
        sampling: Sampling = Sampling(),
        generator: torch.Generator | None = None,
        null: Tensor | None = None,
        cached: bool = True,
    ) -> Tensor:
        """(N, hidden) states -> (N, K) int64 codes.

        Args:
            states: of the positions before the ones to fill.
            sampling: how each code is drawn.
            generator: source of randomness.
            null: (N, hidden) states without condition, for guidance.
            cached: False runs all places anew for each code, to compare with.
        """
        count, guided = len(states), null is not None and sampling.guidance > 1
        if guided:
            states = torch.cat([states, null])  # type: ignore[list-item]
        codes = states.new_zeros(len(states), self.num_codebooks, dtype=torch.int64)
        caches: list[Cache] = [[] for _ in self.blocks]
        for k in range(self.num_codebooks):
            logits = self._step(states, codes, k, caches) if cached else self(states, codes)[:, k]
            if guided:
                logits = guide(logits[:count], logits[count:], sampling.guidance)
            drawn = sampling.draw(logits, generator)
            codes[:, k] = drawn.repeat(2) if guided else drawn
        return codes[:count]

    def _step(self, states: Tensor, codes: Tensor, k: int, caches: list[Cache]) -> Tensor:
        """Logits (N, V) of code k; the caches hold what the places before it left behind."""
        token = self.project(states) if k == 0 else self.embeddings[k - 1][codes[:, k - 1]]
        tokens = (token + self.positions[k])[:, None]
        for block, cache in zip(self.blocks, caches, strict=True):
            tokens, kept = block(tokens, cache[0] if cache else None)
            cache[:] = [kept]
        return self.norm(tokens[:, 0]) @ self.outputs[k]


class _Block(nn.Module):
    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm1, self.norm2 = nn.RMSNorm(dim, eps=1e-6), nn.RMSNorm(dim, eps=1e-6)
        self.qkv, self.out = nn.Linear(dim, 3 * dim, bias=False), nn.Linear(dim, dim, bias=False)
        self.gate, self.up = nn.Linear(dim, 2 * dim, bias=False), nn.Linear(dim, 2 * dim, bias=False)
        self.down = nn.Linear(2 * dim, dim, bias=False)

    def forward(
        self, tokens: Tensor, kept: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """(N, n, dim) -> the same, and the keys and values of all places so far."""
        query, key, value = self.qkv(self.norm1(tokens)).unflatten(-1, (3, self.num_heads, -1)).unbind(2)
        query, key, value = (part.transpose(1, 2) for part in (query, key, value))
        if kept is not None:
            key, value = torch.cat([kept[0], key], dim=2), torch.cat([kept[1], value], dim=2)
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=kept is None)
        tokens = tokens + self.out(mixed.transpose(1, 2).flatten(2))
        inner = self.norm2(tokens)
        return tokens + self.down(F.silu(self.gate(inner)) * self.up(inner)), (key, value)
