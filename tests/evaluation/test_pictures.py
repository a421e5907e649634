import numpy as np
import pytest
import torch

from unitok.evaluation.pictures import best_middle_worst, grid


def test_best_middle_and_worst_by_hand():
    scores = {10: 5.0, 11: 1.0, 12: 9.0, 13: 7.0, 14: 3.0, 15: 8.0, 16: 2.0}
    expected = [("best", 12), ("best", 15), ("median", 13), ("median", 10), ("worst", 16), ("worst", 11)]
    assert best_middle_worst(scores) == expected
    assert best_middle_worst({3: 1.0, 4: 2.0}) == [("best", 4), ("best", 3)]  # nobody stands twice


def test_a_row_shows_the_original_the_copy_and_four_times_the_error():
    original = torch.full((3, 32, 32), 0.5)
    copy = original.clone()
    copy[:, 3, 5] += 0.1
    pixels = np.asarray(grid([("best", original, copy), ("worst", copy, copy)]))
    assert pixels.shape == (2 * (32 + 16), 3 * 32, 3)
    assert pixels[16 + 3, 5].tolist() == [128] * 3
    assert pixels[16 + 3, 32 + 5].tolist() == [153] * 3
    assert pixels[16 + 3, 64 + 5].tolist() == [102] * 3
    assert pixels[16 + 4 :, 64:][:28].max() == 0
    with pytest.raises(ValueError, match="at least one row"):
        grid([])
