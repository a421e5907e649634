import pytest
import timm
import torch
from torch import nn

from unitok.encoders import ViTaminEncoder


def test_a_timm_vitamin_gives_the_same_features() -> None:
    torch.manual_seed(0)
    options = {"num_classes": 0, "global_pool": "", "img_size": 64, "act_layer": "gelu_tanh"}  # timm's own is erf
    theirs = timm.create_model("vitamin_small_224", **options).double().eval()
    nn.init.zeros_(theirs.pos_embed)  # UniTok's encoder knows no absolute positions
    ours = ViTaminEncoder((64, 128, 384), (2, 4), depth=14, num_heads=6).double().eval()
    ours.load_state_dict(
        {
            name.replace("patch_embed.backbone.", "stages."): tensor
            for name, tensor in theirs.state_dict().items()
            if not name.startswith(("pos_embed", "fc_norm", "head"))
        }
        | {"pos_embed": torch.zeros(1, 1, 384)}
    )
    images = torch.rand(1, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        expected = theirs.forward_features(images * 2 - 1)
        torch.testing.assert_close(ours(images).flatten(1, 2), expected, atol=1e-10, rtol=0)


def test_the_frozen_position_offset_is_added_to_every_token() -> None:
    encoder = ViTaminEncoder((8, 16, 32), (1, 1), depth=0, num_heads=2).eval()
    encoder.norm = nn.Identity()
    images = torch.rand(1, 3, 32, 32)
    before = encoder(images)
    assert not encoder.pos_embed.requires_grad
    encoder.pos_embed.fill_(3)
    torch.testing.assert_close(encoder(images), before + 3)


@pytest.mark.parametrize(("height", "width"), [(16, 16), (32, 80), (64, 16)])
def test_the_grid_is_the_image_over_16(height: int, width: int) -> None:
    encoder = ViTaminEncoder((8, 16, 32), (1, 1), depth=1, num_heads=2)
    assert encoder(torch.rand(2, 3, height, width)).shape == (2, height // 16, width // 16, 32)
