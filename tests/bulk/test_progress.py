from dataclasses import dataclass
from typing import Any

from unitok.bulk.progress import Progress
from unitok.bulk.ranks import Rank


@dataclass
class Shard:
    count: int | None
    name: str = ""
    fingerprint: Any = None
    records: Any = None


def test_totals():
    with Progress([Shard(10), Shard(5)], Rank()) as known:
        assert known.bar.total == 15
    with Progress([Shard(None), Shard(None), Shard(None)], Rank()) as guessed:
        assert guessed.bar.total is None
        guessed.encoded(7)
        guessed.failed()
        guessed.closed(Shard(None))
        assert (guessed.bar.total, guessed.seen, guessed.failures) == (24, 8, 1)
    with Progress([Shard(10)], Rank(1, 2)) as silent:
        assert silent.bar.disable
