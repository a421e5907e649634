"""Codebooks that stay alive: entries from data at the start, and again wherever an entry has died."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


@torch.no_grad()
def sample_entries(latents: Tensor, quantizer: Any) -> Tensor:
    """(B, h, w, C) latents -> (K, V, d) unit vectors: chunks drawn at random, all different while there are enough.

    Where there are fewer than V tokens some are drawn twice, and a little noise sets them apart.
    """
    books, size = quantizer.num_codebooks, quantizer.codebook_size
    chunks = F.normalize(latents.float().reshape(-1, books, latents.shape[-1] // books), dim=-1).transpose(0, 1)
    count = chunks.shape[1]
    rounds = -(-size // count)
    order = torch.rand(books, rounds, count, device=latents.device).argsort(-1).flatten(1)[:, :size]
    drawn = chunks.gather(1, order.unsqueeze(-1).expand(-1, -1, chunks.shape[-1]))
    noise = 0.02 if rounds > 1 else 0.0
    return F.normalize(drawn + noise * torch.randn_like(drawn), dim=-1)


@torch.no_grad()
def replace_entries(codebooks: Tensor, entries: Tensor, where: Tensor, length: float | None = None) -> None:
    """Write (K, V, d) unit `entries` into the codebooks at (K, V) `where`, at `length` or the codebooks' own mean one.

    Only directions matter to the codes; the length sets how far one optimizer step turns an entry.
    """
    scaled = entries.to(codebooks.dtype) * (codebooks.norm(dim=-1).mean() if length is None else length)
    codebooks.copy_(torch.where(where.unsqueeze(-1), scaled, codebooks))
