import pytest
import torch
from torch import nn

from unitok.losses.adversarial import adaptive_weight, generator_loss
from unitok.training.adversary import Adversary, Moment, judge, pull

STILL = Adversary(augmentation=-1.0)  # no augmentation: nothing is drawn


def test_the_clock():
    adversary = Adversary(start=0.5, warmup=0.1, blur=0.2)
    assert Moment.at(49, 100, adversary) == (False, 0.0, 1.0)
    assert Moment.at(50, 100, adversary) == (True, 0.0, 1.0)
    assert Moment.at(55, 100, adversary) == (True, 0.5, 0.75)
    assert Moment.at(90, 100, adversary) == (True, 1.0, 0.0)


def test_one_pass_gives_the_gradient_of_the_two_pass_form():
    torch.manual_seed(0)
    decoder = nn.Sequential(nn.Conv2d(4, 8, 3, padding=1), nn.GELU(), nn.Conv2d(8, 3, 3, padding=1)).double()
    discriminator = nn.Sequential(nn.Conv2d(3, 4, 3), nn.GELU(), nn.Conv2d(4, 1, 3), nn.Flatten()).double()
    features, images = torch.randn(2, 4, 8, 8).double(), torch.rand(2, 3, 8, 8).double()
    last = decoder[2].weight

    reconstructed = decoder(features)  # as in the paper: autograd asked for the last layer twice, then for everything
    pixels = (2 * reconstructed - 2 * images).square().mean()
    adversarial = generator_loss(discriminator(2 * reconstructed - 1))
    norms = [torch.autograd.grad(loss, last, retain_graph=True)[0] for loss in (pixels, adversarial)]
    weight = adaptive_weight(*norms, 0.015, 1e4) * 0.25 * 0.4
    wanted = torch.autograd.grad(pixels + weight * adversarial, list(decoder.parameters()))

    reconstructed = decoder(features)
    leaf = reconstructed.detach().requires_grad_()
    pixels = (2 * leaf - 2 * images).square().mean()
    moment = Moment(True, 0.25, 0.0)
    pulled = pull(pixels, leaf, reconstructed, discriminator, last, STILL, moment, 0.4, lambda tensor: tensor)
    found = torch.autograd.grad((reconstructed * pulled.gradient).sum(), list(decoder.parameters()))

    torch.testing.assert_close(pulled.weight, weight)
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b)


def test_the_judge_by_hand():
    mean = nn.Sequential(nn.Flatten(), nn.AvgPool1d(12))  # logit = mean of the image
    real, fake = torch.full((1, 3, 2, 2), 0.5), torch.full((1, 3, 2, 2), -0.5)
    loss, consistency = judge(real, fake, mean, STILL, Moment(True, 1.0, 0.0), consistency=0.0)
    assert float(loss) == pytest.approx(0.5 + 0.5)
    assert float(consistency) == 0
    assert float(judge(real, fake, mean, STILL, Moment(True, 1.0, 0.0), consistency=1.0)[1]) > 0
