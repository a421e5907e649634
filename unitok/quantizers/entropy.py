"""The entropy term: each token sure of its code, all tokens together spread over the whole codebook."""

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint


def assignment_entropy(vectors: Tensor, codebook: Tensor, temperature: float, rows: int = 1024) -> Tensor:
    """(N, d) and (V, d) unit vectors -> (): mean entropy of the soft assignment minus the entropy of the mean one.

    -|z - e|^2 / tau = (2 z.e - 2) / tau for unit vectors, and the constant leaves the softmax.
    Rows are recomputed in the backward pass, so no (N, V) matrix is kept.
    """

    def of_rows(part: Tensor) -> tuple[Tensor, Tensor]:
        logits = part @ codebook.T * (2 / temperature)
        probabilities = logits.softmax(-1)
        entropy = (logits.logsumexp(-1) - (probabilities * logits).sum(-1)).sum()
        return entropy, probabilities.sum(0)

    parts = [checkpoint(of_rows, part, use_reentrant=False) for part in vectors.split(rows)]
    count = vectors.shape[0]
    mean = torch.stack([p for _, p in parts]).sum(0) / count
    return torch.stack([e for e, _ in parts]).sum() / count + (mean * torch.log(mean + 1e-7)).sum()
