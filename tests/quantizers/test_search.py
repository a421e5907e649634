import pytest
import torch

from unitok.quantizers import nearest, search


def brute_force(vectors: torch.Tensor, table: torch.Tensor, offset: torch.Tensor | None = None) -> torch.Tensor:
    scores = vectors.double() @ table.double().T
    return (scores if offset is None else scores + offset.double()).argmax(-1)


@pytest.mark.parametrize("with_offset", [False, True])
def test_blocks_of_a_large_table_give_the_answer_of_the_whole(
    monkeypatch: pytest.MonkeyPatch, with_offset: bool
) -> None:
    monkeypatch.setattr(search, "SMALL_TABLE", 0)
    monkeypatch.setattr(search, "BLOCK", 7)
    monkeypatch.setattr(search, "BLOCK_BYTES", 4 * 7 * 3)
    monkeypatch.setattr(search, "SCORE_BYTES", {"cpu": 0})
    generator = torch.Generator().manual_seed(0)
    vectors, table = torch.randn(20, 5, generator=generator), torch.randn(30, 5, generator=generator)
    offset = torch.randn(30, generator=generator) if with_offset else None
    assert torch.equal(nearest(vectors, table, offset), brute_force(vectors, table, offset))


def test_the_first_maximum_wins_across_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "SMALL_TABLE", 0)
    monkeypatch.setattr(search, "BLOCK", 2)
    table = torch.tensor([[0.0], [1.0], [0.5], [1.0], [1.0]])
    assert nearest(torch.ones(3, 1), table).tolist() == [1, 1, 1]


def test_no_vectors_have_no_codes() -> None:
    assert nearest(torch.empty(0, 4), torch.ones(3, 4)).shape == (0,)
