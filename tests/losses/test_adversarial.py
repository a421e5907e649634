import pytest
import torch

from unitok.losses.adversarial import adaptive_weight, consistency_loss, discriminator_loss, generator_loss

REAL, FAKE = torch.tensor([[2.0, 0.5]]), torch.tensor([[-2.0, 0.5]])


def test_criteria_by_hand():
    assert discriminator_loss(REAL, FAKE) == pytest.approx((0 + 0.5) / 2 + (0 + 1.5) / 2)
    softplus = torch.log1p(torch.exp(torch.tensor([-2.0, -0.5]))).mean() + torch.log1p(torch.exp(FAKE)).mean()
    assert discriminator_loss(REAL, FAKE, "softplus") == pytest.approx(float(softplus))
    assert discriminator_loss(REAL, FAKE, "linear") == pytest.approx(-0.75 - 1.25)
    assert generator_loss(FAKE) == pytest.approx(0.75)


def test_unknown_criterion():
    with pytest.raises(ValueError, match="'hing' is not one of"):
        discriminator_loss(REAL, FAKE, "hing")


def test_adaptive_weight_is_a_clamped_ratio_of_norms():
    three, four = torch.full((9,), 1.0), torch.full((16,), 0.5)  # norms 3 and 2
    assert adaptive_weight(three, four, 0.0, 1e4) == pytest.approx(1.5, rel=1e-4)
    assert adaptive_weight(three, four, 0.0, 1.2) == pytest.approx(1.2)
    assert adaptive_weight(0 * three, four, 0.015, 1e4) == pytest.approx(0.015)


def test_consistency_pulls_at_both():
    strong, plain = torch.tensor([1.0], requires_grad=True), torch.tensor([0.0], requires_grad=True)
    consistency_loss(strong, plain).backward()
    assert (strong.grad, plain.grad) == (torch.tensor([2.0]), torch.tensor([-2.0]))
