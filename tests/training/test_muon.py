import pytest
import torch

from unitok.training.muon import Muon, orthogonal


@pytest.mark.parametrize("shape", [(24, 24), (48, 16), (16, 48)])
def test_steps_are_those_of_torch_up_to_its_bfloat16(shape):
    torch.manual_seed(0)
    start = torch.randn(shape)
    ours, theirs = (torch.nn.Parameter(start.clone()) for _ in range(2))
    mine = Muon([ours], lr=0.02, weight_decay=0.1)
    oracle = torch.optim.Muon([theirs], 0.02, 0.1, adjust_lr_fn="original")
    for _ in range(5):
        ours.grad = torch.randn(shape)
        theirs.grad = ours.grad.clone()
        mine.step()
        oracle.step()
    moved = (theirs - start).norm()
    assert (ours - theirs).norm() < 0.01 * moved
    state = mine.state_dict()["state"][0]
    torch.testing.assert_close(state, oracle.state_dict()["state"][0])
    oracle.load_state_dict(mine.state_dict())  # and a run goes on in either


def test_orthogonal_makes_singular_values_alike():
    torch.manual_seed(0)
    values = torch.linalg.svdvals(orthogonal(torch.randn(12, 30), (3.4445, -4.7750, 2.0315), steps=5, eps=1e-7))
    assert 0.6 < values.min() < values.max() < 1.3
    assert orthogonal(torch.zeros(3, 4), (3.4445, -4.7750, 2.0315), steps=5, eps=1e-7).equal(torch.zeros(3, 4))


def test_parameters_without_gradient_stay():
    weight = torch.nn.Parameter(torch.ones(2, 2))
    Muon([weight], lr=0.02, weight_decay=0.1).step()
    assert weight.equal(torch.ones(2, 2))
