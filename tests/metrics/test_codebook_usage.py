import pytest
import torch

from unitok.metrics.codebook_usage import CodebookUsage


def test_counted_by_hand():
    usage = CodebookUsage(2, 4)
    usage.update(torch.tensor([[[[0, 0]], [[1, 2]]]]))  # (B 1, K 2, h 1, w 2)
    usage.update(torch.tensor([[[[1, 1]], [[3, 0]]]]))
    share, perplexity, alive = usage.compute()
    assert share.tolist() == [0.5, 1.0]
    assert perplexity.tolist() == pytest.approx([2.0, 4.0])
    assert alive.tolist() == [[True, True, False, False], [True] * 4]


def test_an_entry_under_one_per_cent_of_the_uniform_share_is_dead():
    usage = CodebookUsage(1, 2)
    codes = torch.zeros(1, 1, 1, 1000, dtype=torch.int64)
    codes[..., :5] = 1
    usage.update(codes)  # 0.5 % against 0.01 / 2 = 0.5 %
    assert usage.compute().alive.tolist() == [[True, False]]


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_after_a_reset_nothing_is_counted():
    usage = CodebookUsage(2, 4)
    usage.update(torch.zeros(1, 2, 2, 2, dtype=torch.int64))
    usage.reset()
    assert usage.compute().share.tolist() == [0.0, 0.0]
    assert usage.compute().perplexity.tolist() == [1.0, 1.0]


def test_one_codebook():
    usage = CodebookUsage(1, 4)
    usage.update(torch.arange(2).view(1, 1, 1, 2))
    assert usage.compute().share.item() == 0.5
