"""Text-aligned quantization: the codebook is a frozen word embedding seen through a learned projection.

Source: Tar (arXiv 2506.18898), "Text-Aligned Tokenizer"; SimVQ (arXiv 2411.02038).
"""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unitok.layers import Derived
from unitok.outputs import Quantized
from unitok.quantizers.entropy import assignment_entropy
from unitok.quantizers.scan import nearest_by_scan
from unitok.quantizers.search import check_codes, nearest


class TextAlignedQuantizer(nn.Module):
    """One code for each token: the nearest row of projection(embedding), where only the projection is learned.

    `quantize` always takes the nearest code; the published code draws one at random even at inference. The projected
    codebook is kept between calls (V x C floats: 403 MB at the published size) until the projection changes;
    `dequantize` projects only the rows it needs. `straightforward = True` selects the plain form of both, to compare
    with: the whole codebook projected at every call, and all V distances of all tokens at once.

    Args:
        codebook_size: V.
        latent_dim: C.
        embedding_dim: channels of the frozen embedding; None means C.
        normalize: compare by cosine, and give code vectors of unit length; otherwise by squared distance, as they are.
        stochastic: in training, draw codes from softmax(cosine / temperature) instead of taking the nearest.
        temperature: of that draw. None: its inverse stands in the weights as a number of its own, 10 at first; drawn
            codes pass no gradient to it, so it only changes if something else trains it.
        search: "exact" works in float32. "scan" keeps a bfloat16 codebook besides (half as much memory again), and
            finds the same codes sooner where bfloat16 is fast; it needs `normalize`.
        codebook_weight: of the loss that moves codes to latents.
        commitment_weight: of the loss that moves latents to codes.
        use_entropy: compute the entropy term in training (its weight belongs to the task). Rows of the embedding are
            frozen and no dead code can be restarted by itself: at a high learning rate latents and projected words
            narrow together around a few words (2.7 % of 1,000 in use where the tiny recipe's rates were doubled and
            tripled, 58 % with this term; at the recipe's own rates 58 % without and 69 % with it).
        entropy_temperature: tau of the entropy term.

    Raises:
        ValueError: stochastic, search="scan" or use_entropy without normalize, a temperature that is not positive.
    """

    num_codebooks = 1
    straightforward = False

    def __init__(
        self,
        codebook_size: int = 65536,
        latent_dim: int = 1536,
        embedding_dim: int | None = None,
        normalize: bool = True,
        stochastic: bool = False,
        temperature: float | None = 0.03,
        search: Literal["exact", "scan"] = "exact",
        codebook_weight: float = 1.0,
        commitment_weight: float = 0.25,
        use_entropy: bool = False,
        entropy_temperature: float = 0.01,
    ) -> None:
        super().__init__()
        if not normalize and (stochastic or search == "scan" or use_entropy):
            raise ValueError(
                f"stochastic={stochastic}, search={search!r}, use_entropy={use_entropy}: without normalize only exact "
                f"argmax exists"
            )
        if search not in ("exact", "scan"):
            raise ValueError(f"search={search!r} is not one of ['exact', 'scan']")
        if temperature is not None and temperature <= 0:
            raise ValueError(f"temperature={temperature} must be positive, or None for a learned one")
        if entropy_temperature <= 0:
            raise ValueError(f"entropy_temperature={entropy_temperature} must be positive")
        self.codebook_size, self.latent_dim = codebook_size, latent_dim
        self.normalize, self.stochastic, self.search, self.temperature = normalize, stochastic, search, temperature
        self.codebook_weight, self.commitment_weight = codebook_weight, commitment_weight
        self.use_entropy, self.entropy_temperature = use_entropy, entropy_temperature
        width = embedding_dim or latent_dim
        self.embedding = nn.Parameter(torch.empty(codebook_size, width).normal_(std=width**-0.5), requires_grad=False)
        self.projection = nn.Linear(width, latent_dim)
        if temperature is None:
            self.inverse_temperature = nn.Parameter(torch.tensor(10.0))
        self._codebook = Derived(self._project_all)
        self._coarse = Derived(Tensor.bfloat16)

    @property
    @torch.no_grad()
    def codebook(self) -> Tensor:
        """(V, C) float32: the code vectors, of unit length with `normalize`; carries no gradient."""
        return self._codebook(self.embedding, self.projection.weight, self.projection.bias)

    @torch.no_grad()
    def quantize(self, latents: Tensor) -> Tensor:
        """(B, h, w, C) latents -> (B, 1, h, w) int64 codes; float32 whatever surrounds it, first maximum on ties."""
        vectors = latents.float().flatten(0, 2)
        if self.straightforward:
            return self._plain_search(vectors).view(latents.shape[0], 1, *latents.shape[1:3])
        table = self.codebook
        if self.search == "scan":
            codes = nearest_by_scan(F.normalize(vectors, dim=-1), table, self._coarse(table))
        else:
            codes = nearest(vectors, table, None if self.normalize else table.square().sum(-1) / -2)
        return codes.view(latents.shape[0], 1, *latents.shape[1:3])

    def dequantize(self, codes: Tensor, validate: bool | None = None) -> Tensor:
        """(B, 1, h, w) codes -> (B, h, w, C) float32 latents, with gradient to the projection.

        Raises:
            ValueError: wrong dtype, number of axes or of codebooks, or a code outside [0, V) (see `check_codes`).
        """
        check_codes(codes, 1, self.codebook_size, validate)
        with torch.autocast(codes.device.type, enabled=False):
            if self.straightforward:
                return self._vectors(self.embedding)[codes[:, 0]]
            return self._vectors(self.embedding[codes[:, 0]])

    def forward(self, latents: Tensor) -> Quantized:
        """(B, h, w, C) latents -> Quantized; straight-through gradient through the (normalised) latent."""
        with torch.autocast(latents.device.type, enabled=False):
            latents = latents.float()
            codes = self._draw(latents) if self.training and self.stochastic else self.quantize(latents)
            if self.normalize:
                latents = F.normalize(latents, dim=-1)
            vectors = self.dequantize(codes, validate=False)
            loss = self.codebook_weight * F.mse_loss(vectors, latents.detach())
            loss = loss + self.commitment_weight * F.mse_loss(latents, vectors.detach())
            entropy_loss = loss.new_zeros(())
            if self.use_entropy:
                table = self._vectors(self.embedding)
                entropy_loss = assignment_entropy(latents.flatten(0, 2), table, self.entropy_temperature)
            return Quantized(latents + (vectors - latents).detach(), codes, loss, entropy_loss)

    @torch.no_grad()
    def _draw(self, latents: Tensor, score_bytes: int = 2**25) -> Tensor:
        """(B, h, w, C) latents -> (B, 1, h, w) codes drawn from softmax(cosine / temperature)."""
        inverse = self.inverse_temperature if self.temperature is None else 1 / self.temperature
        table = self.codebook
        parts = F.normalize(latents.flatten(0, 2), dim=-1).split(max(1, score_bytes // (4 * self.codebook_size)))
        codes = [torch.multinomial((part @ table.T * inverse).softmax(-1), 1) for part in parts]
        return torch.cat(codes).view(latents.shape[0], 1, *latents.shape[1:3])

    def _vectors(self, rows: Tensor) -> Tensor:
        """(..., embedding_dim) rows of the embedding -> (..., C) float32 code vectors."""
        return self._project(rows, self.projection.weight, self.projection.bias)

    def _project(self, rows: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        vectors = F.linear(rows.float(), weight.float(), bias.float())
        return F.normalize(vectors, dim=-1) if self.normalize else vectors

    def _plain_search(self, vectors: Tensor) -> Tensor:
        """(N, C) -> (N,): the smallest of all squared distances."""
        with torch.autocast(vectors.device.type, enabled=False):
            table = self._vectors(self.embedding)
            if self.normalize:
                vectors = F.normalize(vectors, dim=-1)
            squares = vectors.square().sum(-1, keepdim=True) + table.square().sum(-1)
            return (squares - 2 * (vectors @ table.T)).argmin(-1)

    def _project_all(self, embedding: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """(V, C): all code vectors, a few rows at a time, so that nothing of that size stands beside them.

        From the parameters given: in a copied module this is still a method of the first one.
        """
        with torch.autocast(embedding.device.type, enabled=False):
            table = embedding.new_empty(self.codebook_size, self.latent_dim, dtype=torch.float32)
            for rows, target in zip(embedding.split(4096), table.split(4096), strict=True):
                target.copy_(self._project(rows, weight, bias))
            return table
