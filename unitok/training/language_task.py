"""Training a visual language model: text and images in, text and images out, any causal LM."""

import logging
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from unitok.mllm.assistant import VisualAssistant
from unitok.mllm.processor import Example
from unitok.mllm.visual_model import LanguageLoss
from unitok.training.base_task import BaseTask, Losses, Optimization
from unitok.training.language_data import Conversations

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
        max_length: positions of a conversation; longer ones are left out, and counted in a warning.

    Raises:
        ValueError: max_length below 2.
    """

    def __init__(
        self,
        assistant: VisualAssistant,
        optimization: Optimization = Optimization(lr=5e-5, weight_decay=0.0, warmup=0.03, final=0.0, clip=1.0),
        image_weight: float = 1.0,
        z_weight: float = 1e-4,
        max_length: int = 2048,
    ) -> None:
        super().__init__(optimization, averaged="model")
        if max_length < 2:
            raise ValueError(f"max_length={max_length} must be at least 2")
        self.model, self.processor = assistant.model, assistant.processor
        self.asked = (assistant.draw, assistant.question)
        self.image_weight, self.z_weight, self.max_length = image_weight, z_weight, max_length
        self.left_out = 0

    @property
    def assistant(self) -> VisualAssistant:
        """The evaluated model (the moving average, where one is kept) in conversation."""
        return VisualAssistant(self.evaluated, self.processor, *self.asked)

    def losses(self, batch: Conversations) -> Losses:
        """The loss of one batch of conversations."""
        loss = self.model.loss(*self._collated(batch))
        return Losses(self._total(loss), loss._asdict())

    @torch.no_grad()
    def validation_step(self, batch: Conversations, batch_idx: int) -> None:
        """The same loss of held-out conversations."""
        loss: LanguageLoss = self.evaluated.eval().loss(*self._collated(batch))
        shown = {"val/loss": self._total(loss), "val/text": loss.text, "val/image": loss.image}
        self.log_dict(shown, sync_dist=True, batch_size=len(batch.images), add_dataloader_idx=False)

    test_step = validation_step

    def on_fit_end(self) -> None:
        """Save what `VisualAssistant.load` opens."""
        if self.trainer.is_global_zero and not self.trainer.fast_dev_run:
            self.assistant.save(Path(self.trainer.default_root_dir) / "language_model")
        if self.left_out:
            logger.warning(
                "%d conversations had more than %d positions and were left out", self.left_out, self.max_length
            )

    def _total(self, loss: LanguageLoss) -> Tensor:
        return loss.text + self.image_weight * loss.image + self.z_weight * loss.z

    def _collated(self, batch: Conversations) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """Ids, learned, mask and rows, padded on the right."""
        examples = [self.processor.example(conversation) for conversation in batch.images]
        kept = [example for example in examples if len(example.ids) <= self.max_length]
        self.left_out += len(examples) - len(kept)
        if not kept:
            shortest = min(len(example.ids) for example in examples)
            raise ValueError(
                f"every conversation is longer than max_length={self.max_length}; the shortest: {shortest}"
            )
        return self._padded(kept)

    def _padded(self, examples: list[Example]) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        ids = pad_sequence([example.ids for example in examples], batch_first=True)
        learned = pad_sequence([example.learned for example in examples], batch_first=True)
        mask = pad_sequence([torch.ones_like(example.ids) for example in examples], batch_first=True)
        rows = pad_sequence([example.rows for example in examples], batch_first=True)
        moved = [part.to(self.device) for part in (ids, learned, mask)]
        return moved[0], moved[1], moved[2], rows.to(self.device) if self.model.vocabulary.packed else None
