"""Conversations for a language model: drawn and described images of token runs, and conversations from files."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, cast

import lightning
import numpy as np
from torch import Tensor

from unitok.bulk import TokenDataset
from unitok.mllm.assistant import DRAW, QUESTION, describing, drawing
from unitok.mllm.processor import Message
from unitok.training.loader import Batch, FeedLoader, Loaded, ResumableLoader
from unitok.training.sources import read_class_names


class Conversations(NamedTuple):
    """A batch.

    Attributes:
        images: B conversations, as `VisualProcessor.example` takes them; their images are (K, h, w) codes.
    """

    images: list[list[Message]]


@dataclass(frozen=True)
class Asking:
    """How images of token runs become conversations.

    Args:
        draw: how an image is asked for, with {} for its sentence.
        question: how an image is asked about.
        describing: share of images that are described; the others are drawn.
        dropout: share of drawn images whose sentence is left empty, which guidance needs.
        template: the sentence of an image that has a class and no caption, with {} for the class.
    """

    draw: str = DRAW
    question: str = QUESTION
    describing: float = 0.5
    dropout: float = 0.1
    template: str = "a photo of a {}."


class LanguageData(lightning.LightningDataModule):
    """Token runs and conversation files -> batches of conversations, shuffled and resumable.

    A token run is a folder that `unitok tokenize` wrote, whose images have captions, or folders for classes. Several
    runs of the same images at several scales mix the scales of TA-Tok. A conversation file has one
    {"messages": [...]} a line: {"role": "user", "content": text or [{"type": "text", "text": ...}, {"type": "image",
    "image": key}]}, where key is that of an image in the token runs of `train`: image to image, text and image to
    image, and text alone. Every random choice hangs on (seed, epoch, place in the epoch).

    Args:
        train: token runs.
        validation: the same; first captions, described and drawn in turn.
        conversations: JSON-lines files.
        weights: how often an epoch sees each run and then each file; None is once.
        asking: how images become conversations.
        class_names: CSV file with columns folder and class_name, for class folders.
        batch_size: conversations of one batch over all ranks together.
        seed: of order, captions and directions.

    Raises:
        ValueError: weights that do not fit, a batch that the ranks cannot share.
    """

    def __init__(
        self,
        train: list[str],
        validation: list[str] = [],  # noqa: B006
        conversations: list[str] = [],  # noqa: B006
        weights: list[float] | None = None,
        asking: Asking = Asking(),
        class_names: str | None = None,
        batch_size: int = 64,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.train, self.validation, self.conversations = train, validation, conversations
        self.weights = weights or [1.0] * (len(train) + len(conversations))
        if len(self.weights) != len(train) + len(conversations) or min(self.weights) <= 0:
            raise ValueError(f"weights={weights} must be positive, one for each of train and conversations")
        self.asking, self.batch_size, self.seed = asking, batch_size, seed
        self.names = read_class_names(class_names) if class_names else None
        if validation:  # a data module that has this method must also have the data
            self.val_dataloader = self.validation_loader

    def train_dataloader(self) -> ResumableLoader:
        """Shuffled, epoch after epoch; the last incomplete batch of an epoch is left out."""
        return ResumableLoader(self._feed(self.train, self.conversations, self.weights, True))

    def validation_loader(self) -> FeedLoader:
        """All of it, always in the same mixed order: the first batches of class folders hold every class."""
        return FeedLoader(self._feed(self.validation, [], [1.0] * len(self.validation), False))

    def _feed(self, runs: list[str], files: list[str], weights: list[float], train: bool) -> "ConversationFeed":
        rank, ranks = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        if self.batch_size < 1 or self.batch_size % ranks:
            raise ValueError(f"batch_size={self.batch_size} must be a multiple of ranks={ranks}, which share it")
        source = _Source(runs, files, self.asking, self.names)
        feed = ConversationFeed(source, weights, self.batch_size, self.seed if train else None, rank, ranks)
        if not feed.batches_per_epoch:
            raise ValueError(f"batch_size={self.batch_size} is more than the {len(feed.picks)} conversations")
        return feed


class ConversationFeed:
    """Batches of one rank, from any place of any epoch on.

    A seed of None chooses nothing at random and keeps the last batch.
    """

    def __init__(
        self, source: "_Source", weights: list[float], batch_size: int, seed: int | None, rank: int, ranks: int
    ) -> None:
        self.source, self.weights, self.batch_size, self.seed = source, weights, batch_size, seed
        self.rank, self.ranks = rank, ranks
        self.picks = self._order(0)
        self.batches_per_epoch = (
            len(self.picks) // batch_size if seed is not None else -(-len(self.picks) // batch_size)
        )
        self.identity = {"samples_per_epoch": len(self.picks), "seed": seed or 0}

    def batches(self, epoch: int, start: int) -> Iterator[Loaded]:
        """The batches of `epoch` from its sample `start` on."""
        order = self._order(epoch)
        for first in range(start, self.batches_per_epoch * self.batch_size, self.batch_size):
            slots = range(first + self.rank, min(first + self.batch_size, len(order)), self.ranks)
            asked = [self.source.conversation(int(order[slot]), self._random(epoch, slot), slot) for slot in slots]
            if asked:
                yield Loaded(cast(Batch, Conversations(asked)), [])

    def _random(self, epoch: int, slot: int) -> np.random.Generator | None:
        return None if self.seed is None else np.random.default_rng([self.seed, epoch, slot])

    def _order(self, epoch: int) -> np.ndarray[Any, np.dtype[np.int64]]:
        random = np.random.default_rng([self.seed or 0, epoch])
        parts, first = [], 0
        for size, weight in zip(self.source.sizes, self.weights, strict=True):
            copies, rest = divmod(round(size * weight), size)
            parts += [np.tile(np.arange(size), copies) + first, random.permutation(size)[:rest] + first]
            first += size
        return random.permutation(np.concatenate(parts))


class _Source:
    """Conversations by number: those of the runs, one after another, then those of the files."""

    def __init__(self, runs: list[str], files: list[str], asking: Asking, names: dict[str, str] | None) -> None:
        self.runs = [TokenDataset(run) for run in runs]
        self.asking, self.names = asking, names
        self.parts: list[TokenDataset | list[list[Message]]] = [*self.runs, *map(_read_lines, files)]
        self.sizes = [len(part) for part in self.parts]

    def conversation(self, number: int, random: np.random.Generator | None, slot: int) -> list[Message]:
        """The conversation; without a generator the first caption, and described and drawn in turn."""
        for part, size in zip(self.parts, self.sizes, strict=True):
            if number < size:
                return (
                    self._asked(part, number, random, slot)
                    if isinstance(part, TokenDataset)
                    else self._filled(part[number])
                )
            number -= size
        raise IndexError(number)

    def _asked(self, run: TokenDataset, number: int, random: np.random.Generator | None, slot: int) -> list[Message]:
        sample, asking = run[number], self.asking
        sentences = _sentences(sample.row, asking.template, self.names)
        sentence = sentences[0 if random is None else int(random.integers(len(sentences)))]
        described = slot % 2 == 0 if random is None else random.random() < asking.describing
        if described:
            return describing(sample.codes, sentence, asking.question)
        if random is not None and random.random() < asking.dropout:
            sentence = ""
        return drawing(sentence, sample.codes, asking.draw)

    def _filled(self, messages: list[Message]) -> list[Message]:
        return [{**message, "content": self._content(message["content"])} for message in messages]

    def _content(self, content: Any) -> Any:
        if isinstance(content, str):
            return content
        return [{**part, "image": self._codes(part["image"])} if part["type"] == "image" else part for part in content]

    def _codes(self, key: str) -> Tensor:
        for run in self.runs:
            try:
                return run[run.find(key)].codes
            except KeyError:
                continue
        raise ValueError(f"no token run of train has an image {key!r}, which a conversation shows")


def _read_lines(path: str) -> list[list[Message]]:
    lines = Path(path).read_text(encoding="utf-8").splitlines()
    try:
        return [json.loads(line)["messages"] for line in lines if line.strip()]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f'{path}: every line must be {{"messages": [...]}} ({error})') from error


def _sentences(row: dict[str, Any], template: str, names: dict[str, str] | None) -> list[str]:
    about = row["metadata"]
    if found := about.get("captions") or about.get("caption"):
        return [found] if isinstance(found, str) else list(found)
    folder = about.get("label")
    if not isinstance(folder, str):
        raise ValueError(
            f"the image {row['key']!r} has neither captions nor a class folder, so nothing can be said of it"
        )
    if names is not None and folder not in names:
        raise ValueError(f"the class names do not name the folder {folder!r}: add a line for it, or leave them out")
    return [template.format(names[folder] if names is not None else folder.replace("_", " "))]
