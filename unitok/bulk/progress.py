"""A bar with images per second, the time that is left, and failures."""

from typing import Any

from tqdm import tqdm

from unitok.bulk.ranks import Rank
from unitok.bulk.sources import InputShard


class Progress:
    """Counts images of this process; only the first process shows a bar.

    Args:
        shards: the work. Where an input's number of images is known only at its end, the total is that of the known
            ones scaled up.
        rank: of this process.
    """

    def __init__(self, shards: list[InputShard], rank: Rank) -> None:
        self.open = len(shards)
        self.known = [shard.count for shard in shards]
        self.seen = self.failures = self.in_shard = 0
        self.rank = rank
        total = sum(count for count in self.known if count) if shards and all(self.known) else None
        self.bar: Any = tqdm(
            total=total, unit="img", disable=True if rank.number or not shards else None, smoothing=0.05
        )
        self.finished = 0

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()

    def encoded(self, images: int) -> None:
        """Images whose codes are there."""
        self.seen += images
        self.bar.update(images)

    def failed(self) -> None:
        """One that gave no picture."""
        self.failures += 1
        self.encoded(1)
        self.bar.set_postfix(failed=self.failures, refresh=False)

    def closed(self, shard: InputShard) -> None:
        """A shard is through."""
        self.finished += 1
        if not all(self.known):
            self.bar.total = round(self.seen / self.finished * self.open)
            self.bar.refresh()

    def say(self, text: str) -> None:
        """A line that does not tear the bar."""
        tqdm.write(text if self.rank.world == 1 else f"[{self.rank.number}] {text}")
