import math

import torch
from torch.nn import functional as F

from unitok.quantizers.entropy import assignment_entropy


def test_it_is_the_term_written_out_by_hand_whole_or_in_parts() -> None:
    generator = torch.Generator().manual_seed(0)
    vectors, book = (F.normalize(torch.randn(n, 4, generator=generator), dim=-1) for n in (50, 9))
    rows = []
    for vector in vectors.double():
        weights = [math.exp(-((vector - entry) ** 2).sum().item() / 0.3) for entry in book.double()]
        rows.append([weight / sum(weights) for weight in weights])
    own = sum(-p * math.log(p) for row in rows for p in row) / len(rows)
    means = [sum(column) / len(rows) for column in zip(*rows, strict=True)]
    expected = own + sum(p * math.log(p) for p in means)
    for parts in (7, 1024):
        assert abs(assignment_entropy(vectors, book, 0.3, rows=parts).item() - expected) < 1e-4


def test_least_where_every_token_has_a_code_of_its_own_and_zero_where_all_share_one() -> None:
    book = torch.eye(8)
    assert abs(assignment_entropy(book, book, 0.01).item() + math.log(8)) < 1e-3
    assert abs(assignment_entropy(book[:1].expand(8, -1), book, 0.01).item()) < 1e-3
