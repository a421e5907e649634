"""A folder of files, on a disk or behind fsspec: s3://, gs://, hf://, memory:// read and write alike."""

import os
import shutil
import tempfile
import weakref
from contextlib import suppress
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from unitok.files import replacing


def open_url(url: str | os.PathLike[str]) -> tuple[Any, str]:
    """A path or URL -> (fsspec file system, path on it).

    Raises:
        ValueError: an unknown protocol, or one whose package is not installed.
    """
    try:
        return fsspec.core.url_to_fs(os.fspath(url))
    except ImportError as error:
        raise ValueError(f"{url}: {error}; pip install the named package") from error
    except ValueError as error:
        raise ValueError(f"{url}: {error}") from error


class Folder:
    """Whole files by name in one folder; a reader never sees half of one.

    On a disk a file is synced under a temporary name and then renamed. Object stores put an object whole by themselves.

    Args:
        url: a path, or anything that fsspec opens. Missing folders are made at the first write.
    """

    def __init__(self, url: str | os.PathLike[str]) -> None:
        self.url = os.fspath(url)
        self.fs, root = open_url(url)
        self.root = root.rstrip("/")
        self.is_local = isinstance(self.fs, LocalFileSystem)
        self._cache: str | None = None

    def path(self, name: str) -> str:
        """The file's path on its file system."""
        return f"{self.root}/{name}"

    def read(self, name: str) -> bytes:
        """The bytes of a file; FileNotFoundError where there is none."""
        data: bytes = self.fs.cat_file(self.path(name))
        return data

    def size(self, name: str) -> int | None:
        """Bytes of a file, None where there is none."""
        try:
            return int(self.fs.info(self.path(name))["size"])
        except FileNotFoundError:
            return None

    def names(self, folder: str) -> list[str]:
        """Sorted names in a folder within this one, without those that are being written; [] where there is none."""
        self.fs.invalidate_cache()
        try:
            found = self.fs.ls(self.path(folder), detail=False)
        except FileNotFoundError:
            return []
        return sorted(name for name in (path.rsplit("/", 1)[-1] for path in found) if not name.startswith("."))

    def write(self, name: str, data: bytes) -> None:
        """Put a file whole, or leave what was there."""
        if not self.is_local:
            self.fs.pipe_file(self.path(name), data)
            return
        path = Path(self.path(name))
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            temporary.write_bytes(data)

    def create(self, name: str, data: bytes) -> bytes:
        """Put a file unless there is one; the bytes that stand there afterwards.

        On a disk exactly one of many writers wins. Elsewhere two that come in the same moment may both write, and the
        later one stands.
        """
        if self.size(name) is None:
            if not self.is_local:
                self.fs.pipe_file(self.path(name), data)
                return data
            path = Path(self.path(name))
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
            with open(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(temporary, 0o644)
            with suppress(FileExistsError):
                os.link(temporary, path)
            os.unlink(temporary)
        return self.read(name)

    def sweep(self, name: str) -> None:
        """Remove what killed processes left behind of a file they were writing."""
        if self.is_local:
            path = Path(self.path(name))
            for left in path.parent.glob(f".{path.name}.*"):
                left.unlink(missing_ok=True)

    def local(self, name: str) -> Path:
        """The file on this machine; a remote one is fetched once, into a folder that goes when this object goes."""
        if self.is_local:
            return Path(self.path(name))
        if self._cache is None:
            self._cache = tempfile.mkdtemp(prefix="unitok-")
            weakref.finalize(self, shutil.rmtree, self._cache, ignore_errors=True)
        target = Path(self._cache, name)
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            with replacing(target) as temporary:
                self.fs.get_file(self.path(name), str(temporary))
        return target
