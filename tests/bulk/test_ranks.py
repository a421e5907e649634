import pytest

from unitok.bulk.ranks import Rank, launched_rank

NAMES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID")


@pytest.mark.parametrize(
    ("variables", "rank"),
    [
        ({}, Rank(0, 1, 0)),
        ({"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}, Rank(5, 8, 1)),
        ({"SLURM_PROCID": "2", "SLURM_NTASKS": "3", "SLURM_LOCALID": "2"}, Rank(2, 3, 2)),
        ({"RANK": "0", "WORLD_SIZE": "1", "SLURM_PROCID": "2", "SLURM_NTASKS": "3"}, Rank(0, 1, 0)),
    ],
)
def test_launchers(variables: dict[str, str], rank: Rank, monkeypatch: pytest.MonkeyPatch):
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert launched_rank() == rank


def test_nonsense(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(ValueError, match=r"RANK=3 .* WORLD_SIZE=3"):
        launched_rank()


@pytest.mark.parametrize("world", [1, 2, 3, 4, 8])
def test_each_shard_has_one_owner_and_shares_are_even(world: int):
    owners = [[r for r in range(world) if Rank(r, world).owns(shard)] for shard in range(5 * world)]
    assert all(len(owner) == 1 for owner in owners)
    assert [owners.count([r]) for r in range(world)] == [5] * world


@pytest.mark.parametrize(("world", "again"), [(4, 2), (8, 4), (2, 4), (3, 2)])
def test_what_a_lost_process_left_is_spread_over_others(world: int, again: int):
    left = [shard for shard in range(64 * world) if Rank(1, world).owns(shard)]
    shares = [sum(Rank(r, again).owns(shard) for shard in left) for r in range(again)]
    assert max(shares) <= 1.2 * min(shares)
