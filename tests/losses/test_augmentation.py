import pytest
import torch
from scipy.ndimage import gaussian_filter

from unitok.losses import augmentation
from unitok.losses.augmentation import augment, gaussian_blur


@pytest.mark.parametrize("sigma", [0.5, 1.5, 2.9])
def test_blur_is_the_gaussian_it_says(sigma):
    torch.manual_seed(0)
    images = torch.rand(2, 3, 24, 20, dtype=torch.float64)
    wanted = gaussian_filter(images.numpy(), (0, 0, sigma, sigma), mode="mirror", radius=int(3 * sigma))
    torch.testing.assert_close(gaussian_blur(images, sigma), torch.from_numpy(wanted), atol=1e-6, rtol=1e-6)


def test_a_blur_below_one_pixel_is_none():
    images = torch.rand(1, 3, 8, 8)
    assert gaussian_blur(images, 0.2) is images


def test_translation_moves_pixels_and_fills_with_zero():
    torch.manual_seed(1)
    images = torch.arange(1.0, 257).view(1, 1, 16, 16).expand(8, 3, 16, 16)
    moved = augmentation._translate(images)
    for before, after in zip(images, moved, strict=True):
        shifts = [(y, x) for y in range(-2, 3) for x in range(-2, 3) if torch.equal(after, _shift(before, y, x))]
        assert len(shifts) == 1


def _shift(image, down, right):
    padded = torch.nn.functional.pad(image, (2, 2, 2, 2))
    return padded[:, 2 - down : 18 - down, 2 - right : 18 - right]


def test_the_hole_is_a_fifth_of_each_side():
    torch.manual_seed(0)
    holes = augmentation._cut_out(torch.ones(64, 3, 20, 20), 0.2)
    sizes = (holes[:, 0] == 0).sum((1, 2))
    assert sizes.max() == 16
    assert sizes.min() >= 4  # cut by the border at most in half, each way


def test_probability_zero_and_gradient():
    images = torch.rand(2, 3, 16, 16, requires_grad=True)
    assert torch.equal(augment(images, probability=-1.0), images)
    augment(images, blur=0.5).square().sum().backward()
    assert images.grad.isfinite().all()
    assert images.grad.abs().sum() > 0
