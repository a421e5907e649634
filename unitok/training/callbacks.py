"""What a run shows and leaves behind: pictures, speed, and the exported tokenizer."""

import logging
import time
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.nn import functional as F
from torchvision.utils import make_grid

from unitok.hub import save_tokenizer

logger = logging.getLogger(__name__)


class ReconstructionGrid(Callback):
    """Photos above their reconstructions, every N steps, to TensorBoard or Weights & Biases.

    Args:
        every_n_steps: how often.
        count: photos, the first of the run's first validation batch, or else training batch.
    """

    def __init__(self, every_n_steps: int = 500, count: int = 8) -> None:
        self.every_n_steps, self.count = every_n_steps, count
        self._images: Tensor | None = None

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Keep the first photos."""
        self._keep(batch)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Show them."""
        self._keep(batch)
        if trainer.global_step % self.every_n_steps or not trainer.is_global_zero or self._images is None:
            return
        if hasattr(getattr(pl_module, "evaluated", None), "quantizer"):
            for target in trainer.loggers:
                _show(target, "reconstructions", _grid(pl_module, self._images), trainer.global_step)

    def _keep(self, batch: Any) -> None:
        if self._images is None and isinstance(batch.images, Tensor):  # conversations are no photos
            self._images = batch.images[: self.count].float() / 255


class Speed(Callback):
    """Images per second over all ranks, and on CUDA peak memory, at every logged step."""

    def __init__(self) -> None:
        self._start, self._images = 0.0, 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._start, self._images = time.perf_counter(), 0

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Log and start anew."""
        self._images += len(batch.images) * trainer.world_size
        if trainer.global_step % trainer.log_every_n_steps:
            return
        seconds = time.perf_counter() - self._start
        pl_module.log("speed/images_per_second", self._images / seconds, prog_bar=True)
        if pl_module.device.type == "cuda":
            pl_module.log("speed/peak_memory_gib", torch.cuda.max_memory_allocated() / 2**30)
        self._start, self._images = time.perf_counter(), 0


class ExportTokenizer(Callback):
    """The evaluated tokenizer (the moving average, where one is kept) as a folder that `load_tokenizer` opens.

    Args:
        folder: where; None is `tokenizer` in the trainer's default_root_dir.
    """

    def __init__(self, folder: str | None = None) -> None:
        self.folder = folder

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write it at the end of the run."""
        tokenizer: Any = getattr(pl_module, "evaluated", None)
        if not trainer.is_global_zero or trainer.fast_dev_run or not hasattr(tokenizer, "quantizer"):
            return
        if tokenizer.config is None:
            logger.warning("nothing is exported: the tokenizer was put together by hand, not by a catalogue builder")
            return
        folder = Path(self.folder) if self.folder else Path(trainer.default_root_dir) / "tokenizer"
        save_tokenizer(tokenizer, folder, metadata={"steps": str(trainer.global_step)})


@torch.no_grad()
def _grid(pl_module: LightningModule, images: Tensor) -> Tensor:
    tokenizer: Any = pl_module.evaluated
    if tokenizer.decoder is None:
        return make_grid(images.cpu(), len(images))
    training = tokenizer.training
    tokenizer.eval()
    reconstructed = tokenizer.decode(tokenizer.encode(images.to(pl_module.device)))
    tokenizer.train(training)
    if reconstructed.shape != images.shape:  # a de-tokenizer makes images of its own size
        reconstructed = F.interpolate(reconstructed, images.shape[2:], mode="bilinear")
    return make_grid(torch.cat([images.cpu(), reconstructed.cpu()]), len(images))


def _show(target: Any, name: str, grid: Tensor, step: int) -> None:
    if hasattr(target, "log_image"):  # Weights & Biases
        target.log_image(name, [grid], step=step)
    elif hasattr(getattr(target, "experiment", None), "add_image"):  # TensorBoard
        target.experiment.add_image(name, grid, step)
