"""Nearest-code search in two steps: a bfloat16 scan keeps every possible winner, float32 chooses among them."""

import torch
from torch import Tensor

from unitok.quantizers.search import nearest

BLOCK, BLOCK_BYTES = 4096, 2**23
CANDIDATES = 64  # of one vector in one block; a vector with more is searched in float32


@torch.no_grad()
def nearest_by_scan(vectors: Tensor, codebook: Tensor, coarse: Tensor) -> Tensor:
    """(N, d) and (V, d) unit vectors, coarse = codebook in bfloat16 -> (N,) int64: what `nearest` answers.

    Rounding to bfloat16 moves a cosine by at most 2^-8 (2^-9 relative on either side, Cauchy-Schwarz), and rounding the
    result by 2^-9 of it. So each code whose coarse score lies within twice that of the best one is scored again in
    float32, and no other can win. This saves time where bfloat16 is fast; a vector with a crowd of candidates (an
    untrained codebook that points all one way) is searched in float32.
    """
    rows = BLOCK_BYTES // (2 * min(BLOCK, len(codebook)))
    with torch.autocast(vectors.device.type, enabled=False):
        parts = [_scan(part, codebook, coarse) for part in vectors.float().split(rows)]
        return torch.cat(parts) if parts else vectors.new_empty(0, dtype=torch.int64)


def _scan(vectors: Tensor, codebook: Tensor, coarse: Tensor) -> Tensor:
    """One block of rows: candidates of each block of codes, then the exact winner among them."""
    half = vectors.bfloat16()
    best = torch.full((len(vectors),), -2.0, device=vectors.device)
    crowded = torch.zeros(len(vectors), dtype=torch.bool, device=vectors.device)
    found: list[tuple[Tensor, Tensor, Tensor]] = []
    for start in range(0, len(coarse), BLOCK):
        scores = half @ coarse[start : start + BLOCK].T
        best = torch.maximum(best, scores.amax(-1).float())
        kept = scores >= (best - _window(best))[:, None].bfloat16()
        crowded |= kept.sum(-1) > CANDIDATES
        kept &= ~crowded[:, None]
        row, code = kept.nonzero(as_tuple=True)
        found.append((row, code + start, scores[row, code]))
    row, code, score = (torch.cat(column) for column in zip(*found, strict=True))
    kept = score >= (best - _window(best)).bfloat16()[row]
    winners = _rescore(vectors, codebook, row[kept], code[kept])
    if crowded.any():
        winners[crowded] = nearest(vectors[crowded], codebook)
    return winners


def _window(best: Tensor) -> Tensor:
    """How far below the best coarse score the true winner can lie; a little slack for the sums and the comparison."""
    return 2**-7 * (1 + 2 * best.abs()) + 2**-10


def _rescore(vectors: Tensor, codebook: Tensor, row: Tensor, code: Tensor, pairs: int = 1024) -> Tensor:
    """(P,) rows and codes -> (N,): the code of the largest float32 score of each row, the smallest code on ties."""
    score = torch.cat(
        [(vectors[r] * codebook[c]).sum(-1) for r, c in zip(row.split(pairs), code.split(pairs), strict=True)]
    )
    best = torch.full((len(vectors),), -torch.inf, device=vectors.device).scatter_reduce(0, row, score, "amax")
    winner = score == best[row]
    codes = torch.full((len(vectors),), len(codebook), device=vectors.device)
    return codes.scatter_reduce(0, row[winner], code[winner], "amin").clamp(max=len(codebook) - 1)
