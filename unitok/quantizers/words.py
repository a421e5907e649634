"""The words behind a text-aligned codebook: rows of a language model's embedding, chosen, written and read."""

import json
import os
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from unitok.files import replacing

NAMES = ("embed_tokens.weight", "wte.weight", "word_embeddings.weight", "tok_embeddings.weight", "embed_in.weight")


class Codebook(NamedTuple):
    """A frozen embedding and what its rows stand for.

    Attributes:
        embedding: (V, d) float32 rows of a language model's embedding.
        ids: (V,) int64, their ids in its vocabulary.
        words: V strings; empty where they are not known.
    """

    embedding: Tensor
    ids: Tensor
    words: list[str]


def select_embeddings(weight: Tensor, size: int, rows: int = 8192) -> Tensor:
    """(n, d) embedding -> (size,) int64 ids of its most representative rows, ascending.

    Those with the largest mean cosine distance to all others. The paper says "average distance" and not which; cosine
    is chosen because the codebook is compared by cosine. With unit rows u the sum of all similarities of row i is
    u_i . (u_1 + ... + u_n), so no pair is ever formed: two passes in float64, `rows` rows at a time. Ties go to the
    smaller id; zero rows are never taken. Note that this favours rare and odd words, and keeps near duplicates.

    Raises:
        ValueError: not a matrix of finite numbers, or fewer than `size` rows that are not zero.

    Source: Tar (arXiv 2506.18898), "Text-Aligned Codebook".
    """
    if weight.ndim != 2 or not weight.is_floating_point():
        raise ValueError(f"an embedding is a float matrix (n, d), got {tuple(weight.shape)} of {weight.dtype}")
    parts = weight.detach().split(rows)
    total = torch.stack([F.normalize(part.double(), dim=-1).sum(0) for part in parts]).sum(0)
    if not bool(total.isfinite().all()):
        raise ValueError("the embedding holds values that are not finite")
    similarity = torch.cat([F.normalize(part.double(), dim=-1) @ total for part in parts])
    usable = torch.cat([part.any(-1) for part in parts])
    if not 0 < size <= int(usable.sum()):
        raise ValueError(f"size={size} must lie between 1 and the {int(usable.sum())} rows that are not zero")
    order = similarity.masked_fill(~usable, torch.inf).argsort(stable=True)
    return order[:size].sort().values


def read_embedding(path: str | os.PathLike[str], tensor: str | None = None) -> Tensor:
    """The token embedding in a safetensors file, or in the folder of a language model -> (n, d), of the file's dtype.

    Args:
        path: of the file or folder; only the one tensor is read.
        tensor: its name; None looks for the usual names, or takes the only matrix there is.

    Raises:
        FileNotFoundError: no such file, or a folder without safetensors.
        ValueError: no tensor of that name, or none or several that could be it.
    """
    path = Path(path)
    files = sorted(path.glob("*.safetensors")) if path.is_dir() else [path]
    if not files or not all(file.is_file() for file in files):
        raise FileNotFoundError(f"no safetensors file at {path}")
    matrices: dict[str, Path] = {}
    for file in files:
        try:
            with safe_open(file, framework="pt") as weights:
                matrices |= {name: file for name in weights.keys() if len(weights.get_slice(name).get_shape()) == 2}  # noqa: SIM118
        except SafetensorError as error:
            raise ValueError(f"{file} is not a whole safetensors file: {error}") from error
    found = [name for name in matrices if (name == tensor if tensor else name.endswith(NAMES))]
    if not found and tensor is None and len(matrices) == 1:
        found = list(matrices)
    if len(found) != 1:
        raise ValueError(
            f"{path} has {len(found)} matrices that could be {tensor or 'the token embedding'}; name one of its "
            f"{len(matrices)}: {', '.join((found or list(matrices))[:6])}"
        )
    with safe_open(matrices[found[0]], framework="pt") as weights:
        return weights.get_tensor(found[0])


def write_codebook(codebook: Codebook, path: str | os.PathLike[str], source: str) -> None:
    """One safetensors file, whole or not at all: the embedding, the ids, and the words and source as metadata."""
    tensors = {"embedding": codebook.embedding.contiguous(), "ids": codebook.ids.contiguous()}
    with replacing(path) as temporary:
        save_file(tensors, temporary, metadata={"words": json.dumps(codebook.words), "source": source})


def read_codebook(path: str | os.PathLike[str]) -> Codebook:
    """A file that `write_codebook` wrote.

    Raises:
        FileNotFoundError: nothing there.
        ValueError: another kind of file.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"no codebook file at {path}")
    try:
        with safe_open(path, framework="pt") as file:
            words = json.loads((file.metadata() or {}).get("words", "[]"))
            return Codebook(file.get_tensor("embedding").float(), file.get_tensor("ids"), words)
    except (SafetensorError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is no codebook file (unitok codebook writes them): {error}") from error
