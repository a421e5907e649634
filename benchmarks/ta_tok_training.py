"""A tiny TA-Tok trained with one budget over real word vectors, over a random codebook, and without the entropy term.

    OMP_NUM_THREADS=1 nohup nice -n 5 python benchmarks/ta_tok_training.py &

Runs recipes/ta_tok/tiny.yaml in runs/ta_tok_training/ARM and goes on where it was killed. `--arms words` and
`--arms random` can run side by side; each call that ends, and `--report`, writes what there is so far to
results/ta_tok_training.json and .png. `data` is a folder or a link to one, as the recipe says.
"""

import argparse
import csv
import json
from pathlib import Path
from typing import Any

import torch
from timing import RESULTS, write_result
from torch import Tensor
from torch.nn import functional as F

import unitok
from unitok.commands.codebook import codebook
from unitok.losses.alignment import to_grid
from unitok.losses.frozen import TimmNetwork
from unitok.training.cli import main as command

ROOT = Path(__file__).parents[1]
RUNS = Path("runs/ta_tok_training")
ARMS = {"words": "#1f6f8b", "random": "#c8553d", "words_no_entropy": "#8a8f3c"}  # and their colours
SCALES = (1, 2, 3)
SIZE, GRID = 96, 6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--every", type=int, default=100, help="steps between validations")
    parser.add_argument("--held-out", type=int, default=100, help="photos of imagenette/eval, evenly spaced")
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=list(ARMS))
    parser.add_argument("--report", action="store_true", help="train nothing")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for arm in () if options.report else options.arms:
        train(arm, options)
    report(options)


def train(arm: str, options: argparse.Namespace) -> None:
    folder = RUNS / arm
    folder.mkdir(parents=True, exist_ok=True)
    words, held_out = folder / "words.safetensors", folder / "held_out.jsonl"
    codebook(str(options.data / "weights/wordvecs/wordvecs1000.safetensors"), 1000, words)
    photos = held_out_photos(options)
    lines = [json.dumps({"image": str(photo.absolute()), "captions": ["a photo"]}) for photo in photos]
    held_out.write_text("\n".join(lines) + "\n")
    init = "--model.init_args"
    words_given = {
        f"{init}.codebook": "null" if arm == "random" else words,
        f"{init}.teacher.init_args.weights": options.data / "weights/mobilenetv2_100/model.safetensors",
        "--data.init_args.train": json.dumps([str(options.data / p) for p in ("imagenette/train", "flickr8k/images")]),
        "--data.init_args.validation": held_out,
        **({f"{init}.entropy_weight": 0} if arm == "words_no_entropy" else {}),
        "--trainer.max_steps": options.steps,
        "--trainer.val_check_interval": options.every,
        "--trainer.default_root_dir": folder,
        "--trainer.logger.class_path": "lightning.pytorch.loggers.CSVLogger",
        "--trainer.logger.init_args.save_dir": folder,
        "--trainer.enable_progress_bar": "false",
        "--last.every_n_steps": options.every,
    }
    recipes = [part for name in ("base/cpu", "ta_tok/tiny") for part in ("--config", ROOT / f"recipes/{name}.yaml")]
    line = [str(part) for part in (*recipes, *(part for pair in words_given.items() for part in pair))]
    last = folder / "checkpoints/last.ckpt"
    if not last.exists():
        call(["validate", *line])  # the figures at step 0
    call(["fit", *line, *(["--ckpt_path", "last"] if last.exists() else [])])


def call(line: list[str]) -> None:
    if command(line):
        raise SystemExit(1)


def report(options: argparse.Namespace) -> None:
    curves = {arm: found for arm in ARMS if (found := curve(arm))}
    figures: dict[str, Any] = {"constant": constant(options)}
    figures |= {arm: {"last": points[-1], "first": points[0], "curve": points} for arm, points in curves.items()}
    write_result(
        "ta_tok_training",
        figures,
        data="imagenette/train and flickr8k photos; held out: imagenette/eval, evenly spaced over its classes",
        protocol={
            "steps": options.steps,
            "held_out_photos": options.held_out,
            "recipe": "recipes/ta_tok/tiny.yaml",
            "what": "cosine: mean over cells of the cosine between MobileNetV2's features and the decoded features of "
            "the codes, by scale (36, 9 and 4 codes) and their mean; usage: share of the 1,000 codes met at least once "
            "among the held-out photos' codes; perplexity: exp of their entropy. All arms: embedding frozen, "
            "projection trained, equal steps, batches and seed; one run each. constant: the cosine of one answer for "
            "all photos, the teacher's mean feature over 512 training photos",
        },
    )
    plot(curves, figures["constant"]["cosine"])


@torch.no_grad()
def constant(options: argparse.Namespace) -> dict[str, float]:
    """What a tokenizer reaches that tells nothing of the photo: the mean feature, at every scale."""
    weights = options.data / "weights/mobilenetv2_100/model.safetensors"
    teacher = TimmNetwork("mobilenetv2_100", str(weights), {"pad_type": "same"}, 0.5, 0.5)

    def maps(paths: list[Path]) -> Tensor:
        parts = (unitok.read_images(paths[i : i + 64], size=SIZE) for i in range(0, len(paths), 64))
        return torch.cat([to_grid(teacher(part), (GRID, GRID)) for part in parts])

    train = sorted((options.data / "imagenette/train").glob("*/*"))
    mean = maps(train[:: len(train) // 512][:512]).mean((0, 1, 2))
    held_out = maps(held_out_photos(options)).permute(0, 3, 1, 2)
    pooled = (F.avg_pool2d(held_out, scale).permute(0, 2, 3, 1) for scale in SCALES)
    cosines = [F.cosine_similarity(wanted, mean, dim=-1).mean().item() for wanted in pooled]
    figures = {f"cosine_{scale}": round(value, 4) for scale, value in zip(SCALES, cosines, strict=True)}
    return {"cosine": round(sum(cosines) / len(cosines), 4), **figures}


def held_out_photos(options: argparse.Namespace) -> list[Path]:
    photos = sorted((options.data / "imagenette/eval").glob("*/*"))
    return photos[:: len(photos) // options.held_out][: options.held_out]


def curve(arm: str) -> list[dict[str, float]]:
    """The validations of an arm in order; where a step was validated twice, the last one."""
    points: dict[int, dict[str, float]] = {}
    versions = RUNS.glob(f"{arm}/lightning_logs/version_*/metrics.csv")
    for path in sorted(versions, key=lambda path: int(path.parent.name.split("_")[1])):
        with path.open() as file:
            for row in csv.DictReader(file):
                if row.get("val/cosine"):
                    figures = {k[4:]: round(float(v), 4) for k, v in row.items() if k.startswith("val/") and v}
                    step = int(row["step"]) + (int(row["step"]) > 0)
                    points[step] = {"step": step, **figures}
    return [points[step] for step in sorted(points)]


def plot(curves: dict[str, list[dict[str, Any]]], constant: float) -> None:
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, 2, figsize=(10, 4.8), layout="constrained")
    for arm, colour in ARMS.items():
        points = curves.get(arm, [])
        steps = [point["step"] for point in points]
        for scale, style in zip(SCALES, ("-", "--", ":"), strict=True):
            name = f"{arm}, scale {scale}"
            panels[0].plot(steps, [p[f"cosine_{scale}"] for p in points], style, color=colour, label=name)
            panels[1].plot(steps, [100 * p[f"usage_{scale}"] for p in points], style, color=colour, label=name)
    panels[0].axhline(constant, color="0.4", linewidth=1, label="one answer for all photos")
    panels[0].set_ylim(bottom=constant - 0.02)  # step 0 lies near 0
    for panel, title in zip(panels, ("held-out cosine to the teacher", "codes in use, % of 1,000"), strict=True):
        panel.set(title=title, xlabel="steps")
        panel.grid(alpha=0.3)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncol=4, fontsize=8)
    figure.savefig(RESULTS / "ta_tok_training.png", dpi=110)


if __name__ == "__main__":
    main()
