"""`unitok tokenize`: many images to codes on disk, each exactly once, however often the run is stopped."""

import os
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, Literal

import torch

import unitok
from unitok.bulk.batches import Closed, Failed, batches
from unitok.bulk.encoding import Encoded, Encoder
from unitok.bulk.folder import Folder
from unitok.bulk.identity import codebooks_sha256, codes_sha256
from unitok.bulk.ledger import MANIFEST, Ledger, read_json
from unitok.bulk.progress import Progress
from unitok.bulk.ranks import Rank, launched_rank, spawn
from unitok.bulk.shards import Layout, Packing, ShardDraft, Sidecar
from unitok.bulk.sources import InputShard, plan
from unitok.bulk.verifying import verify_tokens
from unitok.bulk.views import TEN_CROP_SCALE, Augment, jpeg_reader, photo_views
from unitok.hub import DEFAULT, load_tokenizer
from unitok.tokenizer import Tokenizer

VERIFIED = 64
"""Images that `verify` encodes again."""
ORDER = "token by token, row by row, the K codes of a token side by side; packed as little-endian bits"


def tokenize(
    inputs: list[str],
    output: str,
    tokenizer: str | Tokenizer = DEFAULT,
    size: int | None = None,
    own_shape: bool = False,
    scale: int = 1,
    augment: Augment = "none",
    layout: Layout = "packed",
    sidecar: Sidecar = "jsonl",
    shard_size: int = 10_000,
    batch_size: int | None = None,
    workers: int | None = None,
    device: str = "auto",
    devices: int = 1,
    dtype: Literal["float32", "bfloat16"] = "float32",
    verify: bool = False,
) -> int:
    """Turn images into shards of codes; the same command goes on where it was stopped, until all is done.

    Every input shard becomes one output shard, whole or not at all, so nothing is lost, doubled or mixed up, and the
    files are byte-identical to those of a run that was never stopped, with any number of processes, on machines of
    one kind with one number of torch threads. (Elsewhere a code may differ where two entries are nearly as near.)
    Under torchrun or SLURM each process takes its share of the shards; they do not talk.

    Args:
        inputs: folders of images, WebDataset tars ("{0000..0123}.tar"), JSON-lines or Parquet; paths or fsspec URLs.
        output: folder for the tokens, a path or an fsspec URL.
        tokenizer: name, folder, published file or Hub repository of a tokenizer.
        size: shorter side and centre square, in pixels; left out, the size the tokenizer was trained on.
        own_shape: keep each image's own shape (cut to whole tokens).
        scale: coarseness of the grid, for tokenizers that have several.
        augment: "flip" adds each image's mirror image; "ten-crop" takes corners and centre, and their mirror images.
        layout: "packed" stores ceil(log2 V) bits per code, "uint16" two bytes.
        sidecar: file kind of keys, captions and sizes.
        shard_size: images per shard, where the input is not in tars.
        batch_size: images encoded at once; found by itself, and kept for the whole run.
        workers: threads that read and decode images; by default one per core.
        device: "cpu", "cuda", "cuda:1"; "auto" is a GPU for each process where there are some.
        devices: processes on this machine, a GPU for each; for several machines use torchrun or SLURM instead.
        dtype: of the weights; bfloat16 is faster and changes some codes.
        verify: after the run, encode 64 random images again and compare.

    Returns:
        0; or 1 where shards could not be read, keys occur twice, or the verification failed, each printed.

    Raises:
        ValueError: bad arguments, nothing to do, an input that changed since, an output of another run.
        OSError: an input that is not there, an output that cannot be written; what is written is whole.
    """
    if own_shape and (size is not None or augment == "ten-crop"):
        raise ValueError(f"own_shape goes neither with size={size} nor with crops of one size (augment={augment!r})")
    rank, folder, shards = launched_rank(), Folder(output), plan(inputs, shard_size)
    loaded = _loaded(tokenizer, _device(device, rank), dtype)
    encoder = Encoder(loaded, scale)
    Packing(layout, loaded.num_codebooks, loaded.codebook_size).check()
    pixels = None if own_shape else size or loaded.image_size
    settings = _made_by(loaded, tokenizer, dtype) | _pictures(pixels, scale, augment)
    settings |= {"layout": layout, "order": ORDER, "sidecar": sidecar, "shard_size": shard_size}
    settings["batch_size"] = _batch_size(folder, encoder, pixels or loaded.image_size, batch_size)
    ledger = Ledger(folder, settings)
    if devices > 1 and rank.world == 1:  # what they leave, and the end, is this process's
        again = partial(tokenize, inputs, output, tokenizer, size, own_shape, scale, augment, layout, sidecar)
        spawn(partial(again, shard_size, batch_size, workers, device, 1, dtype), devices)
    broken = _work(shards, ledger, encoder, rank, workers or os.cpu_count() or 1)
    return _end(shards, ledger, broken, rank, encoder if verify else None)


def _end(shards: list[InputShard], ledger: Ledger, broken: list[str], rank: Rank, verifier: Encoder | None) -> int:
    """Close the book if nothing is missing, and say how things stand; the exit code."""
    if missing := ledger.missing(len(shards)):
        _say(rank, f"{len(shards) - missing} of {len(shards)} shards are done; the command given again goes on")
        return int(bool(broken))
    totals = ledger.close(len(shards))["totals"]
    _say(rank, "{images} images, {rows} rows of codes, {failed} failed (failed.jsonl)".format(**totals))
    if totals["duplicate_keys"]:
        _say(rank, f"{totals['duplicate_keys']} keys occur more than once, all kept: {totals['duplicates']}")
    verified = verifier is None or rank.number > 0 or verify_tokens(ledger.folder.url, shards, verifier, VERIFIED)
    return int(bool(totals["duplicate_keys"]) or not verified)


def _work(shards: list[InputShard], ledger: Ledger, encoder: Encoder, rank: Rank, workers: int) -> list[str]:
    """Do this process's shards that are not done; the names of those that could not be read to their end."""
    todo = [i for i, shard in enumerate(shards) if rank.owns(i) and ledger.entry(i, shard) is None]
    settings = ledger.manifest
    multiple = getattr(encoder.tokenizer.encoder, "stride", None) or 1
    views = partial(photo_views, size=settings["size"], multiple=multiple, augment=settings["augment"])
    packing = Packing(settings["layout"], encoder.tokenizer.num_codebooks, encoder.tokenizer.codebook_size)
    events = batches(((i, shards[i]) for i in todo), views, settings["batch_size"], workers)
    broken: list[str] = []
    draft = ShardDraft(packing, settings["sidecar"])
    with Progress([shards[i] for i in todo], rank) as progress, _Writer(ledger) as writer:
        for event in encoder.stream(events):
            if isinstance(event, Encoded):
                draft.add(event.tokens(), event.rows)
                progress.encoded(sum(row["view"] == 0 for row in event.rows))
            elif isinstance(event, Failed):
                draft.failures.append({"key": event.key, "reason": event.reason})
                progress.failed()
            elif isinstance(event, Closed):
                if event.error is None:
                    writer.write(event.shard, shards[event.shard], draft, event.images)
                else:
                    broken.append(shards[event.shard].name)
                    progress.say(
                        f"{event.error}: nothing is written for this shard; mend it and give the command again"
                    )
                draft = ShardDraft(packing, settings["sidecar"])
                progress.closed(shards[event.shard])
    return broken


class _Writer:
    """Writes one shard while the next is being encoded; an error of a write is raised at the next one or at the end."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger, self.pool, self.waiting = ledger, ThreadPoolExecutor(1), list[Future[None]]()

    def __enter__(self) -> "_Writer":
        return self

    def __exit__(self, *_: object) -> None:
        self.pool.shutdown()
        self._settle()

    def write(self, index: int, source: InputShard, draft: ShardDraft, images: int) -> None:
        self._settle()
        self.waiting.append(self.pool.submit(self._write, index, source, draft, images))

    def _settle(self) -> None:
        while self.waiting:
            self.waiting.pop().result()

    def _write(self, index: int, source: InputShard, draft: ShardDraft, images: int) -> None:
        done = draft.finish(images)
        about = {"shard": index, "input": source.name, "fingerprint": source.fingerprint()}
        self.ledger.commit(index, done.codes, done.sidecar, about | done.summary)


def _made_by(tokenizer: Tokenizer, given: str | Tokenizer, dtype: str) -> dict[str, Any]:
    """The manifest's word on the tokenizer."""
    name = given if isinstance(given, str) else (tokenizer.config or {}).get("tokenizer", "unnamed")
    identity = {"weights_sha256": codes_sha256(tokenizer), "codebooks_sha256": codebooks_sha256(tokenizer)}
    shape = {"num_codebooks": tokenizer.num_codebooks, "codebook_size": tokenizer.codebook_size}
    return {"version": unitok.__version__, "tokenizer": {"name": name, **identity, **shape}, "dtype": dtype}


def _pictures(size: int | None, scale: int, augment: Augment) -> dict[str, Any]:
    """The manifest's word on what is done to an image before it is encoded."""
    resize = None if size is None else "shorter side to size, bicubic, antialiased, centre square"
    large = TEN_CROP_SCALE if augment == "ten-crop" else None
    preprocessing = {"resize": resize, "jpeg": jpeg_reader(), "ten_crop_scale": large}
    return {"size": size, "preprocessing": preprocessing, "scale": scale, "augment": augment}


def _loaded(tokenizer: str | Tokenizer, device: torch.device, dtype: str) -> Tokenizer:
    if isinstance(tokenizer, Tokenizer):
        return tokenizer.to(device, getattr(torch, dtype)).eval()
    return load_tokenizer(tokenizer, parts="encode", device=device, dtype=getattr(torch, dtype))


def _device(device: str, rank: Rank) -> torch.device:
    if device != "auto":
        return torch.device(device)
    return (
        torch.device("cuda", rank.local % torch.cuda.device_count())
        if torch.cuda.is_available()
        else torch.device("cpu")
    )


def _batch_size(folder: Folder, encoder: Encoder, side: int, asked: int | None) -> int:
    """The one asked for, or the one the run began with, or one that fits."""
    if asked is not None and asked < 1:
        raise ValueError(f"batch_size={asked} must be at least 1")
    if asked is None and folder.size(MANIFEST) is not None:
        return int(read_json(folder, folder.read(MANIFEST), MANIFEST)["batch_size"])
    return asked or encoder.fitting_batch(side)


def _say(rank: Rank, text: str) -> None:
    if rank.number == 0:
        print(text, file=sys.stderr)
