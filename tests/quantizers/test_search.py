import pytest
import torch
from torch import Tensor

from unitok.quantizers import check_codes, nearest, search


def brute_force(vectors: Tensor, codebook: Tensor, offset: Tensor | None = None) -> Tensor:
    scores = torch.tensor([[float(v @ c) for c in codebook] for v in vectors])
    return (scores if offset is None else scores + offset).argmax(-1)


@pytest.mark.parametrize("count", [1, 15, 16, 17, 50])
def test_nearest_is_the_brute_force_argmax(count: int) -> None:
    torch.manual_seed(count)
    vectors, codebook = torch.randn(count, 4, dtype=torch.float64), torch.randn(23, 4, dtype=torch.float64)
    assert torch.equal(nearest(vectors, codebook), brute_force(vectors, codebook))


def test_an_offset_turns_the_search_into_squared_distance() -> None:
    torch.manual_seed(0)
    vectors, codebook = torch.randn(40, 4), torch.randn(23, 4)
    expected = torch.cdist(vectors, codebook).argmin(-1)
    assert torch.equal(nearest(vectors, codebook, -codebook.square().sum(-1) / 2), expected)


def test_the_first_maximum_wins() -> None:
    codebook = torch.tensor([[0.0, 1.0], [1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    vectors = torch.tensor([[2.0, 0.0], [0.0, 2.0], [1.0, 1.0]]).repeat(30, 1)
    assert nearest(vectors, codebook).tolist() == [1, 0, 0] * 30


def test_the_search_is_float32_under_autocast() -> None:
    torch.manual_seed(0)
    vectors, codebook = torch.randn(200, 8), torch.randn(512, 8)
    with torch.autocast("cpu", torch.bfloat16):
        codes = nearest(vectors, codebook)
    assert torch.equal(codes, nearest(vectors, codebook))
    lossy = (vectors.bfloat16() @ codebook.bfloat16().T).argmax(-1)
    assert not torch.equal(codes, lossy)  # otherwise this test could not see the difference


def test_a_wide_codebook_is_read_for_many_rows_at_once() -> None:
    assert search._rows(4096, 8, "cpu") == 16
    assert search._rows(65536, 1536, "cpu") >= 256
    assert search._rows(4096, 8, "cuda") * 4096 * 4 == search.GPU_SCORE_BYTES


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        (torch.zeros(1, 2, 3, 3), "integers"),
        (torch.zeros(1, 2, 3, 3, dtype=torch.bool), "integers"),
        (torch.zeros(1, 3, 3, 3, dtype=torch.int64), "K=2"),
        (torch.zeros(2, 3, 3, dtype=torch.int64), r"\(2, 3, 3\)"),
        (torch.full((1, 2, 3, 3), 7), "from 7 to 7"),
        (torch.full((1, 2, 3, 3), -1), "from -1 to -1"),
    ],
)
def test_what_is_no_code_is_refused(codes: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_codes(codes, num_codebooks=2, codebook_size=7)


def test_the_range_is_not_read_where_told_not_to() -> None:
    check_codes(torch.full((1, 2, 3, 3), 7), num_codebooks=2, codebook_size=7, validate=False)
    check_codes(torch.zeros(1, 2, 0, 3, dtype=torch.int64), num_codebooks=2, codebook_size=7)


@pytest.mark.parametrize("with_offset", [False, True])
def test_blocks_of_a_large_table_give_the_answer_of_the_whole(
    monkeypatch: pytest.MonkeyPatch, with_offset: bool
) -> None:
    monkeypatch.setattr(search, "SMALL_TABLE", 0)
    monkeypatch.setattr(search, "BLOCK", 7)
    monkeypatch.setattr(search, "BLOCK_BYTES", 4 * 7 * 3)
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
