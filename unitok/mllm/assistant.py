"""Pictures from sentences and sentences from pictures: the model, its processor, and how they are asked."""

import json
import os
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from unitok.decoders.sampling import Sampling
from unitok.files import replacing
from unitok.mllm.code_embedding import CodeEmbedding
from unitok.mllm.depth_head import DepthHead
from unitok.mllm.generation import Prompt, generate_codes, generate_text
from unitok.mllm.processor import Message, VisualProcessor, images_of
from unitok.mllm.visual_model import VisualLanguageModel
from unitok.mllm.vocabulary import Grid

DRAWN = Sampling(top_k=1200, top_p=0.95)
"""Tar's settings for a codebook of 65,536; a smaller codebook wants a smaller top_k."""
GREEDY = Sampling(temperature=0.0)
DRAW, QUESTION = "Draw: {}", "Describe the image."
PARTS, ABOUT = "visual_parts.safetensors", "visual_assistant.json"


def drawing(sentence: str, image: Any, draw: str = DRAW) -> list[Message]:
    """The conversation in which a sentence becomes an image."""
    shown = [{"type": "image", "image": image}]
    return [{"role": "user", "content": draw.format(sentence)}, {"role": "assistant", "content": shown}]


def describing(image: Any, sentence: str, question: str = QUESTION) -> list[Message]:
    """The conversation in which an image becomes a sentence."""
    asked = [{"type": "image", "image": image}, {"type": "text", "text": question}]
    return [{"role": "user", "content": asked}, {"role": "assistant", "content": sentence}]


class VisualAssistant:
    """A visual language model in conversation.

    Args:
        model: the model.
        processor: its words and its eyes; its visual tokenizer, where it has one, decodes what is drawn.
        draw: how an image is asked for, with {} for the sentence. Guidance contrasts with the empty sentence, so
            train some of it (`Asking`, dropout).
        question: how an image is asked about.

    Raises:
        ValueError: model and processor have different vocabularies.
    """

    def __init__(
        self,
        model: VisualLanguageModel,
        processor: VisualProcessor,
        draw: str = DRAW,
        question: str = QUESTION,
    ) -> None:
        ours, theirs = model.vocabulary, processor.vocabulary
        if (ours.first, ours.settings) != (theirs.first, theirs.settings):
            raise ValueError(f"the model writes {ours.settings}, the processor reads {theirs.settings}")
        self.model, self.processor, self.draw, self.question = model, processor, draw, question

    def drawing(self, sentence: str, image: Any) -> list[Message]:
        """The conversation in which a sentence becomes an image, in this assistant's words."""
        return drawing(sentence, image, self.draw)

    def describing(self, image: Any, sentence: str, question: str | None = None) -> list[Message]:
        """The conversation in which an image becomes a sentence, in this assistant's words."""
        return describing(image, sentence, question or self.question)

    def generate_codes(
        self,
        sentences: str | Sequence[str],
        grid: Grid | None = None,
        sampling: Sampling = DRAWN,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """B sentences -> (B, K, h, w) codes, all at once.

        Args:
            sentences: one or several.
            grid: (h, w); None is the vocabulary's usual one.
            sampling: how codes are drawn; top_k is cut to the codebook's size.
            generator: source of randomness.
        """
        sentences = [sentences] if isinstance(sentences, str) else list(sentences)
        sampling = sampling._replace(top_k=min(sampling.top_k, self.model.vocabulary.codebook_size))
        prompt = self._prompt([self.drawing(sentence, None)[:1] for sentence in sentences])
        null = self._prompt([self.drawing("", None)[:1]]) if sampling.guidance > 1 else None
        return generate_codes(self.model.eval(), prompt, grid, sampling, generator, null)

    def generate_images(
        self,
        sentences: str | Sequence[str],
        grid: Grid | None = None,
        sampling: Sampling = DRAWN,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """B sentences -> (B, 3, H, W) images; as `generate_codes`, and decoded.

        Raises:
            ValueError: the processor has no visual tokenizer, or it cannot decode.
        """
        visual = self.processor.visual
        if visual is None:
            raise ValueError("codes become images by a visual tokenizer, which this processor does not have")
        codes = self.generate_codes(sentences, grid, sampling, generator)
        return visual.decode(codes.to(next(visual.parameters()).device))

    def describe(
        self,
        images: Sequence[Any],
        question: str | None = None,
        max_new_tokens: int = 64,
        sampling: Sampling = GREEDY,
        generator: torch.Generator | None = None,
    ) -> list[str]:
        """Images (photos or codes) -> an answer about each; of one grid or of several.

        Args:
            images: as the processor takes them.
            question: what is asked; None is the usual question.
            max_new_tokens: the longest answer.
            sampling: how words are drawn.
            generator: source of randomness.
        """
        prompt = self._prompt([self.describing(image, "", question)[:1] for image in images])
        answers = generate_text(self.model.eval(), prompt, self._stops(), max_new_tokens, sampling, generator)
        return [text.strip() for text in self.processor.batch_decode(answers)]

    def save(self, folder: str | os.PathLike[str]) -> None:
        """The language model, its words, the visual tokenizer and the visual parts, as `load` opens them.

        Adapters are merged into a copy of the weights.
        """
        folder, model = Path(folder), self.model
        folder.mkdir(parents=True, exist_ok=True)
        language: Any = model.model
        if hasattr(language, "merge_and_unload"):
            language = deepcopy(language).merge_and_unload()
        language.save_pretrained(folder)
        self.processor.save_pretrained(folder)
        about: dict[str, Any] = {"draw": self.draw, "question": self.question, "size": self.processor.size}
        if model.depth_head is not None:
            about["depth_head"] = model.depth_head.settings
            state = {name: tensor.contiguous() for name, tensor in model.visual_parts.state_dict().items()}
            with replacing(folder / PARTS) as path:
                save_file(state, path, metadata={"format": "pt"})
        with replacing(folder / ABOUT) as path:
            path.write_text(json.dumps(about, indent=2))

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> "VisualAssistant":
        """What `save` wrote, on the CPU and in eval mode; the dtype is the file's."""
        from transformers import AutoModelForCausalLM

        folder = Path(folder)
        about = json.loads((folder / ABOUT).read_text())
        language = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
        processor = VisualProcessor.from_pretrained(folder)
        processor.size = about["size"]
        vocabulary = processor.vocabulary
        if not vocabulary.packed:
            return cls(VisualLanguageModel(language, vocabulary).eval(), processor, about["draw"], about["question"])
        state, table = load_file(folder / PARTS), language.get_input_embeddings().weight
        embedding = CodeEmbedding(state["code_embedding.vectors"], table.shape[1]).to(table)
        sizes = (vocabulary.num_codebooks, vocabulary.codebook_size)
        head = DepthHead(table.shape[1], *sizes, **about["depth_head"]).to(table)
        model = VisualLanguageModel(language, vocabulary, embedding, head).eval()
        model.visual_parts.load_state_dict(state)
        return cls(model, processor, about["draw"], about["question"])

    def _prompt(self, conversations: list[list[Message]]) -> Prompt:
        texts = [self.processor.apply_chat_template(one, add_generation_prompt=True) for one in conversations]
        images = [images_of(one) for one in conversations]
        words = self.processor.tokenizer
        side, words.padding_side = words.padding_side, "left"
        try:
            data = self.processor(texts, images, "pt", add_special_tokens=False)
        finally:
            words.padding_side = side
        device = next(self.model.parameters()).device
        rows = data["code_rows"].to(device) if self.model.vocabulary.packed else None
        return Prompt(data["input_ids"].to(device), data["attention_mask"].to(device), rows)

    def _stops(self) -> list[int]:
        words, known = self.processor.tokenizer, self.processor.tokenizer.get_vocab()
        stops = {words.eos_token_id, known.get("<|im_end|>")} - {None}
        if not stops:
            raise ValueError("the tokenizer has no end of text (eos_token), so no answer would ever end")
        return sorted(stops)
