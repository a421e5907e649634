"""Exact nearest-code search in row chunks, and the check that codes are codes."""

import torch
from torch import Tensor

GPU_SCORE_BYTES = 2**25


@torch.no_grad()
def nearest(vectors: Tensor, codebook: Tensor, offset: Tensor | None = None) -> Tensor:
    """(N, d) vectors, (V, d) codebook -> (N,) int64: argmax over v of vectors . codebook[v] (+ offset[v]).

    Float32 with autocast off; the first maximum wins. The (N, V) score matrix never stands in memory.
    """
    with torch.autocast(vectors.device.type, enabled=False):
        vectors, table = vectors.float(), codebook.float().T
        rows = _rows(codebook.shape[0], codebook.shape[1], vectors.device.type)
        best = torch.empty(len(vectors), dtype=torch.int64, device=vectors.device)
        for start in range(0, len(vectors), rows):
            scores = vectors[start : start + rows] @ table
            best[start : start + rows] = (scores if offset is None else scores + offset).argmax(-1)
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
