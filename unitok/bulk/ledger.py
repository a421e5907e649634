"""What a run is (manifest.json), what of it is done (ledger/), and the end of it.

manifest.json is made once, when a run begins, and replaced once, when the last shard is done. ledger/NNNNNN.json is
written after the two files of its shard, so a shard that is in the ledger is on the disk.
"""

import json
from contextlib import suppress
from typing import Any

import numpy as np

from unitok.bulk.folder import Folder
from unitok.bulk.shard_reader import ShardReader
from unitok.bulk.shards import Sidecar, codes_name, json_lines, sidecar_name
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
        others = folder.names("") if folder.size(MANIFEST) is None else []
        if others and MANIFEST not in others:
            raise ValueError(f"{folder.url} holds files that are no tokens ({others[:3]}): give an empty folder")
        begun = {"format": FORMAT, **settings, "complete": False}
        self.manifest: dict[str, Any] = read_json(folder, folder.create(MANIFEST, _json(begun)), MANIFEST)
        check_alike(self.manifest, begun, folder.url, "this run", "choose another folder for it")

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
                f"{entry['input']}: remove {self.folder.path(entry_name(shard))} to do it again, or take another folder"
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
        """Once every shard is done: write failed.jsonl and the complete manifest; any process may, and several too."""
        if self.manifest["complete"]:
            return self.manifest
        entries = [read_json(self.folder, self.folder.read(entry_name(i)), entry_name(i)) for i in range(shards)]
        with suppress(FileNotFoundError):  # another process closed the book and swept ours away
            finish(self.folder, {k: v for k, v in self.manifest.items() if k != "complete"}, entries)
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


def check_alike(ours: dict[str, Any], theirs: dict[str, Any], where: str, other: str, advice: str) -> None:
    """Raise ValueError with the advice unless two manifests promise the same codes for the same image."""
    for key in sorted((ours.keys() | theirs.keys()) - _MAY_DIFFER):
        mine, its = ours.get(key), theirs.get(key)
        if isinstance(mine, dict) and isinstance(its, dict):
            check_alike(mine, its, where, other, advice)
        elif mine != its:
            raise ValueError(f"{where} has {key}={mine!r}, {other} has {key}={its!r}: {advice}")


def read_json(folder: Folder, data: bytes, name: str) -> Any:
    """Parse a file of the folder; ValueError with its path where it is damaged."""
    try:
        return json.loads(data)
    except ValueError as error:
        raise ValueError(f"{folder.path(name)} is damaged: {error}") from error


def _duplicates(folder: Folder, entries: list[dict[str, Any]], sidecar: Sidecar) -> list[str]:
    """Keys that occur more than once; needs 8 bytes of memory for each row of the run."""
    parts = [np.array(ShardReader(folder, shard, entry, sidecar).key_hashes) for shard, entry in enumerate(entries)]
    _, first, count = np.unique(np.concatenate(parts), return_index=True, return_counts=True)
    starts = np.cumsum([0, *map(len, parts)])
    keys = []
    for position in sorted(first[count > 1]):
        shard = int(np.searchsorted(starts, position, side="right")) - 1
        reader = ShardReader(folder, shard, entries[shard], sidecar)  # none stays open: mapped files count as memory
        keys.append(reader.row(int(position - starts[shard]))["key"])
    return list(dict.fromkeys(keys))


def _json(value: dict[str, Any]) -> bytes:
    """JSON with one line for each field, and for each member of a list of fields."""
    lines = []
    for key, field in value.items():
        text = json.dumps(field, ensure_ascii=False)
        if isinstance(field, list) and field and isinstance(field[0], dict):
            text = "[\n  " + ",\n  ".join(json.dumps(member, ensure_ascii=False) for member in field) + "\n ]"
        lines.append(f" {json.dumps(key)}: {text}")
    return ("{\n" + ",\n".join(lines) + "\n}\n").encode(errors="replace")
