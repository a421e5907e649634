import tarfile
from functools import partial
from itertools import chain, zip_longest
from pathlib import Path

import pytest
import torch

from unitok.training.crops import centre_crop, training_crop
from unitok.training.loader import Reader
from unitok.training.shards import ShardFeed, count_samples, find_shards, is_shards

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")


def tokens(caption):
    return torch.tensor([int(caption.removeprefix("number "))])


@pytest.fixture
def reader():
    crop = partial(training_crop, size=8, scale=(0.5, 1.0), ratio=(0.75, 4 / 3), flip=True)
    return Reader(crop, tokens, seed=1)


@pytest.fixture
def names(shards):
    return find_shards(shards)


def batches(feed, epoch=0, start=0):
    return [loaded.batch for loaded in feed.batches(epoch, start)]


def test_a_pattern_names_its_shards(names):
    assert [Path(name).name for name in names] == ["0000.tar", "0001.tar", "0002.tar", "0003.tar"]
    assert count_samples(names) == 32
    assert is_shards("pipe:cat a.tar")
    assert not is_shards("photos")


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("ranks", [1, 2])
def test_ranks_and_workers_together_read_every_sample_once(names, reader, numbers, ranks, workers):
    parts = [batches(ShardFeed(names, reader, 32, 4, rank, ranks, workers, shuffle=8)) for rank in range(ranks)]
    seen = list(chain(*chain(*map(numbers, parts))))
    assert sorted(seen) == list(range(32))
    assert seen != sorted(seen)


def test_text_belongs_to_its_image(names, reader):
    for batch in batches(ShardFeed(names, reader, 32, 4)):
        assert torch.equal(batch.text_ids.flatten(), batch.images[:, 0, 0, 0].long())


def test_epochs_have_orders_of_their_own(names, reader, numbers):
    feed = ShardFeed(names, reader, 32, 4)
    assert numbers(batches(feed, 0)) != numbers(batches(feed, 1))


@pytest.mark.parametrize("workers", [0, 2, 3])
@pytest.mark.parametrize("broken", [None, 3, 7])
def test_starting_within_an_epoch_gives_the_batches_that_were_left(names, reader, workers, broken, write_shard):
    if broken is not None:
        repack(write_shard, names[1], broken, b"no photo")
    feed = ShardFeed(names, reader, 32, 4, workers=workers, shuffle=5)
    whole = batches(feed, 2)
    assert len(whole) == 8
    for start in range(4, 32, 4 if workers == 0 else 12):
        for one, other in zip_longest(batches(feed, 2, start), whole[start // 4 :]):
            assert torch.equal(one.images, other.images)
            assert torch.equal(one.text_ids, other.text_ids)


def test_what_was_already_seen_is_not_decoded_again(names, reader):
    decoded = []
    crop = reader.crop
    reader.crop = lambda data, rng: decoded.append(1) or crop(data, rng)
    batches(ShardFeed(names, reader, 32, 4), 0, 24)
    assert len(decoded) == 8


def test_an_epoch_longer_than_the_shards_starts_them_again(names, reader, numbers):
    seen = list(chain(*numbers(batches(ShardFeed(names, reader, 48, 4)))))
    assert sorted(seen[:32]) == list(range(32))
    assert len(set(seen[32:])) == 16


def test_without_shuffling_the_order_is_kept(names, numbers):
    feed = ShardFeed(names, Reader(partial(centre_crop, size=8), tokens, None), 32, 8, shuffle=0)
    assert numbers(batches(feed)) == [list(range(first, first + 8)) for first in range(0, 32, 8)]


def repack(write_shard, shard, broken, data):
    with tarfile.open(shard) as tar:
        files = [(member.name, tar.extractfile(member).read()) for member in tar]
    write_shard(shard, [(name, data if place == 2 * broken else old) for place, (name, old) in enumerate(files)])


def test_a_corrupt_sample_gives_way_to_the_next_good_one(names, reader, numbers, write_shard):
    repack(write_shard, names[1], 3, b"no photo")  # number 11
    feed = ShardFeed(names, reader, 32, 4, shuffle=0, workers=2)
    loaded = list(feed.batches(0, 0))
    seen = list(chain(*numbers(item.batch for item in loaded)))
    assert seen.count(12) == 2
    assert 11 not in seen
    problems = [problem for item in loaded for problem in item.problems]
    assert len(problems) == 1
    assert "000011 in" in problems[0]


def test_a_local_shard_that_was_cut_is_known_at_once(names, shards):
    data = Path(names[2]).read_bytes()
    Path(names[2]).write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match=r"0002.tar is cut short"):
        find_shards(shards)
    Path(names[2]).write_bytes(b"")
    with pytest.raises(ValueError, match=r"0002.tar is cut short"):
        find_shards(shards)
    Path(names[2]).unlink()
    with pytest.raises(FileNotFoundError, match=r"0002.tar"):
        find_shards(shards)


def test_a_distant_shard_that_was_cut_is_counted_and_left(names, reader, numbers):
    with tarfile.open(names[0]) as tar:
        sixth = tar.getmember("000005.png").offset_data + 10
    Path(names[0]).write_bytes(Path(names[0]).read_bytes()[:sixth])
    feed = ShardFeed([f"pipe:cat {name}" for name in names], reader, 28, 4, shuffle=0)
    loaded = list(feed.batches(0, 0))
    seen = list(chain(*numbers(item.batch for item in loaded)))
    assert seen[:8] == [0, 1, 2, 3, 4, 8, 8, 9]
    problems = [problem for item in loaded for problem in item.problems]
    assert [problem.split(" (")[0] for problem in problems] == [f"the rest of shard pipe:cat {names[0]}"]


def test_fewer_shards_than_readers_is_an_error(names, reader):
    with pytest.raises(ValueError, match="4 shards are fewer than the 6 readers of ranks=2 times workers=3"):
        ShardFeed(names, reader, 32, 4, ranks=2, workers=3)


def test_what_cannot_be_counted_is_said(tmp_path, write_shard):
    with pytest.raises(ValueError, match="cannot be counted: give samples_per_epoch"):
        count_samples(["pipe:cat a.tar"])
    write_shard(tmp_path / "a.tar", [("a.txt", b"words")])
    with pytest.raises(ValueError, match="holds no image"):
        count_samples([str(tmp_path / "a.tar")])


def test_shards_without_samples_are_an_error(tmp_path, reader, write_shard):
    write_shard(tmp_path / "a.tar", [])
    with pytest.raises(ValueError, match="no samples in 1 shards"):
        batches(ShardFeed([str(tmp_path / "a.tar")], reader, 4, 4))


@pytest.mark.parametrize("suffixes", [["txt"], ["png"], ["png", "json"]])
def test_samples_without_image_or_caption_are_corrupt(tmp_path, reader, suffixes, png, write_shard):
    contents = {"txt": b"number 1", "png": png(1), "json": b"[]"}
    files = [(f"a.{suffix}", contents[suffix]) for suffix in suffixes]
    write_shard(tmp_path / "a.tar", [*files, ("b.png", png(2)), ("b.txt", b"number 2")])
    loaded = next(iter(ShardFeed([str(tmp_path / "a.tar")], reader, 2, 2, shuffle=0).batches(0, 0)))
    assert loaded.batch.text_ids.tolist() == [[2], [2]]
    assert len(loaded.problems) == 1
