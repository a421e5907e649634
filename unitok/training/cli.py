"""`unitok fit | validate | test`: Lightning's command line with this library's tasks, data and safe checkpoints."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningDataModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from unitok.training.base_task import BaseTask
from unitok.training.callbacks import ExportTokenizer, ReconstructionGrid, Speed
from unitok.training.checkpoints import LAST, AtomicCheckpointIO, LastCheckpoint


def main(argv: Sequence[str] | None = None) -> int:
    """Run `fit`, `validate` or `test` with recipes and options; 0, or 2 after one line that says what is wrong.

    Args:
        argv: the words after `unitok`: a subcommand, `--config recipe.yaml` as often as wanted, and options.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        TrainingCLI(args=words)
    except (ValueError, OSError, MisconfigurationException) as error:
        print(f"unitok {words[0] if words else ''}: {error}", file=sys.stderr)
        return 2
    return 0


class TrainingCLI(LightningCLI):
    """Task and data are chosen by the recipe; checkpoints, pictures, speed and export come with every run."""

    def __init__(self, args: list[str], run: bool = True) -> None:
        super().__init__(
            BaseTask,
            LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            save_config_kwargs={"overwrite": True},
            seed_everything_default=0,
            trainer_defaults={"default_root_dir": "runs/default", "max_epochs": -1, "log_every_n_steps": 10},
            parser_kwargs={"prog": "unitok"},
            args=args,
            run=run,
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """The callbacks of every run, each with its own settings."""
        parser.add_lightning_class_args(LastCheckpoint, "last")
        parser.add_lightning_class_args(ModelCheckpoint, "best")
        parser.add_lightning_class_args(ReconstructionGrid, "pictures")
        parser.add_lightning_class_args(Speed, "speed")
        parser.add_lightning_class_args(ExportTokenizer, "export")
        parser.set_defaults(
            {
                "best.filename": "best",
                "best.monitor": "val/psnr",
                "best.mode": "max",
                "best.save_on_train_epoch_end": False,
                "best.enable_version_counter": False,
            }
        )

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Read the given words alone."""
        self.config = parser.parse_args(args)

    def before_instantiate_classes(self) -> None:
        """One folder for a run, and `--ckpt_path last` for its last checkpoint.

        Raises:
            FileNotFoundError: the checkpoint to go on from is not there.
        """
        config = self.config[self.config.subcommand] if "subcommand" in self.config else self.config
        folder = Path(config.last.folder or Path(config.trainer.default_root_dir) / "checkpoints")
        if config.best.dirpath is None:
            config.best.dirpath = str(folder)
        chosen = config.get("ckpt_path")
        if chosen in ("last", "best"):
            chosen = config.ckpt_path = str(folder / (LAST if chosen == "last" else "best.ckpt"))
        if chosen and "://" not in chosen and not Path(chosen).exists():
            raise FileNotFoundError(f"no checkpoint at {chosen}; without --ckpt_path a run starts from scratch")

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Checkpoints are written atomically, unless the strategy writes them in shards by itself."""
        trainer = super().instantiate_trainer(**kwargs)
        if not hasattr(trainer.strategy, "_fsdp_kwargs") and type(trainer.strategy).__name__ != "ModelParallelStrategy":
            trainer.strategy.checkpoint_io = AtomicCheckpointIO()
        return trainer
