"""Checkpoints that are whole or not there, and the one that a run goes on from."""

import os
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO

from unitok.files import replacing
from unitok.training.base_task import NotFiniteError

LAST = "last.ckpt"


class AtomicCheckpointIO(TorchCheckpointIO):
    """Checkpoint files through a temporary file beside them: a full disk or a power cut leaves the old one whole.

    Unlike Lightning's own, which gathers the whole file in memory first, this needs disk for two and memory for none.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any | None = None
    ) -> None:
        """Write a checkpoint.

        Raises:
            OSError: it could not be written; what stood at `path` still does.
        """
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with replacing(path) as temporary:
                torch.save(checkpoint, temporary)
        except RuntimeError as error:  # torch's writer says "No space left" in its own way
            raise OSError(
                f"{path} could not be written: {str(error).splitlines()[0]}; what was there is whole"
            ) from error

    def load_checkpoint(
        self, path: str | os.PathLike[str], map_location: Any = "cpu", weights_only: bool | None = True
    ) -> dict[str, Any]:
        """Read a checkpoint: tensors and plain values only.

        Raises:
            FileNotFoundError: there is none.
            ValueError: it is cut short, or holds more than tensors and plain values.
        """
        if not os.path.isfile(path):
            raise FileNotFoundError(f"no checkpoint at {path}")
        try:
            return torch.load(path, map_location=map_location, weights_only=True)
        except Exception as error:
            raise ValueError(f"{path} is not a readable checkpoint: {str(error).splitlines()[0]}") from error


class LastCheckpoint(Checkpoint):
    """`last.ckpt`: after every N steps, at the end, and when the run is interrupted between two batches.

    Args:
        every_n_steps: how often.
        folder: where; None is `checkpoints` in the trainer's default_root_dir.
    """

    def __init__(self, every_n_steps: int = 500, folder: str | None = None) -> None:
        self.every_n_steps, self.folder = every_n_steps, folder
        self._saved = -1
        self._between, self._resumed = False, False

    def path(self, trainer: Trainer) -> Path:
        """The file."""
        return checkpoint_folder(trainer, self.folder) / LAST

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Remember that the run goes on from another."""
        self._resumed = True

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """A run that is not resumed must not write over one that could be.

        Raises:
            ValueError: there is a run in this folder already.
        """
        path = self.path(trainer)
        if not self._resumed and path.exists() and not trainer.fast_dev_run:
            raise ValueError(
                f"{path} is there from an earlier run: go on from it with --ckpt_path {path}, "
                f"or start anew in another --trainer.default_root_dir"
            )

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """From here to the end of the batch weights and position do not belong together."""
        self._between = False

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save after every N steps."""
        self._between = True
        if trainer.global_step % self.every_n_steps == 0:
            self._save(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the end."""
        self._save(trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Save what can be gone on from; not after a failure that every rank may not share."""
        ranks_share_it = trainer.world_size == 1 or isinstance(exception, KeyboardInterrupt)
        if self._between and ranks_share_it and not isinstance(exception, NotFiniteError | OSError):
            self._save(trainer)

    def _save(self, trainer: Trainer) -> None:
        if trainer.global_step != self._saved and not trainer.fast_dev_run:
            trainer.save_checkpoint(self.path(trainer), weights_only=False)  # optimizers and position too
            self._saved = trainer.global_step

    def state_dict(self) -> dict[str, Any]:
        """Nothing: whether it is saved is seen on disk."""
        return {}


def checkpoint_folder(trainer: Trainer, folder: str | None = None) -> Path:
    """Where a trainer's checkpoints are kept."""
    return Path(folder) if folder else Path(trainer.default_root_dir) / "checkpoints"
