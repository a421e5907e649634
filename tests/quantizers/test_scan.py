import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from unitok.quantizers import nearest_by_scan


def units(count: int, width: int, seed: int) -> Tensor:
    return F.normalize(torch.randn(count, width, generator=torch.Generator().manual_seed(seed)), dim=-1)


def assert_winners(vectors: Tensor, table: Tensor) -> None:
    """The chosen code is the exact winner, or one whose cosine cannot be told from it in float32."""
    found = nearest_by_scan(vectors, table, table.bfloat16())
    scores = vectors.double() @ table.double().T
    best, second = scores.topk(2, -1).values.unbind(-1)
    clear = best - second > 1e-6
    assert clear.float().mean() > 0.9
    assert torch.equal(found[clear], scores.argmax(-1)[clear])
    assert (best - scores.gather(1, found[:, None])[:, 0]).max() < 1e-6


def test_random_vectors() -> None:
    assert_winners(units(300, 64, 0), units(10_000, 64, 1))


def test_vectors_near_codes() -> None:
    table = units(9000, 32, 2)
    assert_winners(F.normalize(table[::30] + 0.02 * units(300, 32, 3), dim=-1), table)


def test_a_crowd_of_candidates_is_searched_in_float32() -> None:
    table = F.normalize(torch.ones(500, 16) + 0.02 * units(500, 16, 4), dim=-1)
    assert_winners(units(40, 16, 5), table)


@pytest.mark.parametrize("sign", [1, -1])
def test_ties_go_to_the_smallest_code_and_all_negative_scores_have_a_winner(sign: int) -> None:
    table = sign * torch.eye(3)[[0, 1, 1, 2, 1]]
    vectors = torch.eye(3)[[0, 1, 2]]
    expected = (vectors @ table.T).argmax(-1)
    assert torch.equal(nearest_by_scan(vectors, table, table.bfloat16()), expected)
