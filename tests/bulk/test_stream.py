from pathlib import Path

import pytest
from torch.utils.data import DataLoader

from tests.bulk.inputs import tiny_tokenizer, write_tars
from unitok.bulk import TokenStream, tokenize


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven shards of five images."""
    folder = tmp_path_factory.mktemp("run")
    tokenize(write_tars(folder / "in", 7, 5, broken=False), str(folder / "out"), tiny_tokenizer(), device="cpu")
    return folder / "out"


def _keys(stream) -> list[str]:
    return [sample.key for sample in stream]


def test_each_epoch_is_another_order_of_all(folder: Path):
    stream, again = TokenStream(folder, window=2), TokenStream(folder, window=2)
    first, second = _keys(stream), _keys(stream)
    assert sorted(first) == sorted(second) == [f"{i:05}" for i in range(35)]
    assert first != second
    assert _keys(again) == first
    assert _keys(TokenStream(folder, window=2, seed=1)) != first
    assert _keys(TokenStream(folder, shuffle=False)) == sorted(first)


@pytest.mark.parametrize("world", [2, 3, 4])
def test_ranks_share_out(folder: Path, world: int):
    shares = [_keys(TokenStream(folder, rank=rank, world_size=world)) for rank in range(world)]
    assert [len(share) for share in shares] == [35 // world] * world
    assert len({key for share in shares for key in share}) == 35 // world * world


def test_workers_share_out(folder: Path):
    loader = DataLoader(TokenStream(folder, rank=1, world_size=2), batch_size=None, num_workers=2)
    other = DataLoader(TokenStream(folder, rank=0, world_size=2), batch_size=None, num_workers=2)
    keys = [sample.key for part in (loader, other) for sample in part]
    assert len(keys) == len(set(keys)) == 32


def test_goes_on_where_it_stopped(folder: Path):
    whole = TokenStream(folder)
    expected = _keys(whole) + _keys(whole)
    stream = TokenStream(folder)
    walk = iter(stream)
    seen = [next(walk).key for _ in range(13)]
    later = TokenStream(folder)
    later.load_state_dict(stream.state_dict())
    assert seen + _keys(later) + _keys(later) == expected


def test_goes_on_with_another_number_of_ranks(folder: Path):
    streams = [TokenStream(folder, rank=rank, world_size=2) for rank in range(2)]
    walks = [iter(stream) for stream in streams]
    seen = [next(walk).key for _ in range(6) for walk in walks]
    states = [stream.state_dict() for stream in streams]
    assert states[0] == states[1]
    for rank in range(3):
        stream = TokenStream(folder, rank=rank, world_size=3)
        stream.load_state_dict(states[0])
        seen += _keys(stream)
    assert len(seen) == len(set(seen)) == 33


def test_refused(folder: Path):
    with pytest.raises(ValueError, match=r"rank=2 .* world_size=2"):
        TokenStream(folder, rank=2, world_size=2)
    state = TokenStream(folder, seed=1).state_dict()
    with pytest.raises(ValueError, match="seed=1"):
        TokenStream(folder).load_state_dict(state)
