"""Training a visual language model: text and images in, text and images out, any causal LM."""

import logging
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from unitok.mllm.assistant import VisualAssistant
from unitok.mllm.processor import Example
from unitok.mllm.visual_model import LanguageLoss, VisualLanguageModel
from unitok.training.base_task import BaseTask, Losses, Optimization
from unitok.training.language_data import Conversations
from unitok.training.sharding import gather_into, outline

logger = logging.getLogger(__name__)


class LanguageTask(BaseTask):
    """The answers of conversations are learned, words and codes alike; what is asked is only read.

    Loss: mean nats of a learned word + image_weight * mean nats of a learned code + z_weight * z of the depth head.
    Tar averages words and codes together instead, which is right for its 100 M samples and drowns twenty words in
    two thousand codes on small runs. At the end the model, its words and its visual tokenizer are saved in
    `language_model` of the run's folder, from which `VisualAssistant.load` takes them.

    Args:
        assistant: the model and its processor; `unitok.mllm.build` has builders.
        optimization: how it learns. `ema` keeps a second copy of the whole model.
        image_weight: of the codes.
        z_weight: of the depth head's z-loss.
        depth_share: share of the packed positions whose codes the depth head learns in a step; validation takes all.
        max_length: positions of a conversation; longer ones are left out, and counted in a warning.
        pack_sequences: fill rows of max_length positions with several conversations, which neither see nor count one
            another, instead of padding each to the longest; the loss is the same. For models of transformers.

    Raises:
        ValueError: max_length below 2, a depth_share outside (0, 1].
    """

    def __init__(
        self,
        assistant: VisualAssistant,
        optimization: Optimization = Optimization(lr=5e-5, weight_decay=0.0, warmup=0.03, final=0.0, clip=1.0),
        image_weight: float = 1.0,
        z_weight: float = 1e-4,
        depth_share: float = 1.0,
        max_length: int = 2048,
        pack_sequences: bool = False,
    ) -> None:
        super().__init__(optimization, averaged="model")
        if max_length < 2:
            raise ValueError(f"max_length={max_length} must be at least 2")
        if not 0 < depth_share <= 1:
            raise ValueError(f"depth_share={depth_share} must be above 0 and at most 1")
        self.model, self.processor = assistant.model, assistant.processor
        self.asked = (assistant.draw, assistant.question)
        self.image_weight, self.z_weight, self.max_length = image_weight, z_weight, max_length
        self.depth_share, self.pack_sequences = depth_share, pack_sequences
        self.left_out = 0
        self.outline: list[VisualLanguageModel] = []  # in a list, so that it is no part of this module

    @property
    def assistant(self) -> VisualAssistant:
        """The evaluated model (the moving average, where one is kept) in conversation."""
        return self._assistant(self.evaluated)

    def _assistant(self, model: VisualLanguageModel) -> VisualAssistant:
        """It asks in the words of the data that it was trained on."""
        asking = getattr(getattr(self._trainer, "datamodule", None), "asking", None)
        words = self.asked if asking is None else (asking.draw, asking.question)
        return VisualAssistant(model, self.processor, *words)

    def losses(self, batch: Conversations) -> Losses:
        """The loss of one batch of conversations."""
        loss = self._loss(self.model, batch, self.depth_share)
        return Losses(self._total(loss), loss._asdict())

    @torch.no_grad()
    def validation_step(self, batch: Conversations, batch_idx: int) -> None:
        """The same loss of held-out conversations."""
        loss: LanguageLoss = self._loss(self.evaluated.eval(), batch)
        shown = {"val/loss": self._total(loss), "val/text": loss.text, "val/image": loss.image}
        self.log_dict(shown, sync_dist=True, batch_size=len(batch.images), add_dataloader_idx=False)

    test_step = validation_step

    def configure_model(self) -> None:
        """As every task; of what is to be sharded an outline is kept, to be saved whole."""
        if self.device_mesh is not None and not self.outline:
            self.outline.append(outline(self.model))
        super().configure_model()

    def on_fit_end(self) -> None:
        """Save what `VisualAssistant.load` opens."""
        if self.trainer.fast_dev_run:
            return
        model = gather_into(self.outline[0], self.evaluated) if self.outline else self.evaluated
        if self.trainer.is_global_zero:
            self._assistant(model).save(Path(self.trainer.default_root_dir) / "language_model")
        if self.left_out:
            logger.warning(
                "%d conversations had more than %d positions and were left out", self.left_out, self.max_length
            )

    def _total(self, loss: LanguageLoss) -> Tensor:
        return loss.text + self.image_weight * loss.image + self.z_weight * loss.z

    def _kept(self, batch: Conversations) -> list[Example]:
        examples = [self.processor.example(conversation) for conversation in batch.images]
        kept = [example for example in examples if len(example.ids) <= self.max_length]
        self.left_out += len(examples) - len(kept)
        if not kept:
            shortest = min(len(example.ids) for example in examples)
            raise ValueError(
                f"every conversation is longer than max_length={self.max_length}; the shortest: {shortest}"
            )
        return kept

    def _loss(self, model: VisualLanguageModel, batch: Conversations, depth_share: float = 1.0) -> LanguageLoss:
        """What the batch costs: a conversation a row, or several of them."""
        kept = self._kept(batch)
        lengths = [len(example.ids) for example in kept]
        groups = fill_rows(lengths, self.max_length) if self.pack_sequences else [[i] for i in range(len(kept))]
        ids = self._padded([torch.cat([kept[i].ids for i in group]) for group in groups])
        learned = self._padded([torch.cat([kept[i].learned for i in group]) for group in groups])
        rows = None
        if model.vocabulary.packed:
            rows = self._padded([torch.cat([kept[i].rows for i in group]) for group in groups])
        if self.pack_sequences:
            places = self._padded([torch.cat([torch.arange(lengths[i]) for i in group]) for group in groups])
            return model.loss(ids, learned, None, rows, places, depth_share)
        mask = self._padded([torch.ones_like(example.ids) for example in kept])
        return model.loss(ids, learned, mask, rows, None, depth_share)

    def _padded(self, parts: list[Tensor]) -> Tensor:
        return pad_sequence(parts, batch_first=True).to(self.device)


def fill_rows(lengths: list[int], longest: int) -> list[list[int]]:
    """Lengths -> groups of their places whose sums are at most `longest`; the longest first, each where it fits."""
    groups: list[tuple[int, list[int]]] = []
    for place in sorted(range(len(lengths)), key=lambda place: -lengths[place]):
        for number, (used, group) in enumerate(groups):
            if used + lengths[place] <= longest:
                groups[number] = (used + lengths[place], [*group, place])
                break
        else:
            groups.append((lengths[place], [place]))
    return [group for _, group in groups]
