"""What the commands share: photos read one by one, the bad ones reported, and a tokenizer put where it shall run."""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor
from tqdm import tqdm

from unitok.hub import Parts, load_tokenizer
from unitok.images import find_images, load_image
from unitok.tokenizer import Tokenizer

Device = Literal["auto", "cpu", "cuda"]
Dtype = Literal["float32", "bfloat16"]


class Photos:
    """Photos of files and folders, in order; one that cannot be read is reported on stderr and passed over.

    Args:
        sources: files and folders.
        size: shorter side and centre square; None keeps each photo's own shape.
        multiple: with size=None, sides are cut to multiples of this.
        strict: raise at the first bad photo instead. A single photo is always strict.

    Raises:
        FileNotFoundError: no such file or folder.
        ValueError: a folder without images; none of several photos could be read.
    """

    def __init__(self, sources: Sequence[Path], size: int | None, multiple: int, strict: bool) -> None:
        self.paths = list(dict.fromkeys(find_images(sources)))
        self.size, self.multiple = size, multiple
        self.strict = strict or len(self.paths) == 1
        self.failed = 0

    def __iter__(self) -> Iterator[tuple[Path, Tensor]]:
        """(path, (3, H, W) uint8) of each photo that can be read, under a progress bar."""
        self.failed = 0
        for path in tqdm(self.paths, unit="photo", disable=None):
            try:
                photo = load_image(path, self.size, self.multiple)
            except (OSError, ValueError) as error:
                if self.strict:
                    raise
                self.failed += 1
                reason = str(error) if str(path) in str(error) else f"{path}: {error}"
                tqdm.write(f"skipped: {' '.join(reason.split())}", file=sys.stderr)
                continue
            yield path, photo
        if self.failed == len(self.paths):
            raise ValueError(f"none of the {self.failed} photos could be read")

    def batches(self, batch_size: int) -> Iterator[tuple[list[Path], Tensor]]:
        """(paths, (B, 3, H, W) float images) of photos of one shape, B at most `batch_size`.

        Raises:
            ValueError: batch_size below 1, or as iterating does.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size} must be at least 1")
        waiting: dict[torch.Size, list[tuple[Path, Tensor]]] = {}
        for path, photo in self:
            group = waiting.setdefault(photo.shape, [])
            group.append((path, photo))
            if len(group) == batch_size:
                yield _batch(waiting.pop(photo.shape))
        for group in waiting.values():
            yield _batch(group)

    @property
    def exit_code(self) -> int:
        """1 where a photo was passed over, else 0."""
        return int(self.failed > 0)


def load_on(tokenizer: str, parts: Parts, device: Device, dtype: Dtype) -> Tokenizer:
    """A tokenizer by name, on a device that exists.

    Raises:
        ValueError: CUDA was asked for and is not there, or as `load_tokenizer`.
        FileNotFoundError: as `load_tokenizer`.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda: this torch finds no CUDA device; use --device cpu or auto")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return load_tokenizer(tokenizer, parts=parts, device=device, dtype=getattr(torch, dtype))


def shape_wanted(tokenizer: Tokenizer, size: int | None, own_shape: bool) -> tuple[int | None, int]:
    """What `--size` and `--own-shape` ask for -> (size, multiple) of `load_image`.

    Raises:
        ValueError: both were given, or a size that the tokenizer cannot divide.
    """
    stride = getattr(tokenizer.encoder, "stride", None) or 1
    if own_shape and size is not None:
        raise ValueError(f"--own-shape and --size {size} exclude each other")
    if size is not None and (size < 1 or size % stride):
        raise ValueError(f"--size {size} must be a positive multiple of {stride}")
    return (None if own_shape else size or tokenizer.image_size), stride


def device_of(tokenizer: Tokenizer) -> torch.device:
    """Where a tokenizer's weights are."""
    return next(tokenizer.parameters()).device


def seeded(tokenizer: Tokenizer, seed: int) -> torch.Generator | None:
    """A generator for a generative decoder; None for a pixel decoder, which draws nothing."""
    if not getattr(tokenizer.decoder, "generative", False):
        return None
    return torch.Generator(device_of(tokenizer)).manual_seed(seed)


def _batch(group: list[tuple[Path, Tensor]]) -> tuple[list[Path], Tensor]:
    return [path for path, _ in group], torch.stack([photo for _, photo in group]).float().div_(255)
