"""A random sample of a run, encoded again and compared."""

import random
import sys
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from unitok.bulk.encoding import Encoder
from unitok.bulk.reading import TokenDataset
from unitok.bulk.sources import InputShard
from unitok.bulk.views import photo_views

LEAST_AGREEMENT = 0.95
"""Of the codes of one image. Another machine or batch may tip near ties; another image agrees by chance alone."""


def verify_tokens(folder: str, shards: Sequence[InputShard], encoder: Encoder, count: int, seed: int = 0) -> bool:
    """Whether `count` random images of a run, encoded one by one, have the codes that are stored; prints the share.

    All files of the shards they are in are read and compared with their sha256 too.

    Args:
        folder: of the complete run.
        shards: its input, as `plan` gives it.
        encoder: with the run's tokenizer and scale.
        count: images to look at; all, where there are fewer.
        seed: of the choice.

    Raises:
        OSError: a damaged file, or an input that is gone.
    """
    dataset = TokenDataset(folder)
    chosen = random.Random(seed).sample(range(len(dataset)), min(count, len(dataset)))
    shares: list[float] = []
    unlike: list[str] = []
    for shard, source in enumerate(shards):
        wanted = {index for index in chosen if dataset.shard_of(index) == shard}
        if not wanted:
            continue
        dataset.reader(shard).check()
        for index, codes in _again(dataset, source, wanted, encoder):
            sample = dataset[index]
            same = sample.codes.shape == codes.shape and float((sample.codes == codes).float().mean())
            shares.append(float(same))
            if same < LEAST_AGREEMENT:
                unlike.append(sample.key)
            wanted.discard(index)
        unlike += [dataset[index].key for index in wanted]  # the input has no such key any more
    agreement = sum(shares) / max(1, len(shares))
    print(f"verified {len(chosen)} images: {agreement:.4%} of their codes are equal", file=sys.stderr)
    if unlike:
        print(f"{len(unlike)} images have other codes than are stored: {unlike[:4]}", file=sys.stderr)
    return not unlike


def _again(
    dataset: TokenDataset, source: InputShard, wanted: set[int], encoder: Encoder
) -> Iterator[tuple[int, Tensor]]:
    """Indices and (K, h, w) codes of the wanted images, encoded one by one."""
    rows = {index: dataset[index].row for index in wanted}
    keys: dict[str, list[int]] = {}
    for index, row in rows.items():
        keys.setdefault(row["key"], []).append(index)
    multiple = getattr(encoder.tokenizer.encoder, "stride", None) or 1
    for record in source.records():
        if record.key not in keys:
            continue
        photo = photo_views(record.load(), dataset.manifest["size"], multiple, dataset.manifest["augment"])
        for index in keys.pop(record.key):
            tokens = encoder(photo.views[rows[index]["view"]].pixels[None].copy())
            yield index, tokens[0].permute(2, 0, 1).to("cpu", torch.int64)
        if not keys:
            return
