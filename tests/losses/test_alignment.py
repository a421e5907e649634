import pytest
import torch

from unitok.losses.alignment import cosine_loss, to_grid


def test_cosine_by_hand():
    a, b = torch.tensor([[1.0, 0.0], [1.0, 1.0]]), torch.tensor([[0.0, 3.0], [2.0, 2.0]])
    assert float(cosine_loss(a, b)) == pytest.approx(0.5)


def test_grids():
    maps = torch.arange(16.0).view(1, 4, 4, 1)
    assert to_grid(maps, (2, 2)).flatten().tolist() == [2.5, 4.5, 10.5, 12.5]
    assert to_grid(maps, (8, 8)).shape == (1, 8, 8, 1)
