"""What evaluation costs: the Fréchet distance without sqrtm, streaming against a folder of PNGs, memory by image count.

    python benchmarks/evaluation.py                  # all three; the sqrtm of scipy alone takes a minute or more
    python benchmarks/evaluation.py memory streaming # some

CPU seconds stand beside wall seconds, as they mean something on a busy machine too. The streaming figure is about the
route alone: tokenizer and feature network are cheap stand-ins (half resolution; 8 x 8 pooled pixels), so decoding and
encoding of files is all that is left. Data: scikit-image's astronaut, shifted, so that the figure needs no data set.
"""

import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import scipy.linalg
import skimage.data
import torch
from PIL import Image
from timing import write_result
from torch import Tensor
from torch.nn import functional as F

from unitok.evaluation.judges import FeatureNetwork, Judges
from unitok.evaluation.photos import Photo, batches, find_photos
from unitok.evaluation.protocol import Pipeline
from unitok.evaluation.ranks import Run, join
from unitok.evaluation.reconstruction import evaluate
from unitok.evaluation.tally import round_trip
from unitok.metrics.frechet import FeatureStatistics, Gaussian, frechet_distance

NETWORK = FeatureNetwork(
    "pool", "rFD-pool", 192, "", lambda images: F.adaptive_avg_pool2d(images.float(), 8).flatten(1)
)


class Half:
    """A stand-in that costs nothing: half the resolution and back."""

    image_size = 256

    def encode(self, images: Tensor) -> Tensor:
        return F.avg_pool2d(images, 2)

    def decode(self, stored: Tensor) -> Tensor:
        return F.interpolate(stored, scale_factor=2)

    def bits(self, stored: Tensor) -> list[float]:
        return [8.0 * stored[0].numel()] * len(stored)


def measured(run: Callable[[], float]) -> tuple[float, dict[str, float]]:
    """A function's value, with its wall and CPU seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    value = run()
    return value, {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}


def interleaved(routes: dict[str, Callable[[], float]], repeats: int) -> dict[str, tuple[float, dict[str, float]]]:
    """Each route's value and median seconds, run A B C A B C ..."""
    turns = [{route: measured(run) for route, run in routes.items()} for _ in range(repeats)]
    return {
        route: (
            turns[0][route][0],
            {unit: float(np.median([turn[route][1][unit] for turn in turns])) for unit in ("wall_s", "cpu_s")},
        )
        for route in routes
    }


def frechet(dim: int = 2048) -> dict[str, object]:
    """Cholesky and eigvalsh against scipy's sqrtm, at full rank and with fewer samples than dimensions."""
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(dim, dim, generator=generator, dtype=torch.float64) / dim**0.5

    def gaussian(samples: int, mix: bool) -> Gaussian:
        features = torch.randn(samples, dim, generator=generator, dtype=torch.float64)
        statistics = FeatureStatistics(dim)
        statistics.update(features @ mixing + 0.1 if mix else features)
        return statistics.compute()

    def by_sqrtm(first: Gaussian, second: Gaussian) -> float:
        root = scipy.linalg.sqrtm(first.covariance.numpy() @ second.covariance.numpy())
        traces = first.covariance.trace() + second.covariance.trace()
        return float((first.mean - second.mean).square().sum() + traces - 2 * np.trace(root.real))

    first, second = gaussian(5000, False), gaussian(5000, True)
    few = gaussian(1000, False)
    routes = {
        "cholesky": lambda: frechet_distance(first, second),
        "rank_deficient": lambda: frechet_distance(few, second),
        "sqrtm": lambda: by_sqrtm(first, second),
    }
    (ours, our_time), (deficient, deficient_time), (theirs, their_time) = interleaved(routes, 3).values()
    swapped = frechet_distance(second, few)
    return {
        "dim": dim,
        "cholesky": {"distance": ours, **our_time},
        "sqrtm": {"distance": theirs, **their_time},
        "speedup_wall": their_time["wall_s"] / our_time["wall_s"],
        "speedup_cpu": their_time["cpu_s"] / our_time["cpu_s"],
        "relative_difference": abs(ours - theirs) / theirs,
        "rank_deficient": {
            "distance": deficient,
            "relative_asymmetry": abs(deficient - swapped) / swapped,
            **deficient_time,
        },
    }


def photos(folder: Path, count: int, side: int) -> list[Photo]:
    """Different squares of one photo as PNGs."""
    whole = Image.fromarray(skimage.data.astronaut())
    for index in range(count):
        left, top = 7 * index % (512 - side), 13 * index % (512 - side)
        whole.crop((left, top, left + side, top + side)).save(folder / f"{index:05}.png")
    return find_photos(folder)


def streaming(count: int = 200) -> dict[str, object]:
    """Reconstruct a folder and compare the two: through memory, and through PNGs as the reference does."""
    run, model, pipeline = Run(join("cpu"), batch_size=20), Half(), Pipeline(None, "none", 256)
    with tempfile.TemporaryDirectory() as name:
        source, copies = Path(name) / "source", Path(name) / "copies"
        source.mkdir()
        copies.mkdir()
        found = photos(source, count, 256)

        def distance(originals: FeatureStatistics, reconstructions: FeatureStatistics) -> float:
            return frechet_distance(originals.compute(), reconstructions.compute())

        def through_memory() -> float:
            originals, reconstructions = FeatureStatistics(192), FeatureStatistics(192)
            for batch in batches(found, pipeline, run):
                originals.update(NETWORK.features(batch.images))
                reconstructions.update(NETWORK.features(round_trip(model, batch.images)[0]))
            return distance(originals, reconstructions)

        def through_files() -> float:
            for batch in batches(found, pipeline, run):
                for index, copy in zip(batch.indices, round_trip(model, batch.images)[0], strict=True):
                    Image.fromarray(copy.permute(1, 2, 0).numpy()).save(copies / f"{index:05}.png")
            originals, reconstructions = FeatureStatistics(192), FeatureStatistics(192)
            for statistics, folder in ((originals, found), (reconstructions, find_photos(copies))):
                for batch in batches(folder, pipeline, run):
                    statistics.update(NETWORK.features(batch.images))
            return distance(originals, reconstructions)

        routes = {"memory": through_memory, "files": through_files}
        found_by = interleaved(routes, 3)
    (memory, memory_time), (files, files_time) = found_by["memory"], found_by["files"]
    return {
        "images": count,
        "memory": {"distance": memory, **memory_time},
        "files": {"distance": files, **files_time},
        "speedup_wall": files_time["wall_s"] / memory_time["wall_s"],
        "speedup_cpu": files_time["cpu_s"] / memory_time["cpu_s"],
        "difference": abs(memory - files),
    }


def memory() -> dict[str, object]:
    """Peak memory of the process after 1,000 images, and after 10,000 more; the same files again and again."""
    run, judges = Run(join("cpu"), batch_size=50), Judges(NETWORK, None, {})
    peaks = {}
    with tempfile.TemporaryDirectory() as name:
        found = photos(Path(name), 50, 64)
        for count in (1000, 10000):
            many = (found * (count // len(found)))[:count]
            evaluate("half", Half(), many, Pipeline(None, "none", 64), judges, run, cache=Path(name) / str(count))
            peaks[f"peak_mb_after_{count}"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    return {**peaks, "growth_mb": peaks["peak_mb_after_10000"] - peaks["peak_mb_after_1000"]}


if __name__ == "__main__":
    parts = {"memory": memory, "streaming": streaming, "frechet": frechet}
    for part in sys.argv[1:] or parts:
        write_result(f"evaluation-{part}", parts[part](), data="synthetic; skimage.data.astronaut")
