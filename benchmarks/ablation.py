"""The number of codebooks at a constant 16,384 entries, trained with equal small budgets: the plot of its figures.

    python benchmarks/ablation.py    # after benchmarks/comparison.py has measured the four rows ablation-KxV

Four runs of `recipes/unitok/ablation_codebooks_{1,2,4,8}.yaml` that differ in nothing else. Published, for Large
tokenizers (UniTok, arXiv 2502.20321, Table 8): more codebooks rebuild better and understand better.
"""

import json
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot

RESULTS = Path(__file__).parent / "results"
BOOKS = (1, 2, 4, 8)
PANELS = {
    "PSNR, dB (500 ImageNet samples)": ("reconstruction-imagenet-samples", "psnr", 1),
    "zero-shot top-1, % (1,966 imagenette photos)": ("zero-shot-imagenette", "top1", 100),
    "codes in use, %": ("reconstruction-imagenet-samples", "codebook_usage", 100),
}


def main() -> None:
    figure, axes = pyplot.subplots(1, len(PANELS), figsize=(11, 3.4), layout="constrained")
    for axis, (title, (kind, name, scale)) in zip(axes, PANELS.items(), strict=True):
        found = [read(kind, books) for books in BOOKS]
        values = [scale * figures[name] for figures in found]
        axis.plot(range(len(BOOKS)), values, marker="o", color="#1f6f8b")
        if "top1_low" in found[0]:
            low, high = ([scale * figures[f"top1_{end}"] for figures in found] for end in ("low", "high"))
            axis.fill_between(range(len(BOOKS)), low, high, color="#1f6f8b", alpha=0.15)
        for place, value in enumerate(values):
            axis.annotate(f"{value:.1f}", (place, value), (0, 7), textcoords="offset points", ha="center", fontsize=9)
        axis.set_xticks(range(len(BOOKS)), [f"{books} x {16384 // books:,}" for books in BOOKS])
        axis.set_title(title, fontsize=10)
        axis.margins(0.12, 0.2)
        axis.grid(alpha=0.3)
    figure.supxlabel("codebooks x entries of each", fontsize=10)
    figure.savefig(RESULTS / "ablation_codebooks.png", dpi=110)


def read(kind: str, books: int) -> dict[str, Any]:
    path = RESULTS / f"{kind}-ablation-{books}x{16384 // books}.json"
    figures: dict[str, Any] = json.loads(path.read_text())["figures"]
    return figures


if __name__ == "__main__":
    main()
