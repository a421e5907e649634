"""What a run is (manifest.json), what of it is done (ledger/), and the end of it.

manifest.json is made once, when a run begins, and replaced once, when the last shard is done. ledger/NNNNNN.json is
written after the two files of its shard, so a shard that is in the ledger is on the disk.
"""

import json
from collections import Counter
from typing import Any

import numpy as np

from unitok.bulk.folder import Folder
from unitok.bulk.shards import codes_name, json_lines, sidecar_name
from unitok.bulk.sources import InputShard

MANIFEST, FAILED = "manifest.json", "failed.jsonl"
FORMAT = "unitok tokens 1"
_MAY_DIFFER = {"version", "complete", "totals", "shards", "name"}


def entry_name(shard: int) -> str:
    """Where the ledger's word on a shard is."""
    return f"ledger/{shard:06}.json"


class Ledger:
    """The book of one output folder.

    Args:
        folder: of the output.
        settings: everything that decides the bytes of the output; the manifest's content while a run goes on.

    Raises:
        ValueError: the folder holds a run with other settings, or files that are no run.
    """

    def __init__(self, folder: Folder, settings: dict[str, Any]) -> None:
        self.folder = folder
        if folder.size(MANIFEST) is None and (others := folder.names("")):
            raise ValueError(f"{folder.url} holds files that are no tokens ({others[:3]}): give an empty folder")
        begun = {"format": FORMAT, **settings, "complete": False}
        self.manifest: dict[str, Any] = read_json(folder, folder.create(MANIFEST, _json(begun)), MANIFEST)
        check_alike(self.manifest, begun, folder.url, "this run")

    def entry(self, shard: int, source: InputShard) -> dict[str, Any] | None:
        """The entry of a shard that is done; None where it must be done (again).

        Raises:
            ValueError: the input of a shard that is done has changed since.
        """
        self.folder.sweep(entry_name(shard))
        for name in (codes_name(shard), sidecar_name(shard, self.manifest["sidecar"])):
            self.folder.sweep(name)
        if self.folder.size(entry_name(shard)) is None:
            return None
        entry: dict[str, Any] = read_json(self.folder, self.folder.read(entry_name(shard)), entry_name(shard))
        if (entry["input"], entry["fingerprint"]) != (source.name, source.fingerprint()):
            raise ValueError(
                f"input {source.name} is not what it was when {self.folder.path(codes_name(shard))} was made from "
                f"{entry['input']}: remove {self.folder.path(entry_name(shard))} to do it again, or choose another folder"
            )
        sizes = (
            self.folder.size(codes_name(shard)),
            self.folder.size(sidecar_name(shard, self.manifest["sidecar"])),
        )
        return entry if sizes == (entry["codes"]["bytes"], entry["sidecar"]["bytes"]) else None

    def commit(self, shard: int, codes: bytes, sidecar: bytes, entry: dict[str, Any]) -> None:
        """Write a shard's files, and then the entry that says so."""
        self.folder.write(codes_name(shard), codes)
        self.folder.write(sidecar_name(shard, self.manifest["sidecar"]), sidecar)
        self.folder.write(entry_name(shard), _json(entry))

    def missing(self, shards: int) -> int:
        """How many of the run's shards are not in the ledger."""
        done = set(self.folder.names("ledger"))
        return sum(f"{shard:06}.json" not in done for shard in range(shards))

    def close(self, shards: int) -> dict[str, Any]:
        """Once every shard is done: write failed.jsonl and the complete manifest. Any process may, more than one too."""
        if self.manifest["complete"]:
            return self.manifest
        entries = [read_json(self.folder, self.folder.read(entry_name(i)), entry_name(i)) for i in range(shards)]
        try:
            finish(self.folder, {k: v for k, v in self.manifest.items() if k != "complete"}, entries)
        except FileNotFoundError:  # another process closed the book and swept ours away
            pass
        self.manifest = read_manifest(self.folder)
        return self.manifest


def finish(folder: Folder, settings: dict[str, Any], entries: list[dict[str, Any]]) -> None:
    """Write failed.jsonl and the complete manifest of a run whose shards are all there."""
    failures = [{"input": entry["input"], **failure} for entry in entries for failure in entry["failures"]]
    twice = _duplicates(folder, entries, settings["sidecar"])
    totals = {
        "images": sum(entry["images"] for entry in entries),
        "rows": sum(entry["rows"] for entry in entries),
        "failed": len(failures),
        "duplicate_keys": len(twice),
        "duplicates": twice[:10],
    }
    shards = [{k: entry[k] for k in ("input", "images", "rows", "grids", "codes", "sidecar")} for entry in entries]
    folder.write(FAILED, json_lines(failures))
    folder.write(MANIFEST, _json({**settings, "complete": True, "totals": totals, "shards": shards}))
    for name in (FAILED, MANIFEST):
        folder.sweep(name)


def read_manifest(folder: Folder) -> dict[str, Any]:
    """The manifest of a complete run.

    Raises:
        FileNotFoundError: the folder holds no run.
        ValueError: the run is not complete, or of a format this version does not know.
    """
    if folder.size(MANIFEST) is None:
        raise FileNotFoundError(f"{folder.url} holds no tokens: it has no {MANIFEST}")
    manifest: dict[str, Any] = read_json(folder, folder.read(MANIFEST), MANIFEST)
    if manifest.get("format") != FORMAT:
        raise ValueError(f"{folder.path(MANIFEST)} has format {manifest.get('format')!r}, not {FORMAT!r}")
    if not manifest["complete"]:
        raise ValueError(f"the run in {folder.url} is not complete: give its command again to go on with it")
    return manifest


def check_alike(manifest: dict[str, Any], other: dict[str, Any], where: str, who: str) -> None:
    """Raise ValueError unless two manifests promise the same codes for the same image."""
    for key in sorted((manifest.keys() | other.keys()) - _MAY_DIFFER):
        ours, theirs = manifest.get(key), other.get(key)
        if isinstance(ours, dict) and isinstance(theirs, dict):
            check_alike(ours, theirs, where, who)
        elif ours != theirs:
            raise ValueError(f"{where} has {key}={ours!r}, {who} {key}={theirs!r}: choose another folder for it")


def read_json(folder: Folder, data: bytes, name: str) -> Any:
    """Parse a file of the folder; ValueError with its path where it is damaged."""
    try:
        return json.loads(data)
    except ValueError as error:
        raise ValueError(f"{folder.path(name)} is damaged: {error}") from error


def _duplicates(folder: Folder, entries: list[dict[str, Any]], sidecar: str) -> list[str]:
    """Keys that occur more than once; needs 8 bytes of memory for each row of the run."""
    from unitok.bulk.shard_reader import ShardReader

    return []


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode()
