"""WebDataset shards: tar files whose members with one key, side by side, are one sample."""

import json
import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from unitok.bulk.sources.base import Record, edge_fingerprint, refusing
from unitok.images import SUFFIXES


@dataclass(frozen=True)
class TarShard:
    """One tar file, streamed from front to back.

    The key is a member's path up to the first dot of its name; members with one key that follow each other are one
    sample. Metadata: `caption` from .txt, `label` from .cls, and the fields of .json. A sample with several images
    gives each under its key and its own ending, `key.left` for key.left.jpg.
    """

    name: str
    fs: Any
    path: str
    count: None = None

    def fingerprint(self) -> str:
        """Of the size, the head and the tail of the file."""
        return edge_fingerprint(self.fs, self.path)

    def records(self) -> Iterator[Record]:
        """One for each image, and one without for each sample that has none.

        Raises:
            OSError: the tar is truncated or damaged.
        """
        try:
            for key, files in self._samples():
                yield from _records(key, files)
        except (tarfile.TarError, EOFError) as error:
            raise OSError(f"{self.name} is not a whole tar file: {error}") from error

    def _samples(self) -> Iterator[tuple[str, dict[str, bytes]]]:
        key, files = "", dict[str, bytes]()
        with self.fs.open(self.path, "rb") as file:
            with tarfile.open(fileobj=file, mode="r|*") as tar:
                while (member := tar.next()) is not None:
                    tar.members = []  # type: ignore[attr-defined]  # or every header read so far stays in memory
                    folder, name = os.path.split(member.name)
                    if not member.isfile() or name.startswith(".") or "." not in name:
                        continue
                    stem, ending = name.split(".", 1)
                    found = f"{folder}/{stem}".lstrip("./") if folder else stem
                    if files and (found != key or ending in files):
                        yield key, files
                        files = {}
                    content = tar.extractfile(member)
                    key, files[ending] = found, content.read() if content is not None else b""
            if files:
                yield key, files
            if self.path.endswith(".tar"):
                _check_end(self.fs, self.path)


def _check_end(fs: Any, path: str) -> None:
    """A tar ends with 1,024 zero bytes; Python's tarfile takes one cut between two members for whole."""
    size = int(fs.info(path)["size"])
    if size < 1024 or any(fs.cat_file(path, size - 1024, size)):
        raise tarfile.ReadError("it has no end-of-archive mark, so members may be missing")


def _records(key: str, files: dict[str, bytes]) -> Iterator[Record]:
    images = [ending for ending in files if _suffix(ending) in SUFFIXES]
    try:
        metadata = _metadata(files)
    except ValueError as error:
        yield Record(key, refusing(f"metadata of the sample: {error}"), {})
        return
    if not images:
        yield Record(key, refusing(f"the sample has no image, only {sorted(files)}"), metadata)
    for ending in images:
        name = key if len(images) == 1 else f"{key}.{ending.rpartition('.')[0] or ending}"
        yield Record(name, partial(bytes, files[ending]), metadata)


def _suffix(ending: str) -> str:
    return f".{ending.rpartition('.')[2].lower()}"


def _metadata(files: dict[str, bytes]) -> dict[str, Any]:
    metadata: dict[str, Any] = {}
    for ending, data in files.items():
        match _suffix(ending):
            case ".json":
                fields = json.loads(data)
                metadata |= fields if isinstance(fields, dict) else {"json": fields}
            case ".txt":
                metadata["caption"] = data.decode("utf-8", "replace").strip()
            case ".cls":
                text = data.decode("utf-8", "replace").strip()
                metadata["label"] = int(text) if text.isdecimal() else text
    return metadata
