import pytest
import torch

from unitok.evaluation.ranks import Ranks, join


@pytest.mark.parametrize(("size", "count"), [(1, 5), (2, 5), (3, 2), (8, 100)])
def test_every_photo_has_exactly_one_rank(size, count):
    shares = [Ranks(rank, size, torch.device("cpu")).share(count) for rank in range(size)]
    assert sorted(index for share in shares for index in share) == list(range(count))


def test_alone_nothing_is_exchanged(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    ranks = join("cpu")
    assert (ranks.rank, ranks.size, ranks.device, ranks.first) == (0, 1, torch.device("cpu"), True)
    assert ranks.gather("mine") == ["mine"]
