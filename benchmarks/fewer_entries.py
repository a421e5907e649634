"""A one-codebook pixel tokenizer with fewer entries, without training: k-means over the entries that photos use.

    python benchmarks/fewer_entries.py runs/ablation_codebooks_1/tokenizer --entries 1024 -o runs/pixels_tiny/tokenizer

A tiny autoregressive de-tokenizer learns to write one of 1,024 codes far sooner than one of 16,384, and each of its
steps costs less. Every entry counts as often as photos use it; the centres are the new entries.
"""

import argparse
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

import unitok
from unitok.losses.reconstruction import psnr
from unitok.models.unitok import unitok_tiny
from unitok.tokenizer import Tokenizer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tokenizer")
    parser.add_argument("--entries", type=int, default=1024)
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--photos", type=int, default=640, help="of imagenette/train, whose codes are counted")
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    whole = unitok.load_tokenizer(options.tokenizer)
    quantizer = whole.quantizer
    if whole.config is None or whole.config["tokenizer"] != "unitok_tiny" or quantizer.num_codebooks != 1:
        raise SystemExit(f"{options.tokenizer} is no unitok_tiny with one codebook")
    codes = whole.encode(photos(options.data / "imagenette/train", options.photos))
    counts = torch.bincount(codes.flatten(), minlength=quantizer.codebook_size).float()
    small = unitok_tiny(**{**whole.config["arguments"], "codebook_size": options.entries}).eval()
    small.load_state_dict({**whole.state_dict(), "quantizer.codebooks": centres(quantizer, counts, options.entries)})
    unitok.save_tokenizer(small, options.output)
    held_out = photos(options.data / "imagenette/eval", 96)
    for name, tokenizer in (("before", whole), ("after", small)):
        print(f"{name}: {report(tokenizer, held_out)}")


def photos(folder: Path, count: int) -> Tensor:
    """(count, 3, 128, 128), evenly spaced over the folder."""
    paths = sorted(folder.glob("*/*"))
    return unitok.read_images(paths[:: max(1, len(paths) // count)][:count], size=128)


def centres(quantizer: torch.nn.Module, counts: Tensor, entries: int, rounds: int = 15) -> Tensor:
    """Spherical k-means of the (1, V, C) unit entries, each as heavy as its count -> (1, entries, C)."""
    used = counts.nonzero()[:, 0]
    points, weights = quantizer.unit_codebooks[0][used].detach(), counts[used]
    if len(used) < entries:
        raise SystemExit(f"only {len(used)} entries are used by these photos, fewer than --entries {entries}")
    found = points[weights.topk(entries).indices]
    for _ in range(rounds):
        nearest = (points @ found.T).argmax(-1)
        sums = torch.zeros_like(found).index_add_(0, nearest, points * weights[:, None])
        found = torch.where(sums.any(-1, keepdim=True), F.normalize(sums, dim=-1), found)
    return found[None]


def report(tokenizer: Tokenizer, images: Tensor) -> str:
    codes = torch.cat([tokenizer.encode(part) for part in images.split(32)])
    decoded = torch.cat([tokenizer.decode(part) for part in codes.split(32)])
    size = tokenizer.quantizer.codebook_size
    return (
        f"{size} entries, {len(codes.unique())} used by {len(images)} held-out photos, {psnr(decoded, images):.2f} dB"
    )


if __name__ == "__main__":
    main()
