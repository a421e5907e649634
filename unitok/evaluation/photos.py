"""The photos of an evaluation: found in folders or tar shards, hashed by content, read in this rank's share."""

import hashlib
import io
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from unitok.evaluation.protocol import Pipeline
from unitok.evaluation.ranks import Ranks, Run
from unitok.images import SUFFIXES, find_images


class Photo(NamedTuple):
    """Where the bytes of one photo lie.

    Attributes:
        name: for people: path below the folder, or member of the shard.
        path: the file, or the tar that holds it.
        offset: of the bytes in the tar; 0 for a file.
        size: number of bytes; -1 for the whole file.
    """

    name: str
    path: Path
    offset: int = 0
    size: int = -1

    def read(self) -> bytes:
        """The photo's bytes."""
        with open(self.path, "rb") as file:
            file.seek(self.offset)
            return file.read(self.size)

    def open(self) -> Image.Image:
        """The decoded photo.

        Raises:
            OSError: empty or broken.
        """
        data = self.read()
        if not data:
            raise OSError("empty (0 bytes)")
        try:
            image = Image.open(io.BytesIO(data))
            image.load()
        except UnidentifiedImageError as error:
            raise OSError("not an image that Pillow can read") from error  # Pillow's own words hold a memory address
        except (Image.DecompressionBombError, SyntaxError, ValueError) as error:
            raise OSError(str(error)) from error
        return image


def find_photos(data: str | Path, limit: int | None = None) -> list[Photo]:
    """A folder of images (at any depth), of tar shards, or one tar -> its photos, sorted by name.

    Args:
        data: the folder or the tar.
        limit: keep this many, evenly spaced over the sorted names so that all classes have their share.

    Raises:
        FileNotFoundError: no such path.
        ValueError: no photo there; a limit below 1.
    """
    root = Path(data)
    if not root.exists():
        raise FileNotFoundError(f"no folder or shard at {root}")
    if limit is not None and limit < 1:
        raise ValueError(f"limit={limit} must be at least 1")
    tars = [root] if root.suffix == ".tar" else sorted(root.glob("*.tar")) if root.is_dir() else []
    if tars:
        photos = [photo for tar in tars for photo in _members(tar)]
    else:
        photos = [Photo(_name(path, root), path) for path in find_images([root])]
    if not photos:
        raise ValueError(f"{root} holds no photos ({', '.join(sorted(SUFFIXES))})")
    photos.sort(key=lambda photo: photo.name)
    if limit is None or limit >= len(photos):
        return photos
    return [photos[i * len(photos) // limit] for i in range(limit)]


def content_hash(photos: list[Photo], ranks: Ranks) -> str:
    """The sha256 over the sorted sha256 of all photos: equal bytes, equal hash, whatever their names and places."""
    mine = [hashlib.sha256(photos[i].read()).digest() for i in ranks.share(len(photos))]
    digests = sorted(digest for part in ranks.gather(mine) for digest in part)
    return hashlib.sha256(b"".join(digests)).hexdigest()


class Batch(NamedTuple):
    """Some photos of this rank.

    Attributes:
        indices: of the photos in the list.
        images: (B, 3, H, W) uint8.
        excluded: name and reason of those that could not be read.
    """

    indices: list[int]
    images: Tensor
    excluded: list[str]


def batches(photos: list[Photo], pipeline: Pipeline, run: Run) -> Iterator[Batch]:
    """The photos of this rank, decoded by the run's workers; a batch may be short or empty where some are broken."""
    loader = DataLoader(
        _Share(photos, pipeline, run.ranks.share(len(photos))),
        batch_size=run.batch_size,
        num_workers=min(run.workers, torch.get_num_threads()),
        collate_fn=_collate,
        pin_memory=run.ranks.device.type == "cuda",
    )
    return iter(loader)


class _Share(Dataset[tuple[int, Tensor | str]]):
    def __init__(self, photos: list[Photo], pipeline: Pipeline, indices: range) -> None:
        self.photos, self.pipeline, self.indices = photos, pipeline, indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, position: int) -> tuple[int, Tensor | str]:
        index = self.indices[position]
        photo = self.photos[index]
        try:
            return index, self.pipeline(photo.open())
        except (OSError, ValueError) as error:
            return index, f"{photo.name}: {error}"


def _collate(items: list[tuple[int, Tensor | str]]) -> Batch:
    read = [(index, item) for index, item in items if isinstance(item, Tensor)]
    images = torch.stack([item for _, item in read]) if read else torch.empty(0, 3, 0, 0, dtype=torch.uint8)
    return Batch([index for index, _ in read], images, [item for _, item in items if isinstance(item, str)])


def _name(path: Path, root: Path) -> str:
    return path.name if path == root else path.relative_to(root).as_posix()


def _members(tar: Path) -> list[Photo]:
    try:
        with tarfile.open(tar) as archive:
            return [
                Photo(f"{tar.name}/{member.name}", tar, member.offset_data, member.size)
                for member in archive
                if member.isfile() and Path(member.name).suffix.lower() in SUFFIXES
            ]
    except tarfile.TarError as error:
        raise ValueError(f"{tar} is not a whole tar file: {error}") from error
