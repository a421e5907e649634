"""The Fréchet distance between two clouds of features, and the sums it needs."""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torchmetrics import Metric


class Gaussian(NamedTuple):
    """Mean and covariance of a cloud of features, all float64.

    Attributes:
        mean: (D,).
        covariance: (D, D), unbiased: divided by count - 1.
        samples: number of features.
    """

    mean: Tensor
    covariance: Tensor
    samples: int


def frechet_distance(first: Gaussian, second: Gaussian) -> float:
    """|m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^1/2), in float64, without a matrix square root.

    With S1 = L L^T the product S1 S2 has the eigenvalues of the symmetric L^T S2 L, so the trace of its root is the sum
    of their roots. L is the Cholesky factor; where S1 has not full rank, it is Q sqrt(max(lambda, 0)) of its
    eigendecomposition. Rounding can leave a distance of equal clouds slightly below zero; it is not hidden.

    Raises:
        ValueError: unlike dimensions, or statistics that are not finite.

    Source: GANs Trained by a Two Time-Scale Update Rule (arXiv 1706.08500), "Fréchet Inception Distance".
    """
    if first.mean.shape != second.mean.shape:
        raise ValueError(f"{len(first.mean)}-d features cannot be compared with {len(second.mean)}-d features")
    mean1, covariance1, mean2, covariance2 = (
        tensor.double() for tensor in (first.mean, first.covariance, second.mean, second.covariance)
    )
    for tensor in (mean1, covariance1, mean2, covariance2):
        if not tensor.isfinite().all():
            raise ValueError("feature statistics are not finite: the features hold NaN or infinity")
    factor, failed = torch.linalg.cholesky_ex(covariance1)
    if failed:
        values, vectors = torch.linalg.eigh(covariance1)
        factor = vectors * values.clamp_min(0).sqrt()
    roots = torch.linalg.eigvalsh(factor.T @ covariance2 @ factor).clamp_min(0).sqrt()
    distance = (mean1 - mean2).square().sum() + covariance1.trace() + covariance2.trace() - 2 * roots.sum()
    return float(distance)


class FeatureStatistics(Metric):
    """(B, D) features, batch after batch -> Gaussian. Memory D^2, whatever the number of features.

    Keeps n, the sum of x and the sum of x x^T in float64, so batches, shards and ranks merge by addition.

    Args:
        dim: D.

    Raises:
        ValueError: features of another width; `compute` with fewer than two features.
    """

    full_state_update = False
    count: Tensor
    total: Tensor
    outer: Tensor

    def __init__(self, dim: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.dim = dim
        self.add_state("count", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("total", torch.zeros(dim, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("outer", torch.zeros(dim, dim, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, features: Tensor) -> None:
        """Add (B, D) features."""
        if features.ndim != 2 or features.shape[1] != self.dim:
            raise ValueError(f"features must have shape (B, {self.dim}), got {tuple(features.shape)}")
        features = features.detach().double()
        self.count += len(features)
        self.total += features.sum(0)
        self.outer.addmm_(features.T, features)

    def compute(self) -> Gaussian:
        """The Gaussian of all features of all ranks."""
        count = int(self.count)
        if count < 2:
            raise ValueError(f"a covariance needs at least 2 features, got {count}")
        mean = self.total / count
        return Gaussian(mean, (self.outer - count * torch.outer(mean, mean)) / (count - 1), count)
