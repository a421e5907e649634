"""How well the tiny language model names and draws held-out photos.

python benchmarks/mllm_tiny.py runs/mllm_tiny [--eval runs/codes/imagenette_eval] [--classes CSV]
"""

import argparse
from collections import Counter
from pathlib import Path

import torch
from timing import write_result
from torchvision.utils import make_grid

from unitok import write_images
from unitok.bulk import TokenDataset
from unitok.decoders.sampling import Sampling
from unitok.mllm import VisualAssistant
from unitok.training.sources import read_class_names

SENTENCES = ["a photo of a church.", "a photo of a parachute.", "a photo of a golf ball.", "a photo of a tench.",
    "A dog runs through the grass .", "Two children play in the snow .", "A man on a surfboard rides a wave .",
    "A brown dog jumps over a fence ."]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("run", type=Path)
    parser.add_argument("--eval", default="runs/codes/imagenette_eval")
    parser.add_argument("--classes", default="data/imagenette/classes.csv")
    parser.add_argument("--limit", type=int, default=10_000)
    parser.add_argument("--batch", type=int, default=50)
    parser.add_argument("--top-k", type=int, default=200)
    parser.add_argument("--guidance", type=float, default=3.0)
    options = parser.parse_args()
    assistant = VisualAssistant.load(options.run / "language_model")
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
    sampling = Sampling(top_k=options.top_k, guidance=options.guidance)
    drawn = assistant.generate_images(SENTENCES, sampling=sampling, generator=torch.Generator().manual_seed(0))
    picture = Path(__file__).parent / "results" / "mllm_tiny_drawn.png"
    write_images(make_grid(drawn, 4)[None], [picture])
    figures = {
        "accuracy": round(right.total() / seen.total(), 4),
        "chance": 0.1,
        "photos": seen.total(),
        "accuracy_of_class": {name: round(right[name] / seen[name], 3) for name in sorted(seen)},
        "answers": examples[:10],
        "drawn": {"picture": picture.name, "sentences": SENTENCES, "sampling": sampling._asdict()},
    }
    protocol = "the greedy answer to 'Describe the image.' contains the class name, letter case aside; held-out photos"
    write_result("mllm_tiny", figures, data="imagenette eval", protocol=protocol)


if __name__ == "__main__":
    main()
