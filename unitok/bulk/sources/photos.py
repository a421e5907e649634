"""Folders of image files."""

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from unitok.bulk.sources.base import Record, loader
from unitok.images import SUFFIXES


@dataclass(frozen=True)
class PhotoShard:
    """Image files next to each other in the sorted list of a folder and all folders in it.

    The key is the path within the folder. Metadata: `label`, the name of the folder an image lies in, where that is
    not the given one; `caption`, the text of a .txt file of the same name.
    """

    name: str
    fs: Any
    root: str
    files: tuple[tuple[str, int, bool], ...]
    """Path within root, bytes, whether a caption lies beside it."""

    @property
    def count(self) -> int:
        """Images in it."""
        return len(self.files)

    def fingerprint(self) -> str:
        """Of the names and sizes of its files."""
        return hashlib.sha256("".join(f"{path}\0{size}\n" for path, size, _ in self.files).encode()).hexdigest()

    def records(self) -> Iterator[Record]:
        """One for each file."""
        for path, _, has_caption in self.files:
            metadata: dict[str, Any] = {"label": path.split("/")[-2]} if "/" in path else {}
            if has_caption:
                text = self.fs.cat_file(f"{self.root}/{os.path.splitext(path)[0]}.txt")
                metadata["caption"] = text.decode("utf-8", "replace").strip()
            yield Record(path, loader(self.fs, f"{self.root}/{path}"), metadata)


def photo_shards(url: str, fs: Any, root: str, shard_size: int) -> list[PhotoShard]:
    """Cut a folder's sorted images into shards of `shard_size`; hidden files and folders are passed over."""
    root = root.rstrip("/")
    found = {path[len(root) + 1 :]: int(info["size"]) for path, info in fs.find(root, detail=True).items()}
    names = sorted(name for name in found if not any(part.startswith(".") for part in name.split("/")))
    captions = {os.path.splitext(name)[0] for name in names if name.endswith(".txt")}
    files = [
        (name, found[name], os.path.splitext(name)[0] in captions)
        for name in names
        if os.path.splitext(name)[1].lower() in SUFFIXES
    ]
    return [
        PhotoShard(f"{url}#{start}", fs, root, tuple(files[start : start + shard_size]))
        for start in range(0, len(files), shard_size)
    ]
