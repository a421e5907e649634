"""Text and images -> what a visual language model reads, in the manner of Hugging Face's processors."""

import os
import warnings
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from unitok.hub import load_tokenizer, save_tokenizer
from unitok.images import read_images
from unitok.mllm.vocabulary import PLACEHOLDER, FoundImage, VisualVocabulary
from unitok.tokenizer import Tokenizer

VISUAL = "visual_tokenizer"
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""Of Qwen; for tokenizers without a chat template, with their own end of text where they lack `<|im_end|>`."""

Message = dict[str, Any]
"""{"role": ..., "content": text or a list of {"type": "text", "text": ...} and {"type": "image", "image": ...}}."""


class Example(NamedTuple):
    """A conversation to learn from.

    Attributes:
        ids: (L,) int64.
        learned: (L,) bool, the assistant's words.
        rows: (L, K) int64 codes beside `<code>`; zeros elsewhere.
    """

    ids: Tensor
    learned: Tensor
    rows: Tensor


class VisualProcessor:
    """`processor(text="<image>What is this?", images=["photo.jpg"], return_tensors="pt")`.

    An image is a photo (a path, a PIL image, a numpy array, a uint8 or float tensor) or codes (an int64 or int32
    tensor (K, h, w), as `unitok tokenize` keeps them). Every `<image>` in a text, in questions and in answers, is
    replaced by the words of the next image.

    Args:
        words: a Hugging Face tokenizer with a visual vocabulary.
        visual: the visual tokenizer; without it only codes are taken.
        size: photos become squares of this side; None is the one the visual tokenizer was trained on.

    Raises:
        ValueError: a tokenizer without visual vocabulary, or one for another K or V.
    """

    def __init__(self, words: Any, visual: Tokenizer | None = None, size: int | None = None) -> None:
        self.tokenizer, self.visual = words, visual
        self.vocabulary = VisualVocabulary.of(words)
        self.size = size or (visual.image_size if visual is not None else None)
        if visual is not None:
            self.vocabulary.check_tokenizer(visual)

    def __call__(
        self,
        text: str | Sequence[str],
        images: Any = None,
        return_tensors: str | None = None,
        scale: int = 1,
        add_special_tokens: bool = True,
    ) -> Any:
        """Text and images -> a BatchFeature of input_ids and attention_mask, and with packed codes code_rows.

        Args:
            text: one or several.
            images: of one text, one or a list; of several, a list of lists, or all of them in order.
            return_tensors: "pt" for tensors, padded on the tokenizer's padding_side; None for lists, not padded.
            scale: coarseness at which photos are encoded.
            add_special_tokens: as the tokenizer's own option.

        Raises:
            ValueError: more or fewer images than placeholders, photos without a visual tokenizer, wrong codes.
        """
        from transformers import BatchFeature

        texts = [text] if isinstance(text, str) else list(text)
        ids = [self._text_ids(one, add_special_tokens) for one in texts]
        counts = [int((one == self.vocabulary.placeholder).sum()) for one in ids]
        groups = _groups(images, counts, isinstance(text, str))
        parts = [self._fill(one, self.codes(group, scale)) for one, group in zip(ids, groups, strict=True)]
        data: dict[str, Any] = {"input_ids": [one for one, _ in parts]}
        data["attention_mask"] = [torch.ones_like(one) for one, _ in parts]
        if self.vocabulary.packed:
            data["code_rows"] = [rows for _, rows in parts]
        if return_tensors is None:
            return BatchFeature({name: [part.tolist() for part in value] for name, value in data.items()})
        pad = self.tokenizer.pad_token_id or 0
        padded = {name: self._pad(value, pad if name == "input_ids" else 0) for name, value in data.items()}
        return BatchFeature(padded, tensor_type=return_tensors)

    def apply_chat_template(
        self,
        messages: Sequence[Message],
        tokenize: bool = False,
        add_generation_prompt: bool = False,
        return_tensors: str | None = None,
    ) -> Any:
        """A conversation -> its text with `<image>` where images stand; with `tokenize` what `processor(...)` gives."""
        text = self._render(messages, add_generation_prompt)
        if not tokenize:
            return text
        return self(text, images_of(messages), return_tensors, add_special_tokens=False)

    def example(self, messages: Sequence[Message], scale: int = 1) -> Example:
        """A conversation -> ids, of which those that the assistant says, images and end of turn included, are learned.

        Raises:
            ValueError: a chat template that writes earlier turns differently once later ones follow.
        """
        parts: list[tuple[Tensor, Tensor]] = []
        flags: list[bool] = []
        text, images = "", iter(self.codes(images_of(messages), scale))
        for turn, message in enumerate(messages):
            if message["role"] != "assistant":
                continue
            for end, flag in ((self._render(messages[:turn], True), False), (self._render(messages[: turn + 1]), True)):
                if not end.startswith(text):
                    raise ValueError("this chat template rewrites earlier turns, so the answers cannot be told apart")
                ids = self._text_ids(end[len(text) :], False)
                count = int((ids == self.vocabulary.placeholder).sum())
                parts.append(self._fill(ids, list(islice(images, count))))
                flags.append(flag)
                text = end
        if not parts:
            raise ValueError("a conversation without a turn of the assistant teaches nothing")
        learned = [torch.full((len(ids),), flag) for (ids, _), flag in zip(parts, flags, strict=True)]
        return Example(torch.cat([ids for ids, _ in parts]), torch.cat(learned), torch.cat([rows for _, rows in parts]))

    def codes(self, images: Sequence[Any], scale: int = 1) -> list[Tensor]:
        """Photos or codes, mixed -> (K, h, w) codes of each.

        Raises:
            ValueError: photos without a visual tokenizer, or codes of another K.
        """
        photos = [place for place, image in enumerate(images) if not _is_codes(image)]
        found = {place: image.long() for place, image in enumerate(images) if place not in photos}
        for codes in found.values():
            if codes.ndim != 3 or len(codes) != self.vocabulary.num_codebooks:
                wanted = self.vocabulary.num_codebooks
                raise ValueError(f"codes must have shape (K, h, w) with K={wanted}, got {tuple(codes.shape)}")
        if photos:
            if self.visual is None or self.size is None:
                raise ValueError("photos need a visual tokenizer: VisualProcessor(tokenizer, visual=load_tokenizer())")
            device = next(self.visual.parameters()).device
            batch = read_images([images[place] for place in photos], size=self.size).to(device)
            found |= dict(zip(photos, self.visual.encode(batch, scale).cpu(), strict=True))
        return [found[place] for place in range(len(images))]

    def find_images(self, ids: Tensor, rows: Tensor | None = None, strict: bool = False) -> list[FoundImage]:
        """(L,) generated ids -> the codes of every image among them; see `VisualVocabulary.to_codes`."""
        return self.vocabulary.to_codes(ids, rows, strict)

    def batch_decode(self, ids: Any, skip_special_tokens: bool = True) -> list[str]:
        """Ids of several texts -> the texts; visual words are special and left out with them."""
        return [self.tokenizer.decode(one, skip_special_tokens=skip_special_tokens) for one in ids]

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """The tokenizer with its visual vocabulary, and the visual tokenizer in a folder of its own.

        A visual tokenizer that was put together by hand cannot be saved, and is left out with a warning.
        """
        self.tokenizer.save_pretrained(folder)
        if self.visual is not None and self.visual.config is None:
            warnings.warn("the visual tokenizer came from no catalogue builder and is not saved", stacklevel=2)
        elif self.visual is not None:
            save_tokenizer(self.visual, Path(folder) / VISUAL)

    @classmethod
    def from_pretrained(cls, folder: str | os.PathLike[str]) -> "VisualProcessor":
        """What `save_pretrained` wrote."""
        from transformers import AutoTokenizer

        visual = Path(folder) / VISUAL
        return cls(AutoTokenizer.from_pretrained(folder), load_tokenizer(visual) if visual.is_dir() else None)

    def _render(self, messages: Sequence[Message], add_generation_prompt: bool = False) -> str:
        plain = [{**message, "content": _content(message["content"])} for message in messages]
        template = self.tokenizer.chat_template or self._chatml()
        rendered: str = self.tokenizer.apply_chat_template(
            plain, chat_template=template, tokenize=False, add_generation_prompt=add_generation_prompt
        )
        return rendered

    def _chatml(self) -> str:
        known = "<|im_end|>" in self.tokenizer.get_vocab() or not self.tokenizer.eos_token
        return CHATML if known else CHATML.replace("<|im_end|>", self.tokenizer.eos_token)

    def _text_ids(self, text: str, add_special_tokens: bool) -> Tensor:
        ids = self.tokenizer(text, add_special_tokens=add_special_tokens)["input_ids"]
        return torch.tensor(ids, dtype=torch.int64)

    def _fill(self, ids: Tensor, codes: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Ids with placeholders, and a (K, h, w) for each -> whole ids, and (L, K) rows."""
        books = self.vocabulary.num_codebooks
        places = (ids == self.vocabulary.placeholder).nonzero().flatten().tolist()
        if len(places) != len(codes):
            raise ValueError(f"the text has {len(places)} {PLACEHOLDER} for {len(codes)} images; give one for each")
        parts, rows, start = [], [], 0
        for place, image in zip(places, codes, strict=True):
            written = self.vocabulary.to_ids(image[None])[0]
            beside = torch.zeros(len(written), books, dtype=torch.int64)
            if self.vocabulary.packed:
                beside[self.vocabulary.is_code(written)] = self.vocabulary.to_rows(image[None])[0]
            parts += [ids[start:place], written]
            rows += [torch.zeros(place - start, books, dtype=torch.int64), beside]
            start = place + 1
        rows.append(torch.zeros(len(ids) - start, books, dtype=torch.int64))
        return torch.cat([*parts, ids[start:]]), torch.cat(rows)

    def _pad(self, parts: list[Tensor], value: int) -> Tensor:
        left = self.tokenizer.padding_side == "left"
        return torch.nn.utils.rnn.pad_sequence(
            parts, batch_first=True, padding_value=value, padding_side="left" if left else "right"
        )


def _is_codes(image: Any) -> bool:
    return isinstance(image, Tensor) and image.dtype in (torch.int64, torch.int32)


def _content(content: str | list[dict[str, Any]]) -> str:
    if isinstance(content, str):
        return content
    return "".join(PLACEHOLDER if part["type"] == "image" else part["text"] for part in content)


def images_of(messages: Sequence[Message]) -> list[Any]:
    """A conversation -> its images, in order."""
    parts = [part for message in messages if not isinstance(message["content"], str) for part in message["content"]]
    return [part["image"] for part in parts if part["type"] == "image"]


def _groups(images: Any, counts: list[int], single: bool) -> list[list[Any]]:
    """Images as they were given -> a list for each text."""
    if images is None:
        return [[] for _ in counts]
    if not isinstance(images, list | tuple):
        images = [images]
    if single:
        return [list(images)]
    if len(images) == len(counts) and all(isinstance(group, list | tuple) for group in images):
        return [list(group) for group in images]
    if len(images) != sum(counts):
        raise ValueError(f"the texts have {sum(counts)} {PLACEHOLDER} for {len(images)} images; give one for each")
    ends = torch.tensor(counts).cumsum(0).tolist()
    return [list(images[end - count : end]) for count, end in zip(counts, ends, strict=True)]
