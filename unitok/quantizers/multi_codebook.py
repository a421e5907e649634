"""Multi-codebook quantization: each token is cut into K chunks, each looked up in a codebook of its own.

Source: UniTok (arXiv 2502.20321), "Multi-Codebook Quantization".
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unitok.layers import Derived
from unitok.outputs import Quantized
from unitok.quantizers.entropy import assignment_entropy
from unitok.quantizers.search import check_codes, nearest


class MultiCodebookQuantizer(nn.Module):
    """K independent codebooks over the K chunks of a latent; codes are nearest by cosine.

    Args:
        num_codebooks: K.
        codebook_size: V, entries of ONE codebook.
        latent_dim: C, the whole latent; each codebook works on C // K channels.
        commitment_weight: beta of the commitment loss.
        entropy_temperature: tau of the entropy term.
        use_entropy: compute the entropy term in training (its weight belongs to the task).

    Raises:
        ValueError: latent_dim is not a multiple of num_codebooks.
    """

    def __init__(
        self,
        num_codebooks: int = 8,
        codebook_size: int = 4096,
        latent_dim: int = 64,
        commitment_weight: float = 0.25,
        entropy_temperature: float = 0.01,
        use_entropy: bool = False,
    ) -> None:
        super().__init__()
        if latent_dim % num_codebooks:
            raise ValueError(f"latent_dim={latent_dim} must be a multiple of num_codebooks={num_codebooks}")
        self.num_codebooks, self.codebook_size, self.latent_dim = num_codebooks, codebook_size, latent_dim
        self.commitment_weight, self.entropy_temperature = commitment_weight, entropy_temperature
        self.use_entropy = use_entropy
        width = latent_dim // num_codebooks
        bound = width**-0.5 / 36
        self.codebooks = nn.Parameter(torch.empty(num_codebooks, codebook_size, width).uniform_(-bound, bound))
        self._unit_codebooks = Derived(_unit)

    @property
    def unit_codebooks(self) -> Tensor:
        """(K, V, C / K) float32 codebooks with rows of unit length."""
        return self._unit_codebooks(self.codebooks)

    @torch.no_grad()
    def quantize(self, latents: Tensor) -> Tensor:
        """(B, h, w, C) latents -> (B, K, h, w) int64 codes; float32 whatever surrounds it, first maximum on ties."""
        batch, height, width, _ = latents.shape
        chunks = latents.reshape(-1, self.num_codebooks, self.latent_dim // self.num_codebooks)
        unit = self.unit_codebooks
        codes = torch.stack([nearest(chunks[:, k], unit[k]) for k in range(self.num_codebooks)])
        return codes.view(self.num_codebooks, batch, height, width).transpose(0, 1).contiguous()

    def dequantize(self, codes: Tensor, validate: bool | None = None) -> Tensor:
        """(B, K, h, w) codes -> (B, h, w, C) float32 latents: the unit code vectors side by side.

        Raises:
            ValueError: wrong dtype, number of axes or of codebooks, or a code outside [0, V) (see `check_codes`).
        """
        check_codes(codes, self.num_codebooks, self.codebook_size, validate)
        unit, codes = self.unit_codebooks, codes.long()  # torch takes uint8 for a mask, and int16 not at all
        return torch.cat([unit[k][codes[:, k]] for k in range(self.num_codebooks)], dim=-1)

    def forward(self, latents: Tensor) -> Quantized:
        """(B, h, w, C) latents -> Quantized, with the straight-through gradient through the normalised latent."""
        with torch.autocast(latents.device.type, enabled=False):
            codes = self.quantize(latents)
            chunks = F.normalize(latents.float().unflatten(-1, (self.num_codebooks, -1)), dim=-1)
            unit = self.unit_codebooks
            vectors = torch.stack([unit[k][codes[:, k]] for k in range(self.num_codebooks)], dim=-2)
            # mean over all chunks = mean over codebooks of the mean over each
            loss = self.commitment_weight * F.mse_loss(chunks, vectors.detach()) + F.mse_loss(vectors, chunks.detach())
            entropy_loss = loss.new_zeros(())
            if self.use_entropy:
                books = chunks.flatten(0, 2).unbind(1)
                terms = [assignment_entropy(book, unit[k], self.entropy_temperature) for k, book in enumerate(books)]
                entropy_loss = torch.stack(terms).mean()
            latents = (vectors - chunks).detach() + chunks
            return Quantized(latents.flatten(-2), codes, loss, entropy_loss)


def _unit(codebooks: Tensor) -> Tensor:
    return F.normalize(codebooks.float(), dim=-1)
