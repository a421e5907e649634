import pytest
import timm
import torch
from safetensors.torch import save_file

from unitok.losses.discriminators import DinoDiscriminator, PatchDiscriminator, _fit


def test_patch_discriminator():
    logits = PatchDiscriminator(8, 2)(torch.zeros(2, 3, 32, 32))
    assert logits.shape == (2, 36)  # 32 -> 16 -> 8 -> 7 -> 6


@pytest.fixture(scope="module")
def dino(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "vit.safetensors"
    save_file(timm.create_model("vit_small_patch14_dinov2").state_dict(), path)
    return DinoDiscriminator(str(path))


@pytest.mark.slow
def test_dino_discriminator_has_the_published_heads(dino):
    state = dino.state_dict()
    assert sum(t.numel() for t in state.values()) == 7_386_245
    assert len(state) == 50 or len(state) == 52  # the published 52 count two pixel-normalisation buffers
    images = torch.rand(1, 3, 256, 256, requires_grad=True)
    logits = dino(images)
    assert logits.shape == (1, 1620)
    logits.sum().backward()
    assert images.grad.abs().sum() > 0
    assert all(p.grad is not None for p in dino.parameters())


@pytest.mark.parametrize(("side", "wanted"), [(256, 252), (28, 28), (10, 14)])
def test_sides_become_multiples_of_the_patch(side, wanted):
    assert _fit(torch.zeros(1, 3, side, side), 14).shape[2:] == (wanted, wanted)
