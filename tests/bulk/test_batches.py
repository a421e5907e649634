from dataclasses import dataclass
from functools import partial

import numpy as np

from tests.bulk.inputs import picture
from unitok.bulk.batches import Batch, Closed, Failed, batches
from unitok.bulk.sources import Record
from unitok.bulk.sources.base import refusing
from unitok.bulk.views import photo_views


@dataclass
class Shard:
    data: list
    error: Exception | None = None
    name: str = "s"
    count: None = None

    def fingerprint(self) -> str:
        return ""

    def records(self):
        for number, data in enumerate(self.data):
            yield Record(
                f"k{number}", partial(bytes, data) if isinstance(data, bytes) else refusing(data), {"n": number}
            )
        if self.error:
            raise self.error


def _keys(events):
    return [
        (event.shard, [row["key"] for row in event.rows])
        if isinstance(event, Batch)
        else (event.shard, event.key, event.reason)
        if isinstance(event, Failed)
        else (event.shard, event.images, event.error)
        for event in events
    ]


def test_order_shapes_failures_and_ends():
    wide, tall = picture(0, 80, 64), picture(1, 64, 80)
    error = OSError("cut off")
    shards = [(4, Shard([wide, tall, wide, "no image", wide, tall])), (7, Shard([wide, wide], error)), (9, Shard([]))]
    views = partial(photo_views, size=None, multiple=16, augment="none")
    assert _keys(batches(shards, views, batch_size=2, workers=2)) == [
        (4, ["k0", "k2"]),
        (4, "k3", "no image"),
        (4, ["k1", "k5"]),
        (4, ["k4"]),
        (4, 6, None),
        (7, ["k0", "k1"]),
        (7, 2, error),
        (9, 0, None),
    ]


def test_batches_do_not_depend_on_the_shard_before():
    shards = [Shard([picture(i) for i in range(5)]) for _ in range(2)]
    views = partial(photo_views, size=32, multiple=16, augment="flip")
    both = [e for e in batches([(0, shards[0]), (1, shards[1])], views, 4, 3) if isinstance(e, Batch) and e.shard == 1]
    alone = [e for e in batches([(1, shards[1])], views, 4, 1) if isinstance(e, Batch)]
    assert [len(batch.rows) for batch in alone] == [4, 4, 2]
    for ours, theirs in zip(both, alone, strict=True):
        assert np.array_equal(ours.pixels, theirs.pixels)
        assert ours.rows == theirs.rows
    assert alone[0].rows[3] == {
        "key": "k1",
        "view": 1,
        "width": 80,
        "height": 64,
        "crop": [8.0, 0.0, 72.0, 64.0],
        "flipped": True,
        "metadata": {"n": 1},
    }


def test_pictures_of_many_shapes_do_not_pile_up():
    shard = Shard([picture(i, 16 * (i + 1), 16) for i in range(40)])
    views = partial(photo_views, size=None, multiple=16, augment="none")
    events = list(batches([(0, shard)], views, batch_size=2, workers=1))
    assert sum(len(event.rows) for event in events if isinstance(event, Batch)) == 40
    assert isinstance(events[-1], Closed)
    assert len([event for event in events if isinstance(event, Batch)]) == 40
