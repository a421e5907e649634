"""Images per second and core: unitok's training loader against PIL with torchvision's transforms, in batches of 32.

Both read the same files, take a random crop of the same distribution and stack batches in one process with one thread;
torchvision's side ends in normalised floats, unitok's in uint8. Times are process time, so a busy machine counts less.

    python benchmarks/data_loading.py [folder of photos ...]
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"

import statistics
import sys
import tempfile
import time
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from skimage import data as photos
from timing import write_result
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from torchvision.transforms import functional

from unitok.training import crops
from unitok.training.loader import Reader
from unitok.training.pairs import PairDataset, PairFeed
from unitok.training.sources import read_pairs

RATIO, BATCH, REPEATS = (3 / 4, 4 / 3), 32, 7
SIMPLEJPEG = crops.decode_jpeg


class Plain(Dataset[torch.Tensor]):
    """What most training scripts do."""

    def __init__(self, files: list[str], size: int, scale: tuple[float, float]) -> None:
        self.files = files
        self.transform = transforms.Compose(
            [
                transforms.RandomResizedCrop(size, scale, RATIO, transforms.InterpolationMode.BICUBIC),
                transforms.ToTensor(),
                transforms.Normalize([0.5] * 3, [0.5] * 3),
            ]
        )

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> torch.Tensor:
        with Image.open(self.files[index]) as image:
            tensor: torch.Tensor = self.transform(image.convert("RGB"))
        return tensor


def feed(folder: str, size: int, scale: tuple[float, float]) -> PairFeed:
    crop = partial(crops.training_crop, size=size, scale=scale, ratio=RATIO, flip=False)
    pairs = read_pairs(folder, ["{}"])[:128]
    return PairFeed(PairDataset(pairs, Reader(crop, None, 0)), [(len(pairs), len(pairs))], BATCH)


def seconds(batches: Iterable[Any]) -> float:
    start = time.process_time()
    for _ in batches:
        pass
    return time.process_time() - start


def difference(files: list[str], size: int, scale: tuple[float, float]) -> float:
    """Mean difference in grey levels where both take the same box."""
    levels = []
    for seed, file in enumerate(files):
        ours = crops.training_crop(Path(file).read_bytes(), np.random.default_rng(seed), size, scale, RATIO, False)
        image = Image.open(file).convert("RGB")
        left, top, right, bottom = crops.random_box(*image.size, np.random.default_rng(seed), scale, RATIO)
        bicubic = transforms.InterpolationMode.BICUBIC
        theirs = functional.resized_crop(image, top, left, bottom - top, right - left, [size, size], bicubic)
        levels.append(np.abs(ours.numpy().astype(int) - np.asarray(theirs).transpose(2, 0, 1)).mean())
    return float(np.mean(levels))


def measure(folder: str, size: int, scale: tuple[float, float]) -> dict[str, Any]:
    loader = feed(folder, size, scale)
    files = [pair.image for pair in loader.dataset.pairs]
    times: dict[str, list[float]] = {"plain": [], "unitok without simplejpeg": [], "unitok": []}
    for turn in range(REPEATS + 1):
        for name, values in times.items():
            crops.decode_jpeg = None if name == "unitok without simplejpeg" else SIMPLEJPEG
            batches = DataLoader(Plain(files, size, scale), BATCH) if name == "plain" else loader.batches(turn, 0)
            used = seconds(batches)
            if turn:
                values.append(used / (len(files) // BATCH * BATCH))
    median = {name: statistics.median(values) for name, values in times.items()}
    return {
        "images_per_second_and_core": {name: round(1 / value) for name, value in median.items()},
        "times_as_fast": {name: round(median["plain"] / value, 2) for name, value in median.items()},
        "mean_difference_in_grey_levels": round(difference(files[:32], size, scale), 4),
        "images": len(files),
    }


def write_photos(folder: Path, width: int, height: int) -> str:
    folder.mkdir(parents=True)
    names = ("astronaut", "coffee", "chelsea", "rocket")
    for number in range(64):
        image = Image.fromarray(getattr(photos, names[number % 4])()).resize((width, height), Image.Resampling.LANCZOS)
        image.save(folder / f"{number:02d}.jpg", quality=90)
    return str(folder)


def main() -> None:
    torch.set_num_threads(1)
    figures = {}
    with tempfile.TemporaryDirectory() as place:
        for width, height in ((500, 375), (1280, 960)):
            folder = write_photos(Path(place, f"{width}"), width, height)
            for size, scale in ((256, (0.9, 1.0)), (128, (0.3, 1.0))):
                figures[f"{width}x{height} to {size}, scale {scale}"] = measure(folder, size, scale)
    for folder in sys.argv[1:]:
        figures[f"{Path(folder).parent.name}/{Path(folder).name} to 128, scale (0.3, 1.0)"] = measure(
            folder, 128, (0.3, 1.0)
        )
    write_result(
        "data_loading",
        figures,
        data="64 JPEGs of quality 90 made from scikit-image's sample photos; 128 photos of each folder given",
        protocol=f"median process time of {REPEATS} epochs, variants interleaved, one process, one thread, no text",
    )


if __name__ == "__main__":
    main()
