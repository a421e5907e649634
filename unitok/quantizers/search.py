"""Exact nearest-code search in blocks, and the check that codes are codes."""

import torch
from torch import Tensor

GPU_SCORE_BYTES = 2**25
SMALL_TABLE = 2**22  # bytes of a codebook that is scored whole; a larger one is read in blocks of BLOCK entries
BLOCK, BLOCK_BYTES = 4096, 2**24


@torch.no_grad()
def nearest(vectors: Tensor, codebook: Tensor, offset: Tensor | None = None) -> Tensor:
    """(N, d) vectors, (V, d) codebook -> (N,) int64: argmax over v of vectors . codebook[v] (+ offset[v]).

    Float32 with autocast off; the first maximum wins. The (N, V) score matrix never stands in memory: at most
    32 MB of it.
    """
    with torch.autocast(vectors.device.type, enabled=False):
        vectors, table = vectors.float(), codebook.float()
        small = 4 * table.numel() <= SMALL_TABLE
        block = len(table) if small else min(len(table), BLOCK)
        rows = _rows(len(table), table.shape[1], vectors.device.type) if small else max(1, BLOCK_BYTES // (4 * block))
        best = torch.empty(len(vectors), dtype=torch.int64, device=vectors.device)
        for start in range(0, len(vectors), rows):  # a list of small results would hold the freed scores apart
            best[start : start + rows] = _nearest_rows(vectors[start : start + rows], table, offset, block)
        return best


def _nearest_rows(vectors: Tensor, table: Tensor, offset: Tensor | None, block: int) -> Tensor:
    best_score: Tensor | None = None
    best = torch.empty(0)
    for start in range(0, len(table), block):
        scores = vectors @ table[start : start + block].T
        if offset is not None:
            scores += offset[start : start + block]
        index = scores.argmax(-1)
        if best_score is None and start + block >= len(table):
            return index
        score = scores.gather(1, index[:, None]).squeeze(1)
        if best_score is None:
            best, best_score = index, score
        else:
            better = score > best_score  # the first maximum wins
            best, best_score = torch.where(better, index + start, best), torch.where(better, score, best_score)
    return best


def _rows(size: int, width: int, device: str) -> int:
    """Vectors scored at once: on a CPU few enough for the cache, yet enough to pay for reading a wide codebook."""
    return max(16, width // 4) if device == "cpu" else max(1, GPU_SCORE_BYTES // (4 * size))


def check_codes(codes: Tensor, num_codebooks: int, codebook_size: int, validate: bool | None = None) -> None:
    """Raise ValueError unless codes are (B, K, h, w) integers in [0, V).

    Reading values makes a GPU wait, so the range is checked on CPU only, unless `validate` says True or False.
    """
    if codes.dtype not in (torch.int64, torch.int32, torch.int16, torch.uint8):
        raise ValueError(f"codes must be integers (int64), not {codes.dtype}")
    if codes.ndim != 4 or codes.shape[1] != num_codebooks:
        raise ValueError(
            f"codes must have shape (B, K, h, w) with K={num_codebooks} codebooks, got shape {tuple(codes.shape)}"
        )
    if (codes.device.type == "cpu" if validate is None else validate) and codes.numel():
        low, high = (int(v) for v in codes.aminmax())
        if low < 0 or high >= codebook_size:
            raise ValueError(f"codes must lie in [0, {codebook_size}), found values from {low} to {high}")
