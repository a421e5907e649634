"""The understanding side: a text tower and the heads that put images and texts into one space."""

import math

import torch
from open_clip.transformer import TextTransformer
from torch import Tensor, nn
from torch.nn import functional as F


class TextTower(TextTransformer):
    """open_clip's causal text transformer: (B, L) token ids -> (B, E), pooled at the end-of-text token.

    Args:
        embed_dim: E, the joint dimension.
        width: channels of the transformer.
        heads: attention heads.
        layers: transformer layers.
        vocab_size: words of the text vocabulary.
        context_length: L at most.
        word_dim: channels of the word table; where it is narrower than `width` a linear layer widens it,
            so that a small tokenizer is not mostly its text vocabulary.
    """

    def __init__(
        self,
        embed_dim: int = 768,
        width: int = 768,
        heads: int = 12,
        layers: int = 12,
        vocab_size: int = 49408,
        context_length: int = 77,
        word_dim: int | None = None,
    ) -> None:
        super().__init__(
            context_length=context_length,
            vocab_size=vocab_size,
            width=width,
            heads=heads,
            layers=layers,
            output_dim=embed_dim,
        )
        if word_dim is not None:
            words = nn.Embedding(vocab_size, word_dim)
            nn.init.normal_(words.weight, std=0.02)
            self.token_embedding = nn.Sequential(words, nn.Linear(word_dim, width))
        with torch.device("cpu"):  # the mask is no weight: it must exist even where the tower is built without memory
            self.attn_mask = self.build_causal_mask()

    def forward(self, text: Tensor) -> Tensor:
        """(B, L) text ids -> (B, E). What follows the last end-of-text token is never seen, so a CPU leaves it out."""
        ends = text.argmax(-1)
        if text.device.type == "cpu":
            text = text[:, : int(ends.max()) + 1]
        length = text.shape[1]
        words = self.token_embedding(text) + self.positional_embedding[:length]
        words = self.ln_final(self.transformer(words, attn_mask=self.attn_mask[:length, :length]))
        return words[torch.arange(len(words), device=ends.device), ends] @ self.text_projection


class ContrastiveHead(nn.Module):
    """Image features and texts -> one space of E dimensions.

    Args:
        dim: D of the features.
        embed_dim: E.
        text: a text tower, or None where only images are embedded.

    Source: UniTok (arXiv 2502.20321), "Unified Supervision".
    """

    def __init__(self, dim: int, embed_dim: int, text: nn.Module | None) -> None:
        super().__init__()
        self.image_norm = nn.LayerNorm(dim, eps=1e-6)
        self.image_projection = nn.Linear(dim, embed_dim)
        self.text = text
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def embed_image(self, features: Tensor, normalize: bool = False) -> Tensor:
        """(B, h, w, D) features -> (B, E): the mean token, normalised and projected."""
        pooled = features.to(self.image_norm.weight.dtype).mean((1, 2))
        embedding: Tensor = self.image_projection(self.image_norm(pooled))
        return F.normalize(embedding, dim=-1) if normalize else embedding

    def embed_text(self, text_ids: Tensor, normalize: bool = False) -> Tensor:
        """(B, L) text ids -> (B, E).

        Raises:
            ValueError: this tokenizer was loaded without its text tower, or L is not the tower's context length.
        """
        if self.text is None:
            raise ValueError('the text tower was not loaded; load the tokenizer with parts="all"')
        length = self.text.positional_embedding.shape[0]
        if text_ids.ndim != 2 or text_ids.shape[1] != length:
            raise ValueError(f"text ids must have shape (B, {length}), padded with 0, got {tuple(text_ids.shape)}")
        embedding: Tensor = self.text(text_ids)
        return F.normalize(embedding, dim=-1) if normalize else embedding
