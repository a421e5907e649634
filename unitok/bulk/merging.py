"""Runs of one tokenizer, put together."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from unitok.bulk.folder import Folder
from unitok.bulk.ledger import Ledger, check_alike, entry_name, read_json, read_manifest
from unitok.bulk.shard_reader import ShardReader
from unitok.bulk.shards import codes_name, sidecar_name
from unitok.bulk.sources import Record

_NOT_SETTINGS = {"complete", "totals", "shards"}
_FREE = ("shard_size", "batch_size")
"""Settings that runs may differ in: they decide where codes lie, and near ties, but not what codes mean."""


def merge(folders: list[str], output: str) -> None:
    """Copy the shards of several complete runs, in the order given, into one; nothing is encoded again.

    Keys that occur more than once are kept, counted and named in the manifest. Called again it goes on where it was
    stopped.

    Args:
        folders: paths or URLs of the runs.
        output: folder for all of them.

    Raises:
        ValueError: runs that are unlike (tokenizer, size, layout, ...) or not complete; an output that holds something
            else; a folder given twice.
        OSError: a damaged shard, named; no run there.
    """
    sources = [Folder(folder) for folder in folders]
    if not sources or len({source.root for source in sources}) < len(sources):
        raise ValueError(f"merge needs runs, each given once, got {folders}")
    manifests = [read_manifest(source) for source in sources]
    settings = _settings(manifests[0])
    for source, manifest in zip(sources, manifests, strict=True):
        check_alike(settings, _settings(manifest), folders[0], source.url, "only like runs can be merged")
    for name in _FREE:
        values = {manifest[name] for manifest in manifests}
        settings[name] = values.pop() if len(values) == 1 else None
    target = Folder(output)
    ledger = Ledger(target, settings)
    number = 0
    for source, manifest in zip(sources, manifests, strict=True):
        for shard, listed in enumerate(manifest["shards"]):
            _copy(source, shard, listed, ledger, number)
            number += 1
    totals = ledger.close(number)["totals"]
    print("{images} images, {rows} rows of codes, {duplicate_keys} keys more than once".format(**totals))


@dataclass(frozen=True)
class _Origin:
    """The input an existing shard was made of; nothing is read from it."""

    name: str
    digest: str
    count: None = None

    def fingerprint(self) -> str:
        return self.digest

    def records(self) -> Iterator[Record]:
        return iter(())


def _copy(source: Folder, shard: int, listed: dict[str, Any], ledger: Ledger, number: int) -> None:
    entry = read_json(source, source.read(entry_name(shard)), entry_name(shard))
    if ledger.entry(number, _Origin(entry["input"], entry["fingerprint"])) is not None:
        return
    sidecar = ledger.manifest["sidecar"]
    ShardReader(source, shard, listed, sidecar).check()
    codes, rows = source.read(codes_name(shard)), source.read(sidecar_name(shard, sidecar))
    ledger.commit(number, codes, rows, entry | {"shard": number})


def _settings(manifest: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in manifest.items() if key not in _NOT_SETTINGS and key not in _FREE}
