"""How much of each codebook is in use."""

from typing import NamedTuple

import torch
from torch import Tensor
from torchmetrics import Metric


class Usage(NamedTuple):
    """Use of K codebooks; torchmetrics drops the axis of (K,) where K is 1.

    Attributes:
        share: (K,) fraction of entries that are alive: met with a frequency over 1 % of the uniform one.
        perplexity: (K,) exp of the entropy of the codes; V where all are used alike.
        alive: (K, V) bool.
    """

    share: Tensor
    perplexity: Tensor
    alive: Tensor


class CodebookUsage(Metric):
    """(B, K, h, w) codes -> Usage over everything seen since the last reset; one reduction over ranks for all K.

    Args:
        num_codebooks: K.
        codebook_size: V.

    Nothing here waits for a GPU until `compute`. A published "usage" of a running average differs from this count.
    """

    full_state_update = False
    counts: Tensor

    def __init__(self, num_codebooks: int, codebook_size: int) -> None:
        super().__init__()
        self.num_codebooks, self.codebook_size = num_codebooks, codebook_size
        counts = torch.zeros(num_codebooks, codebook_size, dtype=torch.int64)
        self.add_state("counts", default=counts, dist_reduce_fx="sum")

    def update(self, codes: Tensor) -> None:
        """Count (B, K, h, w) codes."""
        flat = codes.transpose(0, 1).reshape(self.num_codebooks, -1)
        self.counts.scatter_add_(1, flat, torch.ones_like(flat))

    def compute(self) -> Usage:
        """Usage of all that was counted; zero everywhere where nothing was."""
        total = self.counts.sum(1, keepdim=True).clamp_min(1)
        frequency = self.counts.double() / total
        alive = frequency > 0.01 / self.codebook_size
        entropy = -torch.special.xlogy(frequency, frequency).sum(1)
        return Usage(alive.double().mean(1).float(), entropy.exp().float(), alive)
