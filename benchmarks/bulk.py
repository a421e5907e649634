"""`unitok tokenize` against the plain way: pictures per core, what packing costs, storage, memory.

python benchmarks/bulk.py [images] [run] [storage] [memory]: each part writes results/bulk_<part>.json.
"""

import io
import os
import resource
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import skimage.data
import torch
from PIL import Image
from timing import interleave, write_result
from torch import Tensor, nn
from torchvision import transforms

from unitok.bulk import TokenDataset, tokenize
from unitok.bulk.encoding import Encoder
from unitok.bulk.ledger import Ledger
from unitok.bulk.packing import pack, unpack
from unitok.bulk.shards import ShardDraft
from unitok.bulk.views import photo_views
from unitok.models.unitok import unitok_tiny
from unitok.tokenizer import Tokenizer


def jpegs(width: int, height: int, count: int) -> list[bytes]:
    """JPEGs of scikit-image's sample photos, resized and shifted so that no two are alike."""
    photos = [getattr(skimage.data, name)() for name in ("astronaut", "coffee", "chelsea", "rocket")]
    files = []
    for number in range(count):
        photo = Image.fromarray(np.roll(photos[number % len(photos)], number, axis=1))
        buffer = io.BytesIO()
        photo.resize((width, height), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=92)
        files.append(buffer.getvalue())
    return files


def write_tars(folder: Path, files: list[bytes], tars: int, each: int) -> list[str]:
    paths = []
    for number in range(tars):
        path = folder / f"{number:04}.tar"
        with tarfile.open(path, "w") as tar:
            for place in range(each):
                data = files[(number * each + place) % len(files)]
                member = tarfile.TarInfo(f"{number * each + place:08}.jpg")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
        paths.append(str(path))
    return paths


def cpu_seconds(variants: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Median CPU seconds of this process, interleaved: other work on the machine counts for nothing."""
    spent: dict[str, list[float]] = {name: [] for name in variants}

    def timed(name: str) -> Callable[[], None]:
        def run() -> None:
            start = time.process_time()
            variants[name]()
            spent[name].append(time.process_time() - start)

        return run

    interleave({name: timed(name) for name in variants}, repeats)
    return {name: sorted(values[1:])[len(values[1:]) // 2] for name, values in spent.items()}


def images() -> None:
    """One thread: the bytes of a 500 x 375 JPEG -> what goes to the device."""
    files = jpegs(500, 375, 32)
    plain = transforms.Compose(
        [
            transforms.Resize(256, transforms.InterpolationMode.BICUBIC),
            transforms.CenterCrop(256),
            transforms.ToTensor(),
            transforms.Normalize([0.5] * 3, [0.5] * 3),
        ]
    )

    def by_hand() -> None:
        for data in files:
            plain(Image.open(io.BytesIO(data)).convert("RGB"))

    def ours() -> None:
        for data in files:
            photo_views(data, 256, 16, "none")

    def ours_without_extra() -> None:
        simplejpeg = sys.modules["simplejpeg"]
        sys.modules["simplejpeg"] = None  # type: ignore[assignment]
        ours()
        sys.modules["simplejpeg"] = simplejpeg

    ours()  # imports simplejpeg
    seconds = cpu_seconds({"plain": by_hand, "pillow": ours_without_extra, "fast": ours}, repeats=9)
    figures = {
        "plain_images_per_cpu_second": len(files) / seconds["plain"],
        "ratio_without_extras": seconds["plain"] / seconds["pillow"],
        "ratio_with_fast": seconds["plain"] / seconds["fast"],
    }
    protocol = "CPU seconds, 1 thread; plain = PIL + torchvision Resize(256, bicubic), CenterCrop, ToTensor, Normalize"
    write_result("bulk_images", figures, data="scikit-image photos as 500 x 375 JPEG, quality 92", protocol=protocol)


def run() -> None:
    """Whole runs with unitok_tiny on this machine, and where their time goes."""
    tokenizer, count, batch = unitok_tiny().eval(), 128, 16
    inside = {"seconds": 0.0}
    for owner, name in ((ShardDraft, "add"), (ShardDraft, "finish"), (Ledger, "commit")):
        setattr(owner, name, _counted(getattr(owner, name), inside))
    with tempfile.TemporaryDirectory() as folder:
        inputs = write_tars(Path(folder), jpegs(500, 375, 32), tars=1, each=count)
        photos = [photo_views(data, 256, 16, "none").views[0].pixels for data in jpegs(500, 375, 32)]
        batches = [np.stack([photos[(i + j) % 32] for j in range(batch)]) for i in range(0, count, batch)]
        encoder, turn = Encoder(tokenizer), [0]

        def model() -> None:
            for pixels in batches:
                encoder(pixels)

        def whole() -> None:
            turn[0] += 1
            tokenize(inputs, f"{folder}/out{turn[0]}", tokenizer, batch_size=batch, device="cpu")

        start = time.perf_counter()
        seconds = interleave({"model": model, "whole": whole}, repeats=5)
        cpu = cpu_seconds({"model": model, "whole": whole}, repeats=3)
        share = inside["seconds"] / turn[0] / seconds["whole"]
    figures = {
        "model_images_per_second": count / seconds["model"],
        "whole_over_model_wall": seconds["whole"] / seconds["model"],
        "whole_over_model_cpu": cpu["whole"] / cpu["model"],
        "packing_and_writing_share_of_wall": share,
        "seconds_of_the_benchmark": time.perf_counter() - start,
    }
    protocol = (
        f"{count} images of 500 x 375 in a tar, batches of {batch}, float32; whole: from JPEG bytes to the manifest"
    )
    write_result("bulk_run", figures, data="scikit-image photos", protocol=protocol, tokenizer="unitok_tiny, untrained")


def _counted(function: Callable[..., Any], total: dict[str, float]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        try:
            return function(*args, **kwargs)
        finally:
            total["seconds"] += time.perf_counter() - start

    return call


class _Stub(nn.Module):
    """Stands where an encoder and a quantizer stand: (B, 3, 64, 64) -> (B, 8, 16, 16) codes of 12 bits, for nothing."""

    num_codebooks, codebook_size, stride = 8, 4096, 4

    def __init__(self) -> None:
        super().__init__()
        self.register_parameter("weight", nn.Parameter(torch.zeros(1)))

    def forward(self, images: Tensor) -> Tensor:
        return nn.functional.avg_pool2d(images, 4).permute(0, 2, 3, 1)

    def quantize(self, latents: Tensor) -> Tensor:
        values = (latents.sum(-1) * 1e4).long()
        return torch.stack([(values * (2 * k + 1)) % 4096 for k in range(8)], dim=1)


def stub_tokenizer() -> Tokenizer:
    return Tokenizer(_Stub(), nn.Identity(), _Stub(), nn.Identity(), None, image_size=64)


def storage() -> None:
    """Codes of 8 x 16 x 16 of 12 bits: packed shards against one int64 .npy per image."""
    count = 4096
    codes = np.random.default_rng(0).integers(0, 4096, (count, 8, 16, 16))
    flat = codes.transpose(0, 2, 3, 1).reshape(count, -1).astype(np.int32)
    packed = pack(flat, 12)
    packing = cpu_seconds({"pack": lambda: pack(flat, 12), "unpack": lambda: unpack(packed, 2048, 12)}, repeats=7)
    with tempfile.TemporaryDirectory() as folder:
        inputs = write_tars(Path(folder), jpegs(64, 64, 256), tars=4, each=count // 4)
        tokenize(inputs, f"{folder}/out", stub_tokenizer(), device="cpu", batch_size=256)
        dataset = TokenDataset(f"{folder}/out")
        found = dataset.codes(slice(None)).numpy()
        with tarfile.open(f"{folder}/npy.tar", "w") as tar:
            for number, one in enumerate(found):
                buffer = io.BytesIO()
                np.save(buffer, one)
                member = tarfile.TarInfo(f"{number:08}.npy")
                member.size = buffer.tell()
                buffer.seek(0)
                tar.addfile(member, buffer)
        npy = len(_npy(found[0]))
        shard = dataset.manifest["shards"][0]["codes"]["bytes"]
        order = np.random.default_rng(0).permutation(count).tolist()
        reads = {
            "tar": lambda: _read_tar(f"{folder}/npy.tar"),
            "batches": lambda: [TokenDataset(f"{folder}/out").codes(range(i, i + 256)) for i in range(0, count, 256)],
            "random": lambda: [dataset.codes(order[i : i + 256]) for i in range(0, count, 256)],
            "samples": lambda: [dataset[i : i + 256] for i in range(0, count, 256)],
            "one_by_one": lambda: [dataset[i] for i in order],
        }
        seconds = cpu_seconds(reads, repeats=7)
    figures = {
        "pack_images_per_cpu_second": count / packing["pack"],
        "unpack_images_per_cpu_second": count / packing["unpack"],
        "packed_bytes_per_image": packed.shape[1],
        "shard_bytes_per_image": shard / (count // 4),
        "npy_over_packed_size": npy / (shard / (count // 4)),
        "tar_of_npy_images_per_cpu_second": count / seconds["tar"],
        **{f"tar_of_npy_over_{name}_time": seconds["tar"] / seconds[name] for name in reads if name != "tar"},
    }
    protocol = (
        "CPU seconds; tar = tarfile + numpy.load of int64; batches, random = TokenDataset.codes, 256 images at a time, "
        "checksums looked at; samples = with metadata; one_by_one = random single images with metadata"
    )
    write_result("bulk_storage", figures, data="synthetic", protocol=protocol)


def _npy(array: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def _read_tar(path: str) -> list[Any]:
    with tarfile.open(path) as tar:
        return [np.load(io.BytesIO(tar.extractfile(member).read())) for member in tar]  # type: ignore[union-attr]


def memory() -> None:
    """Peak resident memory of runs of 1,000 and of 100,000 images, each in a process of its own."""
    figures = {}
    with tempfile.TemporaryDirectory() as folder:
        write_tars(Path(folder), jpegs(64, 64, 256), tars=100, each=1000)
        for tars in (1, 10, 100):
            words = [sys.executable, __file__, "one", f"{folder}/{{0000..{tars - 1:04}}}.tar", f"{folder}/out{tars}"]
            output = subprocess.run(words, capture_output=True, text=True, check=True, env=os.environ).stdout
            peak, seconds = map(float, output.split())
            figures |= {f"peak_mb_{tars}k": peak, f"images_per_second_{tars}k": 1000 * tars / seconds}
    figures["peak_ratio"] = figures["peak_mb_100k"] / figures["peak_mb_1k"]
    protocol = (
        "tars of 1,000 pictures of 64 px; a stub encoder that gives codes of UniTok's size, so that it ends in minutes"
    )
    write_result("bulk_memory", figures, data="synthetic", protocol=protocol)


def one(inputs: str, output: str) -> None:
    start = time.perf_counter()
    tokenize([inputs], output, stub_tokenizer(), device="cpu", batch_size=64)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, time.perf_counter() - start)


PARTS = {"images": images, "run": run, "storage": storage, "memory": memory}

if __name__ == "__main__":
    if sys.argv[1:2] == ["one"]:
        one(*sys.argv[2:])
    else:
        for part in sys.argv[1:] or PARTS:
            PARTS[part]()
