"""K codes of a token as one embedding of a language model."""

import torch
from torch import Tensor, nn

from unitok.tokenizer import Tokenizer


class CodeEmbedding(nn.Module):
    """(..., K) codes -> (..., dim): the K code vectors side by side, through an MLP.

    The vectors are the visual tokenizer's and stay as they are; the MLP learns.

    Args:
        vectors: (K, V, d) code vectors.
        dim: width of the language model.

    Source: UniTok (arXiv 2502.20321), "Unified MLLM".
    """

    vectors: Tensor

    def __init__(self, vectors: Tensor, dim: int) -> None:
        super().__init__()
        if vectors.ndim != 3:
            raise ValueError(f"code vectors must have shape (K, V, d), got {tuple(vectors.shape)}")
        self.num_codebooks, self.codebook_size, width = vectors.shape
        self.register_buffer("vectors", vectors.detach().clone())
        self.mlp = nn.Sequential(nn.Linear(self.num_codebooks * width, dim), nn.GELU(), nn.Linear(dim, dim))

    @classmethod
    def of(cls, tokenizer: Tokenizer, dim: int) -> "CodeEmbedding":
        """Over a visual tokenizer's code vectors."""
        return cls(code_vectors(tokenizer), dim)

    def forward(self, codes: Tensor) -> Tensor:
        """(..., K) codes -> (..., dim) embeddings, of the MLP's dtype; codes outside [0, V) raise on CPU only."""
        vectors = torch.cat([self.vectors[k][codes[..., k]] for k in range(self.num_codebooks)], dim=-1)
        return self.mlp(vectors.to(self.mlp[0].weight.dtype))  # type: ignore[arg-type]


@torch.no_grad()
def random_maps(vectors: Tensor, dim: int) -> Tensor:
    """(K, V, d) vectors -> (K, V, dim) of unit variance: each codebook through a random linear map of its own.

    Rows that start so are alike where codes are alike: what is learned of one code holds for those that look like it.
    """
    centred = vectors - vectors.mean(1, keepdim=True)
    weights = torch.randn(len(vectors), vectors.shape[-1], dim).to(centred)
    return centred @ weights / (centred.std() * vectors.shape[-1] ** 0.5)


@torch.no_grad()
def code_vectors(tokenizer: Tokenizer) -> Tensor:
    """(K, V, C / K) float32: what each code of each codebook adds to a latent, for any quantizer of K chunks."""
    books, size = tokenizer.num_codebooks, tokenizer.codebook_size
    device = next(tokenizer.quantizer.parameters()).device
    every = torch.arange(size, device=device).expand(1, books, 1, size)
    latents: Tensor = tokenizer.quantizer.dequantize(every, validate=False)  # (1, 1, V, C)
    return latents[0, 0].unflatten(-1, (books, -1)).transpose(0, 1).contiguous()
