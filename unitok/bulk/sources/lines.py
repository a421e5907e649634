"""JSON-lines: one object per line, with an image's path or its bytes."""

import base64
import binascii
import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from unitok.bulk.folder import open_url
from unitok.bulk.sources.base import Record, loader, refusing


@dataclass(frozen=True)
class LineShard:
    """A run of lines of one file.

    Fields of a line: `image`, a path from the file's folder on or a URL, or `bytes`, an image file in base64; `key`
    (where missing: `image`, or else the number of the line). All others are metadata.
    """

    name: str
    fs: Any
    path: str
    first: int
    count: int
    start: int
    stop: int
    digest: str

    def fingerprint(self) -> str:
        """Of its lines."""
        return self.digest

    def records(self) -> Iterator[Record]:
        """One for each line that is not blank."""
        with self.fs.open(self.path, "rb") as file:
            file.seek(self.start)
            number = self.first
            while file.tell() < self.stop:
                line = file.readline()
                number += 1
                if line.strip():
                    yield self._record(number, line)

    def _record(self, number: int, line: bytes) -> Record:
        try:
            fields = json.loads(line)
        except ValueError as error:
            return Record(f"line {number}", refusing(f"not JSON: {error}"), {})
        if not isinstance(fields, dict):
            return Record(f"line {number}", refusing(f"a JSON {type(fields).__name__}, not an object"), {})
        return record_of_fields(self.fs, self.path, f"line {number}", fields)


def line_shards(url: str, fs: Any, path: str, shard_size: int) -> list[LineShard]:
    """Cut a file into runs of `shard_size` lines; blank ones count for nothing."""
    shards: list[LineShard] = []
    with fs.open(path, "rb") as file:
        first, count, start, digest = 0, 0, 0, hashlib.sha256()
        for number, line in enumerate(file, start=1):
            count += bool(line.strip())
            digest.update(line)
            if count == shard_size:
                stop = file.tell()
                shards.append(LineShard(f"{url}#{first}", fs, path, first, count, start, stop, digest.hexdigest()))
                first, count, start, digest = number, 0, stop, hashlib.sha256()
        if count:
            stop = file.tell()
            shards.append(LineShard(f"{url}#{first}", fs, path, first, count, start, stop, digest.hexdigest()))
    return shards


def record_of_fields(fs: Any, path: str, name: str, fields: dict[str, Any]) -> Record:
    """A line's or a row's fields -> Record; `path` is the file they stand in, `name` the key where they have none."""
    image: Any = fields.pop("image", None)
    data: Any = fields.pop("bytes", None)
    if isinstance(image, dict):  # the struct of Hugging Face's image columns
        image, data = image.get("path"), image.get("bytes")
    if isinstance(image, bytes):
        image, data = None, image
    key = str(fields.pop("key", None) or (image if isinstance(image, str) else None) or name)
    if isinstance(data, str):
        try:
            data = base64.b64decode(data, validate=True)
        except binascii.Error as error:
            return Record(key, refusing(f"'bytes' is not base64: {error}"), fields)
    if isinstance(data, bytes):
        return Record(key, partial(bytes, data), fields)
    if not isinstance(image, str):
        return Record(key, refusing("neither 'image' (a path) nor 'bytes' (an image file)"), fields)
    if "://" in image:
        return Record(key, loader(*open_url(image)), fields)
    return Record(key, loader(fs, image if image.startswith("/") else f"{os.path.dirname(path)}/{image}"), fields)
