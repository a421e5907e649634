"""A small deterministic training run as a script, for tests that kill it or start it on two ranks.

python small_run.py FOLDER STEPS [--kill STEP] [--resume] [--ranks N] [--strategy NAME]

Writes FOLDER/losses.csv (a line per step, appended) and, at the first step, FOLDER/first.pt (terms and gradients).
"""

import argparse
import os
import signal
import warnings
from pathlib import Path
from typing import NamedTuple

import torch
from lightning.pytorch import Callback, LightningDataModule, Trainer, seed_everything
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor

from unitok.losses.discriminators import PatchDiscriminator
from unitok.models.unitok import tiny
from unitok.training.adversary import Adversary
from unitok.training.base_task import Optimization
from unitok.training.checkpoints import AtomicCheckpointIO, LastCheckpoint
from unitok.training.tokenizer_task import Codebooks, TokenizerTask, Weights

NAMES = ["quantizer", "contrastive", "l1", "l2", "discriminator"]


class Batch(NamedTuple):
    images: Tensor
    text_ids: Tensor


class Counting(LightningDataModule):
    """Batch i is a function of i; each rank has its part; the position is saved."""

    def __init__(self, size=4):
        super().__init__()
        self.size, self.position = size, 0

    def train_dataloader(self):
        return self

    def __len__(self):  # without it Lightning fetches one batch ahead, and the saved position is one too far
        return 1000

    def __iter__(self):
        rank, ranks = self.trainer.global_rank, self.trainer.world_size
        while True:
            generator = torch.Generator().manual_seed(self.position)
            self.position += 1
            images = torch.randint(0, 256, (self.size, 3, 8, 8), generator=generator, dtype=torch.uint8)
            text = torch.randint(1, 1000, (self.size, 77), generator=generator)
            text[:, 9] = 49407
            part = slice(rank * self.size // ranks, (rank + 1) * self.size // ranks)
            yield Batch(images.repeat_interleave(4, 2).repeat_interleave(4, 3)[part], text[part])

    def state_dict(self):
        return {"position": self.position}

    def load_state_dict(self, state):
        self.position = state["position"]


class Watch(Callback):
    def __init__(self, folder, kill):
        self.folder, self.kill = folder, kill

    def on_before_optimizer_step(self, trainer, task, optimizer):
        gradients = {n: p.grad for n, p in task.tokenizer.named_parameters() if p.grad is not None}
        if trainer.global_step == 0 and gradients:
            whole = {n: g.full_tensor() if hasattr(g, "full_tensor") else g for n, g in gradients.items()}
            if trainer.is_global_zero:
                torch.save(whole, self.folder / "gradients.pt")

    def on_train_batch_end(self, trainer, task, outputs, batch, batch_idx):
        found = trainer.callback_metrics
        line = [trainer.global_step, *(float(found.get(f"train/{name}", 0.0)).hex() for name in NAMES)]
        if trainer.is_global_zero:
            with open(self.folder / "losses.csv", "a") as file:
                file.write(",".join(map(str, line)) + "\n")
        if trainer.global_step == self.kill:
            os.kill(os.getpid(), signal.SIGKILL)


def build(adversarial=True, ema=0.9):
    torch.manual_seed(0)
    return TokenizerTask(
        tiny(),
        Weights(perceptual=0.0, adversarial=0.4 * adversarial, consistency=1.0),
        Optimization(lr=1e-3, warmup=0.2, clip=1e3, ema=ema),
        Adversary(start=0.25, warmup=0.2, blur=0.2, lr=1e-3),
        Codebooks(from_data=adversarial, restart=adversarial, window=3),
        discriminator=lambda: PatchDiscriminator(8, 1),
    )


def run(folder, steps, kill=-1, resume=False, ranks=1, strategy="auto", adversarial=True):
    warnings.simplefilter("ignore")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    seed_everything(1)
    if strategy == "sharded":
        strategy = ModelParallelStrategy(data_parallel_size=ranks, tensor_parallel_size=1, process_group_backend="gloo")
    plugins = [AtomicCheckpointIO()] if isinstance(strategy, str) else []
    trainer = Trainer(
        accelerator="cpu", devices=ranks, strategy=strategy, max_steps=steps, default_root_dir=folder, plugins=plugins,
        logger=False, enable_progress_bar=False, enable_model_summary=False,
        callbacks=[LastCheckpoint(4), Watch(folder, kill)],
    )  # fmt: skip
    checkpoint = str(folder / "checkpoints" / "last.ckpt") if resume else None
    trainer.fit(build(adversarial), datamodule=Counting(), ckpt_path=checkpoint)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("steps", type=int)
    parser.add_argument("--kill", type=int, default=-1)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--ranks", type=int, default=1)
    parser.add_argument("--strategy", default="auto")
    parser.add_argument("--plain", action="store_true")
    words = parser.parse_args()
    run(words.folder, words.steps, words.kill, words.resume, words.ranks, words.strategy, not words.plain)
