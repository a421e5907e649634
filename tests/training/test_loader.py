import pytest
import torch

from unitok.training.loader import Batch, FeedLoader, Loaded, Reader, ResumableLoader, Sample, stack


class Feed:
    """Five batches of two numbers an epoch; batch 3 was reached past a corrupt sample."""

    batches_per_epoch, batch_size = 5, 2

    def __init__(self, **identity):
        self.identity = identity or {"seed": 0}

    def batches(self, epoch, start):
        for first in range(start, 10, 2):
            numbers = torch.tensor([first, first + 1]) + 100 * epoch
            yield Loaded(Batch(numbers, None), ["photo 7"] if first == 6 else [])


def first(batches):
    return [int(batch.images[0]) for batch in batches]


def take(loader, count):
    return first(batch for batch, _ in zip(loader, range(count), strict=False))


@pytest.mark.filterwarnings("ignore:corrupt sample")
def test_epochs_follow_each_other():
    loader = ResumableLoader(Feed())
    assert [first(loader), first(loader)] == [[0, 2, 4, 6, 8], [100, 102, 104, 106, 108]]


@pytest.mark.filterwarnings("ignore:corrupt sample")
@pytest.mark.parametrize("given", range(1, 11))
def test_a_loader_goes_on_where_another_was(given):
    one, other = ResumableLoader(Feed()), ResumableLoader(Feed())
    stream = iter([*(batch for _ in range(3) for batch in first_with_state(one))])
    seen = [next(stream) for _ in range(given)]
    other.load_state_dict(seen[-1][1])
    rest = [number for number, _ in stream]
    assert (first(other) + first(other) + first(other))[: len(rest)] == rest


def first_with_state(loader):
    return [(int(batch.images[0]), loader.state_dict()) for batch in loader]


def test_another_epoch_begins_at_its_start_and_the_same_one_goes_on():
    loader = ResumableLoader(Feed())
    assert take(loader, 2)[:2] == [0, 2]
    loader.sampler.set_epoch(0)
    assert loader.state_dict()["samples"] > 0
    loader.sampler.set_epoch(3)
    assert take(loader, 1) == [300]


def test_a_position_in_other_data_is_refused():
    state = ResumableLoader(Feed(samples_per_epoch=10, workers=2)).state_dict()
    with pytest.raises(ValueError, match="workers=2 in the checkpoint, 4 here"):
        ResumableLoader(Feed(samples_per_epoch=10, workers=4)).load_state_dict(state)
    with pytest.raises(ValueError, match="samples_per_epoch=10 in the checkpoint, 11 here"):
        ResumableLoader(Feed(samples_per_epoch=11)).load_state_dict(state)


@pytest.mark.filterwarnings("ignore:corrupt sample")
def test_a_plain_loader_starts_anew_each_time():
    loader = FeedLoader(Feed())
    assert take(loader, 2) == [0, 2]
    assert first(loader) == [0, 2, 4, 6, 8]


def test_corrupt_samples_are_counted_and_reported():
    loader = ResumableLoader(Feed())
    with pytest.warns(UserWarning, match="corrupt sample passed over: photo 7"):
        list(loader)
    assert loader.report() == "10.0% of the samples were corrupt (1 among 10 on this rank); for example photo 7"
    resumed = ResumableLoader(Feed())
    resumed.load_state_dict(loader.state_dict())
    assert (resumed.seen, resumed.corrupt) == (10, 1)
    loader.seen = 100
    assert loader.report() is None


def test_a_reader_without_a_caption_says_so():
    def crop(data, rng):
        return torch.zeros(3, 4, 4, dtype=torch.uint8)

    with pytest.raises(ValueError, match="no caption"):
        Reader(crop, torch.tensor, 0)(b"", [], 0, 0)
    assert Reader(crop, None, 0)(b"", [], 0, 0).text_ids is None


def test_a_stack_keeps_images_texts_and_problems():
    samples = [Sample(torch.full((3, 2, 2), n, dtype=torch.uint8), torch.tensor([n]), ("a",) * n) for n in range(3)]
    loaded = stack(samples)
    assert loaded.batch.images.shape == (3, 3, 2, 2)
    assert loaded.batch.images.dtype == torch.uint8
    assert loaded.batch.text_ids.tolist() == [[0], [1], [2]]
    assert loaded.problems == ["a", "a", "a"]
