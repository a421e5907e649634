from collections import Counter
from functools import partial
from itertools import chain
from pathlib import Path

import pytest
import torch

from unitok.training.crops import centre_crop, training_crop
from unitok.training.loader import Reader
from unitok.training.pairs import PairDataset, PairFeed
from unitok.training.sources import read_pairs

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")


def tokens(caption):
    return torch.tensor([len(caption)])


@pytest.fixture
def dataset(class_folder):
    crop = partial(training_crop, size=8, scale=(0.5, 1.0), ratio=(0.75, 4 / 3), flip=True)
    return PairDataset(read_pairs(str(class_folder), ["{}", "a {}", "one {}"]), Reader(crop, tokens, seed=1))


def batches(feed, epoch=0, start=0):
    return [loaded.batch for loaded in feed.batches(epoch, start)]


def same(left, right):
    assert len(left) == len(right) > 0
    assert all(
        torch.equal(a.images, b.images) and torch.equal(a.text_ids, b.text_ids)
        for a, b in zip(left, right, strict=True)
    )


def test_an_epoch_has_every_pair_once_in_an_order_of_its_own(dataset, numbers):
    feed = PairFeed(dataset, [(24, 24)], 4)
    orders = [list(chain(*numbers(batches(feed, epoch)))) for epoch in range(2)]
    assert [sorted(order) for order in orders] == [list(range(24))] * 2
    assert orders[0] != orders[1]
    assert orders[0] != sorted(orders[0])


def test_the_last_incomplete_batch_is_left_out(dataset):
    feed = PairFeed(dataset, [(24, 24)], 7)
    assert [len(batch.images) for batch in batches(feed)] == [7, 7, 7]
    assert feed.batches_per_epoch == 3


@pytest.mark.parametrize("start", [4, 12, 20])
def test_starting_within_an_epoch_gives_the_batches_that_were_left(dataset, start):
    feed = PairFeed(dataset, [(24, 24)], 4)
    same(batches(feed, 1, start), batches(feed, 1)[start // 4 :])


def test_what_was_already_seen_is_not_read_again(dataset):
    read = []
    reader = dataset.reader
    dataset.reader = lambda image, captions, epoch, slot: read.append(slot) or reader(image, captions, epoch, slot)
    dataset.reader.seed = 1
    batches(PairFeed(dataset, [(24, 24)], 4), 0, 16)
    assert read == list(range(16, 24))


def test_workers_change_nothing(dataset):
    same(batches(PairFeed(dataset, [(24, 24)], 4, workers=2)), batches(PairFeed(dataset, [(24, 24)], 4)))


def test_two_ranks_share_each_batch_of_one(dataset):
    one, first, second = (
        batches(PairFeed(dataset, [(24, 24)], 8, rank, ranks)) for rank, ranks in ((0, 1), (0, 2), (1, 2))
    )
    for whole, left, right in zip(one, first, second, strict=True):
        assert torch.equal(whole.images, torch.cat([left.images, right.images]))
        assert torch.equal(whole.text_ids, torch.cat([left.text_ids, right.text_ids]))


def test_a_source_is_seen_as_often_as_it_weighs(dataset, numbers):
    feed = PairFeed(dataset, [(8, 20), (16, 8)], 4)  # the first source 2.5 times, half of the second
    for epoch in range(2):
        counts = Counter(chain(*numbers(batches(feed, epoch))))
        assert sorted(counts[number] for number in range(8)) == [2] * 4 + [3] * 4
        assert sorted(counts[number] for number in range(8, 24)) == [0] * 8 + [1] * 8


def test_a_pair_that_comes_twice_is_cropped_anew(dataset):
    dataset.pairs = dataset.pairs[:1]
    batch = batches(PairFeed(dataset, [(1, 8)], 8))[0]
    assert len({image.numpy().tobytes() for image in batch.images}) > 4
    assert len(set(batch.text_ids.flatten().tolist())) > 1


def test_a_corrupt_pair_gives_way_to_the_next_good_one(dataset, numbers):
    broken = Path(dataset.pairs[5].image)
    whole = broken.read_bytes()
    broken.write_bytes(whole[: len(whole) // 2])
    Path(dataset.pairs[6].image).write_bytes(b"")
    loaded = list(PairFeed(dataset, [(24, 24)], 4, workers=2).batches(0, 0))
    counts = Counter(chain(*numbers(item.batch for item in loaded)))
    assert counts[7] == 3
    assert not counts.keys() & {5, 6}
    problems = [problem for item in loaded for problem in item.problems]
    assert sorted(problem.split(" (")[0][-6:] for problem in problems) == ["05.png", "06.png", "06.png"]


def test_nothing_but_corrupt_pairs_is_an_error(dataset):
    for pair in dataset.pairs:
        Path(pair.image).write_bytes(b"")
    with pytest.raises(ValueError, match="24 corrupt samples in a row, the first of them"):
        batches(PairFeed(dataset, [(24, 24)], 4))


def test_validation_keeps_the_order_and_the_first_caption(class_folder, numbers):
    pairs = read_pairs(str(class_folder), ["{}", "a {}"])
    dataset = PairDataset(pairs, Reader(partial(centre_crop, size=8), tokens, None))
    whole = batches(PairFeed(dataset, [(24, 24)], 10, shuffle=False))
    assert numbers(whole) == [list(range(10)), list(range(10, 20)), list(range(20, 24))]
    assert whole[0].text_ids.flatten().tolist() == [6] * 8 + [8] * 2
    ranks = [numbers(batches(PairFeed(dataset, [(24, 24)], 10, rank, 2, shuffle=False))) for rank in range(2)]
    assert [len(batch) for batch in ranks[0]] == [len(batch) for batch in ranks[1]] == [5, 5, 2]
    assert sorted(chain(*ranks[0], *ranks[1])) == list(range(24))
