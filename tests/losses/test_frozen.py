import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from unitok.losses.frozen import Frozen, TimmNetwork


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.manual_seed(0)
    network = timm.create_model("test_efficientnet")
    path = tmp_path_factory.mktemp("weights") / "model.safetensors"
    save_file(network.state_dict(), path)
    return network.eval(), str(path)


def test_is_hidden_but_moves_along():
    frozen = nn.Sequential(Frozen(nn.Linear(2, 2))).double().train()
    assert not list(frozen.parameters())
    assert not frozen.state_dict()
    assert frozen[0].network.weight.dtype == torch.float64
    assert not frozen[0].network.training
    inputs = torch.ones(1, 2, dtype=torch.float64, requires_grad=True)
    frozen(inputs).sum().backward()
    assert inputs.grad is not None
    assert frozen[0].network.weight.grad is None


def test_features_are_timms(weights):
    network, path = weights
    ours = TimmNetwork("test_efficientnet", path)
    images = torch.rand(2, 3, 64, 64)
    mean, deviation = (torch.tensor(network.pretrained_cfg[key]).view(3, 1, 1) for key in ("mean", "std"))
    with torch.no_grad():
        wanted = network.forward_features((images - mean) / deviation)
        torch.testing.assert_close(ours(images), wanted.permute(0, 2, 3, 1))
    assert ours.num_features == wanted.shape[1]


def test_missing_and_unfit_weights(weights, tmp_path):
    with pytest.raises(FileNotFoundError, match="no weights of test_efficientnet at nowhere"):
        TimmNetwork("test_efficientnet", "nowhere")
    save_file({"a": torch.zeros(1)}, tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match="does not fit timm's 'test_efficientnet'"):
        TimmNetwork("test_efficientnet", str(tmp_path / "a.safetensors"))
