"""A causal language model that reads and writes images: words for codes, or one position for K codes of a token."""

import inspect
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unitok.mllm.code_embedding import CodeEmbedding
from unitok.mllm.depth_head import DepthHead
from unitok.mllm.vocabulary import VisualVocabulary
from unitok.tokenizer import Tokenizer


class Read(NamedTuple):
    """What the model makes of ids.

    Attributes:
        logits: (B, L, words) of the next word.
        states: (B, L, hidden) that the depth head reads; empty where codes are words.
        cache: keys and values of all positions so far.
    """

    logits: Tensor
    states: Tensor
    cache: Any


class LanguageLoss(NamedTuple):
    """What a batch costs.

    Attributes:
        text: () nats of a learned word, frames of images included; 0 where there is none.
        image: () nats of a learned code; 0 where there is none.
        z: () mean squared logarithm of the depth head's denominators; 0 without it.
    """

    text: Tensor
    image: Tensor
    z: Tensor


class VisualLanguageModel(nn.Module):
    """Any AutoModelForCausalLM and a VisualVocabulary; with packed codes also a CodeEmbedding and a DepthHead.

    Packed, the embedding of `<code>` is replaced by that of the K codes beside it, and the depth head says the codes
    of the next position, so an image of 256 tokens costs 256 positions. Otherwise the model is used as it is.

    Args:
        model: expanded for the vocabulary (`expand_vocabulary`).
        vocabulary: on the model's tokenizer.
        code_embedding: K codes -> one embedding, where codes are packed.
        depth_head: one state -> K codes, where codes are packed.

    Raises:
        ValueError: a model that was not expanded, packed codes without embedding and head, K or V that differ.
    """

    def __init__(
        self,
        model: Any,
        vocabulary: VisualVocabulary,
        code_embedding: CodeEmbedding | None = None,
        depth_head: DepthHead | None = None,
    ) -> None:
        super().__init__()
        rows = len(model.get_input_embeddings().weight)
        if rows < vocabulary.stop:
            raise ValueError(f"the model has {rows} rows for {vocabulary.stop} words: call expand_vocabulary first")
        if vocabulary.packed != (code_embedding is not None) or vocabulary.packed != (depth_head is not None):
            raise ValueError(f"packed={vocabulary.packed}: packed codes need an embedding and a depth head, words none")
        for part in (code_embedding, depth_head):
            sizes = (vocabulary.num_codebooks, vocabulary.codebook_size)
            if part is not None and (part.num_codebooks, part.codebook_size) != sizes:
                found = (part.num_codebooks, part.codebook_size)
                raise ValueError(f"{type(part).__name__} is for (K, V)={found}, the vocabulary for {sizes}")
        self.model, self.vocabulary = model, vocabulary
        self.code_embedding, self.depth_head = code_embedding, depth_head

    @classmethod
    def packed(
        cls,
        model: Any,
        vocabulary: VisualVocabulary,
        tokenizer: Tokenizer,
        dim: int = 1024,
        depth: int = 3,
        num_heads: int = 16,
    ) -> "VisualLanguageModel":
        """With embedding and depth head from the visual tokenizer's code vectors, in the model's dtype and place.

        Args:
            model: expanded for the vocabulary.
            vocabulary: with packed codes.
            tokenizer: whose codes they are.
            dim: channels of the depth head.
            depth: its blocks.
            num_heads: its attention heads.
        """
        vocabulary.check_tokenizer(tokenizer)
        table = model.get_input_embeddings().weight
        hidden, sizes = table.shape[1], (vocabulary.num_codebooks, vocabulary.codebook_size)
        embedding, head = CodeEmbedding.of(tokenizer, hidden), DepthHead(hidden, *sizes, dim, depth, num_heads)
        head.start_from(embedding.vectors)
        return cls(model, vocabulary, embedding.to(table), head.to(table))

    @property
    def visual_parts(self) -> nn.ModuleDict:
        """What stands beside the language model where codes are packed; empty where they are words."""
        parts = {"code_embedding": self.code_embedding, "depth_head": self.depth_head}
        return nn.ModuleDict({name: part for name, part in parts.items() if part is not None})

    def forward(
        self,
        ids: Tensor,
        mask: Tensor | None = None,
        rows: Tensor | None = None,
        cache: Any = None,
        keep: bool = False,
        places: Tensor | None = None,
    ) -> Read:
        """(B, L) ids -> Read.

        Args:
            ids: of words.
            mask: (B, everything so far + L), 0 for padding; None has no padding. Places are counted without it.
            rows: (B, L, K) codes, read where ids are `<code>`; for packed codes only.
            cache: of an earlier call, which these ids go on from.
            keep: return a cache.
            places: (B, L) place of each id in its sequence, where a row holds several: 0, 1, 2, 0, 1, ... Models of
                transformers keep what begins at 0 apart, if there is neither mask nor cache; one whose code is its
                own may look across.
        """
        named = _cache_name(self.model)
        options: dict[str, Any] = {"attention_mask": mask, named: cache, "use_cache": keep}
        if places is not None:
            if mask is not None or cache is not None or keep:
                raise ValueError("rows of several sequences (places) go without mask and cache")
            options["position_ids"] = places
        elif mask is not None:
            options["position_ids"] = (mask.long().cumsum(-1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        if self.code_embedding is None:
            output = self.model(input_ids=ids, **options)
            return Read(output.logits, output.logits.new_empty(0), output[named] if keep else None)
        embedded = self._embed(ids, rows)
        output = self.model(inputs_embeds=embedded, output_hidden_states=True, **options)
        return Read(output.logits, output.hidden_states[-1], output[named] if keep else None)

    def loss(
        self,
        ids: Tensor,
        learned: Tensor,
        mask: Tensor | None = None,
        rows: Tensor | None = None,
        places: Tensor | None = None,
        depth_share: float = 1.0,
    ) -> LanguageLoss:
        """(B, L) ids, and booleans which of them are to be learned -> LanguageLoss.

        Words and codes are averaged apart, so that two thousand codes do not drown twenty words. An image's frame
        counts as words. In a batch without images the depth head still takes part, with a gradient of zero.

        Args:
            ids: of words.
            learned: of the same shape.
            mask: as in `forward`.
            rows: as in `forward`.
            places: as in `forward`; no sequence is to foretell the first id of the next.
            depth_share: share of the packed positions, drawn at random, whose codes the depth head learns: it costs
                K places a position, often more than the language model, and a part of them tells it as much.
        """
        read = self(ids, mask, rows, places=places)
        target, counted = ids[:, 1:], learned[:, 1:].bool()
        if mask is not None:
            counted = counted & mask[:, 1:].bool()
        if places is not None:
            counted = counted & (places[:, 1:] > 0)
        code = self.vocabulary.is_code(target)
        logits = read.logits[:, :-1]
        text = _mean(_nats(logits, target, counted & ~code))
        if self.depth_head is None:
            image = _mean(_nats(logits, target, counted & code))
            return LanguageLoss(text, image, image.new_zeros(()))
        chosen = counted & code
        if depth_share < 1:
            chosen = chosen & (torch.rand(chosen.shape, device=chosen.device) < depth_share)
        depth = self.depth_head.loss(read.states[:, :-1][chosen], _needed(rows)[:, 1:][chosen])
        return LanguageLoss(text, _mean(depth.nats) / self.vocabulary.num_codebooks, depth.z)

    def _embed(self, ids: Tensor, rows: Tensor | None) -> Tensor:
        embedded: Tensor = self.model.get_input_embeddings()(ids)
        where = self.vocabulary.is_code(ids)
        if rows is None and bool(where.any()):
            raise ValueError("ids hold <code>, so their codes are needed: rows (B, L, K), as the processor makes them")
        chosen = ids.new_zeros(0, self.vocabulary.num_codebooks) if rows is None else rows[where]
        codes: Tensor = self.code_embedding(chosen)  # type: ignore[misc]
        return embedded.index_put((where,), codes.to(embedded.dtype))


def _nats(logits: Tensor, target: Tensor, chosen: Tensor) -> Tensor:
    return F.cross_entropy(logits[chosen].float(), target[chosen], reduction="none")


def _mean(values: Tensor) -> Tensor:
    return values.sum() / max(1, len(values))


def _needed(rows: Tensor | None) -> Tensor:
    if rows is None:
        raise ValueError("packed codes are learned from rows (B, L, K), as the processor makes them")
    return rows


def _cache_name(model: Any) -> str:
    """What a model calls its cache: newer releases of transformers say `cache`, older ones `past_key_values`."""
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model  # under LoRA adapters
    return "cache" if "cache" in inspect.signature(inner.forward).parameters else "past_key_values"
