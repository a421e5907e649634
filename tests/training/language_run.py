"""A small deterministic training of a language model as a script: in one process, or sharded over two.

python language_run.py FOLDER [--ranks N]

Writes FOLDER/gradients.pt at the first step, and FOLDER/language_model at the end.
"""

import argparse
import warnings
from pathlib import Path

import torch
from lightning.pytorch import Callback, Trainer, seed_everything
from lightning.pytorch.strategies import ModelParallelStrategy
from torch.utils.data import DataLoader, Dataset

from tests.training.test_language_task import CODES, assistant
from unitok.training.base_task import Optimization
from unitok.training.language_data import Conversations
from unitok.training.language_task import LanguageTask


class Halves(Dataset):
    """Batches of two drawings and two descriptions; a rank of two has one of each."""

    def __init__(self, made, ranks):
        self.made, self.ranks = made, ranks

    def __len__(self):
        return 100

    def __getitem__(self, index):
        rank = torch.distributed.get_rank() if self.ranks > 1 else 0
        pairs = list(zip(["ab", "yz"], CODES, strict=True))[rank :: self.ranks]
        talk = [self.made.drawing(text, codes) for text, codes in pairs]
        return Conversations(talk + [self.made.describing(codes, text) for text, codes in pairs])


class Watch(Callback):
    def __init__(self, folder):
        self.folder = folder

    def on_before_optimizer_step(self, trainer, task, optimizer):
        gradients = {n: p.grad for n, p in task.model.named_parameters() if p.grad is not None}
        whole = {n: g.full_tensor() if hasattr(g, "full_tensor") else g for n, g in gradients.items()}
        if trainer.global_step == 0 and trainer.is_global_zero:
            sharded = sum(hasattr(gradient, "full_tensor") for gradient in gradients.values())
            torch.save({"whole": whole, "sharded": sharded}, self.folder / "gradients.pt")


def run(folder, ranks):
    warnings.simplefilter("ignore")
    folder.mkdir(parents=True, exist_ok=True)
    seed_everything(1)
    strategy = "auto"
    if ranks > 1:
        strategy = ModelParallelStrategy(data_parallel_size=ranks, tensor_parallel_size=1, process_group_backend="gloo")
    trainer = Trainer(
        accelerator="cpu", devices=ranks, strategy=strategy, max_steps=2, default_root_dir=folder, logger=False,
        enable_progress_bar=False, enable_model_summary=False, callbacks=[Watch(folder)], use_distributed_sampler=False,
        enable_checkpointing=False,
    )  # fmt: skip
    made = assistant()
    task = LanguageTask(made, Optimization(lr=1e-3, warmup=0.0, clip=1e3, ema=0.5))
    trainer.fit(task, DataLoader(Halves(made, ranks), batch_size=None))
    trainer.save_checkpoint(folder / "last.ckpt")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--ranks", type=int, default=1)
    words = parser.parse_args()
    run(words.folder, words.ranks)
