"""The autoregressive de-tokenizer: features -> pixel codes, one after another -> images.

Source: Tar (arXiv 2506.18898), "Generative De-Tokenizer".
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unitok.decoders.prefix_transformer import Cache, PrefixTransformer
from unitok.decoders.sampling import Sampling, guide


class AutoregressiveDecoder(nn.Module):
    """(B, h, w, D) features -> (B, 3, H, W) images in [0, 1], through the codes of a pixel tokenizer.

    Args:
        transformer: writes the pixel codes after the features; its cond_dim is D.
        pixels: the tokenizer whose codes it writes, one codebook (VQ-16); its decode half is enough for images, its
            encode half is needed in training.
        temperature: logits are divided by it; 0 is greedy.
        top_k: draw among the k likeliest codes; 0 is all of them, 1 is greedy.
        top_p: draw among the likeliest codes of this total probability.
        guidance: strength of classifier-free guidance against all-zero features; 1 is none, and half the work.
        guidance_interval: the last step with guidance, counted from 0 at the second code; None is all.
        compiled: sample with a compiled step of constant shapes (worth it on a GPU; the first call compiles).

    `cached = False` selects the straightforward form, the whole sequence anew for every code.

    Raises:
        ValueError: a setting out of range; a pixel tokenizer of several codebooks or of another codebook size;
            a number of codes that is no square.
    """

    generative = True
    cached = True
    frozen: tuple[str, ...] = ("pixels",)

    def __init__(
        self,
        transformer: PrefixTransformer,
        pixels: nn.Module,
        temperature: float = 1.0,
        top_k: int = 0,
        top_p: float = 1.0,
        guidance: float = 4.0,
        guidance_interval: int | None = None,
        compiled: bool = False,
    ) -> None:
        super().__init__()
        self.transformer = transformer
        self.pixels: Any = pixels
        self.sampling = Sampling(temperature, top_k, top_p, guidance, guidance_interval)
        if self.pixels.num_codebooks != 1 or self.pixels.codebook_size != transformer.codebook_size:
            raise ValueError(
                f"the pixel tokenizer has {self.pixels.num_codebooks} codebooks of {self.pixels.codebook_size} "
                f"entries, this de-tokenizer writes one code in [0, {transformer.codebook_size}) per token"
            )
        self.side = math.isqrt(transformer.num_codes)
        if self.side**2 != transformer.num_codes:
            raise ValueError(f"num_codes={transformer.num_codes} must be a square: images are square")
        self._step: Any = torch.compile(transformer.step, dynamic=False, fullgraph=True) if compiled else None

    @property
    def cond_dim(self) -> int:
        """D, the channels of the features it reads."""
        return self.transformer.cond_dim

    @property
    def image_size(self) -> int:
        """The side of the images it makes."""
        return self.side * int(self.pixels.decoder.stride)

    @property
    def sampling(self) -> Sampling:
        """Settings of the draw; another `Sampling` may be assigned, and is checked."""
        return self._sampling

    @sampling.setter
    def sampling(self, sampling: Sampling) -> None:
        sampling.check(self.transformer.codebook_size)
        self._sampling = sampling

    @torch.no_grad()
    def forward(self, features: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """(B, h, w, D) features -> (B, 3, H, W) images in [0, 1]; any grid of at most max_condition tokens.

        Raises:
            ValueError: features of another width, or more of them than there are positions.
        """
        images: Tensor = self.pixels.decode(self.sample(features, generator))
        return images

    def logits(self, features: Tensor, codes: Tensor) -> Tensor:
        """(B, h, w, D) features, (B, 1, H', W') pixel codes -> (B, H' W', V) logits of each given those before it."""
        return self.transformer(features.flatten(1, 2), codes.flatten(1))

    def loss(
        self,
        features: Tensor,
        images: Tensor,
        dropped: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """(B, h, w, D) features, (B, 3, H, W) images in [0, 1] -> () cross-entropy per pixel code, in nats.

        Args:
            features: of a condition tokenizer.
            images: what is to be written, of the size whose codes number N; the pixel tokenizer gets no gradient.
            dropped: (B,) bool, rows trained without condition, on zeros.
            generator: not used, nothing is drawn here; other de-tokenizers draw noise.
        """
        if dropped is not None:
            features = features.masked_fill(dropped[:, None, None, None], 0)
        return self.code_loss(features, self.pixels.encode(images))

    def code_loss(self, features: Tensor, codes: Tensor) -> Tensor:
        """(B, h, w, D) features, (B, 1, H', W') pixel codes -> () cross-entropy per code, in nats."""
        logits = self.logits(features, codes)
        return F.cross_entropy(logits.flatten(0, 1).float(), codes.flatten())

    @torch.no_grad()
    def sample(self, features: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """(B, h, w, D) features -> (B, 1, H', W') int64 pixel codes; equal generators give equal codes."""
        if features.ndim != 4:
            raise ValueError(f"features must have shape (B, h, w, D), got {tuple(features.shape)}")
        condition = features.flatten(1, 2)
        codes = self._sample_cached(condition, generator) if self.cached else self._sample_anew(condition, generator)
        return codes.view(-1, 1, self.side, self.side)

    def _sample_cached(self, condition: Tensor, generator: torch.Generator | None) -> Tensor:
        """(B, n, D) -> (B, N) codes, one forward per code over a static cache."""
        batch, prefix = condition.shape[:2]
        logits, cache = self._start(condition)
        written = condition.new_empty(batch, self.transformer.num_codes, dtype=torch.int64)
        for index in range(self.transformer.num_codes):
            if index:
                if len(logits) > batch and not self.sampling.guides(index):
                    cache = Cache(cache.keys[:, :batch], cache.values[:, :batch])  # the null half has had its turn
                logits = self._advance(written[:, index - 1], prefix + index - 1, cache)
            written[:, index] = self.sampling.draw(self._guided(logits, batch), generator)
        return written

    def _start(self, condition: Tensor) -> tuple[Tensor, Cache]:
        """Logits of the first code and a cache with room for all; rows B ... 2B - 1 are the null condition's.

        The null prefix is the same for every image and is computed once.
        """
        batch, prefix, _ = condition.shape
        rows = 2 * batch if self.sampling.guides(0) else batch
        if rows > batch:
            condition = torch.cat([condition, torch.zeros_like(condition[:1])])
        logits, filled = self.transformer.prefill(condition)
        depth, heads, width = self.transformer.cache_shape
        shape = (depth, rows, heads, prefix + self.transformer.num_codes - 1, width)
        cache = Cache(*(torch.zeros(shape, dtype=part.dtype, device=part.device) for part in filled))
        for part, source in zip(cache, filled, strict=True):
            part[:, :batch, :, :prefix] = source[:, :batch]
            part[:, batch:, :, :prefix] = source[:, batch:]
        if rows > batch:
            logits = torch.cat([logits[:batch], logits[batch:].expand(batch, -1)])
        return logits, cache

    def _advance(self, codes: Tensor, position: int, cache: Cache) -> Tensor:
        """(B,) codes at `position` -> logits of the next, for as many rows as the cache has."""
        codes = codes.repeat(cache.keys.shape[1] // len(codes))
        place = torch.tensor(position, device=codes.device)
        if self._step is not None:
            logits: Tensor = self._step(codes, place, cache)
            return logits
        return self.transformer.step(codes, place, cache, visible=position + 1)

    def _sample_anew(self, condition: Tensor, generator: torch.Generator | None) -> Tensor:
        """(B, n, D) -> (B, N) codes, the whole sequence computed anew for each."""
        batch = len(condition)
        written = condition.new_zeros(batch, self.transformer.num_codes, dtype=torch.int64)
        for index in range(self.transformer.num_codes):
            guided = self.sampling.guides(index)
            both = torch.cat([condition, torch.zeros_like(condition)]) if guided else condition
            seen = written[:, : index + 1].repeat(2 if guided else 1, 1)
            logits = self.transformer(both, seen)[:, -1]
            written[:, index] = self.sampling.draw(self._guided(logits, batch), generator)
        return written

    def _guided(self, logits: Tensor, batch: int) -> Tensor:
        """(B or 2B, V) logits -> (B, V) float32 logits."""
        logits = logits.float()
        if len(logits) == batch:
            return logits
        return guide(logits[:batch], logits[batch:], self.sampling.guidance)
