"""How well the tiny language model names and draws held-out photos, and how fast its recipe trains.

OMP_NUM_THREADS=1 python benchmarks/mllm_tiny.py runs/mllm_tiny [--recipe YAML] [--eval RUN] [--classes CSV]
"""

import argparse
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from timing import RESULTS, write_result
from torchvision.utils import make_grid

from unitok import write_images
from unitok.bulk import TokenDataset
from unitok.decoders.sampling import Sampling
from unitok.mllm import VisualAssistant
from unitok.training.cli import TrainingCLI
from unitok.training.sources import read_class_names

SENTENCES = ["a photo of a church.", "a photo of a parachute.", "a photo of a golf ball.", "a photo of a tench.",
    "a photo of a garbage truck.", "a photo of a gas pump.", "A dog runs through the grass .",
    "Two children play in the snow ."]  # fmt: skip
COPIES = 3


class Clock(Callback):
    """Seconds that this process computed in training steps, after the first few."""

    def __init__(self, skipped: int) -> None:
        self.skipped, self.images, self.seconds, self.start = skipped, 0, 0.0, 0.0

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self.start = time.process_time()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step > self.skipped:
            self.seconds += time.process_time() - self.start
            self.images += len(batch.images)


def training_speed(recipe: str, steps: int, precision: str | None, skipped: int = 3) -> dict[str, float]:
    """Images per second of the recipe's own training steps, optimizer included, without validation."""
    clock = Clock(skipped)
    with tempfile.TemporaryDirectory() as folder:
        words = ["--config", "recipes/base/cpu.yaml", "--config", recipe, "--trainer.default_root_dir", folder]
        words += ["--trainer.max_steps", str(steps + skipped), "--trainer.limit_val_batches", "0"]
        words += ["--trainer.logger", "false", "--trainer.enable_progress_bar", "false"]
        words += ["--trainer.precision", precision] if precision else []
        cli = TrainingCLI(words, run=False)
        cli.trainer.callbacks.append(clock)
        cli.trainer.fit(cli.model, cli.datamodule)
    rate = clock.images / clock.seconds
    return {"images_per_second": round(rate, 1), "seconds_per_step": round(clock.seconds / steps, 3), "steps": steps}


def named(assistant: VisualAssistant, options: argparse.Namespace) -> dict[str, Any]:
    """How many held-out photos are given the name of their class, with some answers."""
    names, photos = read_class_names(options.classes), TokenDataset(options.eval)
    count = min(len(photos), options.limit)
    order = torch.randperm(len(photos), generator=torch.Generator().manual_seed(0))[:count].tolist()
    right: Counter[str] = Counter()
    seen: Counter[str] = Counter()
    examples = []
    for first in range(0, count, options.batch):
        samples = [photos[index] for index in order[first : first + options.batch]]
        answers = assistant.describe([sample.codes for sample in samples], max_new_tokens=24)
        for sample, answer in zip(samples, answers, strict=True):
            name = names[sample.row["metadata"]["label"]]
            seen[name] += 1
            right[name] += name.lower() in answer.lower()
            examples.append({"class": name, "answer": answer})
    return {
        "accuracy": round(right.total() / seen.total(), 4),
        "chance": round(1 / len(names), 3),
        "photos": seen.total(),
        "accuracy_of_class": {name: round(right[name] / seen[name], 3) for name in sorted(seen)},
        "answers": examples[:12],
    }


def drawn(assistant: VisualAssistant, options: argparse.Namespace) -> dict[str, Any]:
    """Pictures of sentences, a column for each."""
    sampling = Sampling(top_k=options.top_k, guidance=options.guidance)
    generator = torch.Generator().manual_seed(0)
    start = time.process_time()
    images = assistant.generate_images(SENTENCES * COPIES, sampling=sampling, generator=generator)
    seconds = time.process_time() - start
    picture = RESULTS / f"{options.name}_drawn.png"
    write_images(make_grid(images, len(SENTENCES))[None], [picture])
    return {
        "picture": picture.name,
        "columns": SENTENCES,
        "sampling": sampling._asdict(),
        "seconds_per_image": round(seconds / len(images), 3),
    }


def recognised(assistant: VisualAssistant, visual: Any, options: argparse.Namespace) -> dict[str, Any]:
    """How often the visual tokenizer itself, by its text tower, finds in a drawing the class that was asked for."""
    import open_clip

    names = list(read_class_names(options.classes).values())
    sentences = [f"a photo of a {name}." for name in names]
    texts = visual.encode_text(open_clip.tokenize(sentences), normalize=True)
    sampling = Sampling(top_k=options.top_k, guidance=options.guidance)
    generator = torch.Generator().manual_seed(1)
    right = {}
    for place, (name, sentence) in enumerate(zip(names, sentences, strict=True)):
        images = assistant.generate_images([sentence] * options.drawings, sampling=sampling, generator=generator)
        found = (visual.encode_image(images, normalize=True) @ texts.T).argmax(1)
        right[name] = round(float((found == place).float().mean()), 3)
    return {
        "accuracy": round(sum(right.values()) / len(right), 4),
        "drawings_of_a_class": options.drawings,
        "of_class": right,
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("run", type=Path)
    parser.add_argument("--name", default="mllm_tiny", help="of the result")
    parser.add_argument("--recipe", default="recipes/mllm/tiny.yaml")
    parser.add_argument("--eval", default="runs/codes/imagenette_eval")
    parser.add_argument("--classes", default="data/imagenette/classes.csv")
    parser.add_argument("--limit", type=int, default=10_000)
    parser.add_argument("--batch", type=int, default=50)
    parser.add_argument("--top-k", type=int, default=200)
    parser.add_argument("--guidance", type=float, default=3.0)
    parser.add_argument("--drawings", type=int, default=20, help="of each class, for the visual tokenizer to recognise")
    parser.add_argument("--speed-steps", type=int, default=20)
    parser.add_argument("--precision", help="of the training whose speed is taken; without it, the recipe's own")
    options = parser.parse_args()
    assistant = VisualAssistant.load(options.run / "language_model")
    kept = torch.load(options.run / "checkpoints" / "last.ckpt", weights_only=True, mmap=True)
    figures = {"steps": kept["global_step"], **named(assistant, options)}
    del kept
    visual = assistant.processor.visual
    if visual is not None and visual.decoder is not None:
        figures["drawn"] = drawn(assistant, options)
        figures["drawn"]["recognised"] = recognised(assistant, visual, options)
    figures["training"] = training_speed(options.recipe, options.speed_steps, options.precision)
    write_result(
        options.name,
        figures,
        data="imagenette eval, in no training run",
        protocol="the greedy answer to the trained question contains the class name, letter case aside; drawings are "
        "recognised by the visual tokenizer's own text tower; seconds are of this process, with its threads",
    )


if __name__ == "__main__":
    main()
