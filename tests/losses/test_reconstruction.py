import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio

from unitok.losses.reconstruction import l1, l2, psnr


def test_by_hand():
    a, b = torch.tensor([0.0, 1.0, -1.0]), torch.tensor([0.5, 1.0, 1.0])
    assert l1(a, b) == pytest.approx(2.5 / 3)
    assert l2(a, b) == pytest.approx(4.25 / 3)


def test_psnr_is_that_of_skimage_for_each_image():
    torch.manual_seed(0)
    a, b = torch.rand(3, 3, 16, 16), torch.rand(3, 3, 16, 16)
    wanted = [peak_signal_noise_ratio(y.numpy(), x.numpy(), data_range=1.0) for x, y in zip(a, b, strict=True)]
    assert float(psnr(a, b)) == pytest.approx(sum(wanted) / 3, abs=1e-4)
