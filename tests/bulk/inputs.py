"""Inputs that tests make: noise pictures, tars of them, a tokenizer that is always the same."""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from unitok.models.unitok import tiny
from unitok.tokenizer import Tokenizer


def tiny_tokenizer(seed: int = 0) -> Tokenizer:
    torch.manual_seed(seed)
    return tiny().eval()


def picture(number: int, width: int = 80, height: int = 64, kind: str = "JPEG") -> bytes:
    """An image file whose pixels are a function of its number."""
    coarse = np.random.default_rng(number).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).save(buffer, kind)
    return buffer.getvalue()


def write_tar(path: Path, samples: dict[str, dict[str, bytes]]) -> Path:
    """{key: {ending: bytes}} -> a tar, each member of each sample in order."""
    with tarfile.open(path, "w") as tar:
        for key, files in samples.items():
            for ending, data in files.items():
                member = tarfile.TarInfo(f"{key}.{ending}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    return path


def write_tars(folder: Path, tars: int, images: int, broken: bool = True) -> list[str]:
    """Tars of different pictures with captions; in each, one image that is none."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number in range(tars):
        first = number * images
        samples = {
            f"{i:05}": {"jpg": picture(i), "txt": f"picture {i}".encode(), "json": json.dumps({"number": i}).encode()}
            for i in range(first, first + images)
        }
        if broken:
            samples[f"{first + 1:05}"]["jpg"] = b"not a picture"
        paths.append(str(write_tar(folder / f"{number:03}.tar", samples)))
    return paths


def snapshot(folder: Path) -> dict[str, bytes]:
    """Every file in a folder, hidden ones too."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
