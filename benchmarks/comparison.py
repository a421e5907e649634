"""The comparison of the README: every tokenizer on the same photos under the same protocols, one JSON each.

    python benchmarks/comparison.py                      # all rows, resuming: rows whose JSON is there are kept
    python benchmarks/comparison.py --limit 20           # a quick try, into /results/try
    python benchmarks/comparison.py --rows jpeg webp     # some rows
    python benchmarks/comparison.py --again              # measure anew

Trained tokenizers are named on the command line: --tokenizer NAME=FOLDER, as often as there are. Pictures of the photos
stay out of the repository: grids are written with --pictures FOLDER only.
"""

import argparse
import time
from pathlib import Path

import torch

from unitok.evaluation.classes import read_classes
from unitok.evaluation.judges import open_judges
from unitok.evaluation.photos import find_photos
from unitok.evaluation.plots import Point, scatter
from unitok.evaluation.protocol import named_pipeline
from unitok.evaluation.ranks import Run, join
from unitok.evaluation.reconstruction import evaluate, save_pictures
from unitok.evaluation.report import print_report, read_report, write_report
from unitok.evaluation.rivals import open_model
from unitok.evaluation.zero_shot import classify
from unitok.tokenizer import Tokenizer

SHARED = Path(__file__).parents[2] / "shared" / "data"
WEIGHTS = SHARED / "weights"
RESULTS = Path(__file__).parent / "results"
ADAPTERS = Path(__file__).parent / "adapters"
PIXELS, CLASSES = SHARED / "imagenet_samples", SHARED / "imagenette" / "eval"  # what is measured on which photos
BUDGET = 0.375  # bits per pixel: 8 codes of 12 bits for each 16 x 16 pixels, as the trained tokenizers
ROWS = {
    "jpeg": f"jpeg@{BUDGET}",
    "webp": f"webp@{BUDGET}",
    "vqvae": f"{ADAPTERS / 'vqvae.py'}@{WEIGHTS / 'vqvae'}",
    "taef2": f"{ADAPTERS / 'taef2.py'}@{WEIGHTS / 'taef2'}",
    "jpeg-vqvae-bits": "jpeg@0.5625",
    "webp-vqvae-bits": "webp@0.5625",
}
MOBILENET = {"pad_type": "same", "pretrained_cfg_overlay": {"mean": [0.5] * 3, "std": [0.5] * 3}}


def main() -> None:
    args = parse()
    torch.manual_seed(0)
    ranks = join(args.device)
    run = Run(ranks, batch_size=args.batch_size, workers=args.workers)
    weights = WEIGHTS / "mobilenetv2_100" / "model.safetensors"
    judges = open_judges("mobilenetv2_100", weights, MOBILENET, "none", None, ranks.device)
    pipeline = named_pipeline("bicubic-256")
    trained = dict(pair.split("=", 1) for pair in args.tokenizer)
    folder = RESULTS / "try" if args.limit else RESULTS
    rows = {name: source for name, source in {**ROWS, **trained}.items() if not args.rows or name in args.rows}
    for name, source in rows.items():
        model = open_model(source, torch.float32, ranks.device)
        path = folder / f"reconstruction-imagenet-samples-{name}.json"
        if args.again or not path.is_file():
            photos, start = find_photos(PIXELS, args.limit), time.perf_counter()
            report, scores = evaluate(name, model, photos, pipeline, judges, run)
            report.about.update(seconds=round(time.perf_counter() - start, 1), command=command(name))
            if ranks.first:
                print_report(report)
                if args.pictures:
                    save_pictures(args.pictures / f"{path.stem}.png", model, photos, scores, pipeline, ranks.device)
                write_report(report, path)
        path = folder / f"zero-shot-imagenette-{name}.json"
        if isinstance(model, Tokenizer) and model.contrast is not None and (args.again or not path.is_file()):
            photos = find_photos(CLASSES, args.limit)
            classes = read_classes(photos, str(CLASSES.parent / "classes.csv"))
            report = classify(name, model, photos, classes, "openai-imagenet", pipeline, run)
            report.about["command"] = command(name)
            if ranks.first:
                print_report(report)
                write_report(report, path)
    if ranks.first and not args.limit:
        draw(sorted(RESULTS.glob("reconstruction-imagenet-samples-*.json")), "psnr", "PSNR in dB (higher is better)")
        draw(sorted(RESULTS.glob("zero-shot-imagenette-*.json")), "top1", "zero-shot top-1 of 1 (higher is better)")


def draw(paths: list[Path], figure: str, title: str) -> None:
    """The plot of one figure against bits per image, as an SVG beside the JSONs."""
    reports = [read_report(path) for path in paths]
    points = [Point(report.tokenizer, report.figures["bits_per_image"], report.figures[figure]) for report in reports]
    if points:
        (RESULTS / f"comparison-{figure}.svg").write_text(scatter(f"Bits and {figure}", title, points))


def command(name: str) -> str:
    """The line that makes this JSON again; folders of one machine stay out of it."""
    return f"python benchmarks/comparison.py --rows {name} --again"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokenizer", action="append", default=[], metavar="NAME=SOURCE")
    parser.add_argument("--rows", nargs="*")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--device")
    parser.add_argument("--pictures", type=Path)
    parser.add_argument("--again", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()
