import pytest
import torch

from unitok.encoders import SiglipEncoder


def encoder(image_size: int = 56) -> SiglipEncoder:
    torch.manual_seed(0)
    return SiglipEncoder(image_size, patch_size=8, dim=16, depth=2, num_heads=2, mlp_dim=24).eval()


@torch.no_grad()
def test_features_are_those_of_transformers_siglip_one_block_before_its_end() -> None:
    from transformers import SiglipVisionConfig, SiglipVisionModel

    ours = encoder()
    config = SiglipVisionConfig(
        hidden_size=16, intermediate_size=24, num_hidden_layers=3, num_attention_heads=2, image_size=56, patch_size=8
    )
    theirs = SiglipVisionModel(config).eval()
    model = getattr(theirs, "vision_model", theirs)
    model.embeddings.patch_embedding.load_state_dict(ours.patches.state_dict())
    model.embeddings.position_embedding.weight.copy_(ours.positions)
    for block, layer in zip(ours.blocks, model.encoder.layers, strict=False):
        for part, name in zip(block.attn.qkv.weight.chunk(3), "qkv", strict=True):
            getattr(layer.self_attn, f"{name}_proj").weight.copy_(part)
            getattr(layer.self_attn, f"{name}_proj").bias.zero_()
        block.attn.qkv.bias.zero_()
        layer.self_attn.out_proj.load_state_dict(block.attn.proj.state_dict())
        for mine, other in [("norm1", "layer_norm1"), ("norm2", "layer_norm2")]:
            getattr(layer, other).load_state_dict(getattr(block, mine).state_dict())
        layer.mlp.fc1.load_state_dict(block.mlp.fc1.state_dict())
        layer.mlp.fc2.load_state_dict(block.mlp.fc2.state_dict())
    images = torch.rand(2, 3, 56, 56)
    expected = theirs(images * 2 - 1, output_hidden_states=True).hidden_states[-2]
    torch.testing.assert_close(ours.hidden(images).flatten(1, 2), expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_coarser_scale_averages_patches_and_drops_the_rest() -> None:
    room = encoder()  # 7 x 7 patches
    images = torch.rand(1, 3, 56, 56)
    hidden = room.hidden(images)
    assert room(images, scale=2).shape == (1, 3, 3, 16)
    expected = room.task(hidden[:, 4:6, 2:4].mean((1, 2)))
    torch.testing.assert_close(room(images, scale=2)[:, 2, 1], expected)
    torch.testing.assert_close(room(images, scale=3)[:, 0, 1], room.task(hidden[:, 0:3, 3:6].mean((1, 2))))


@torch.no_grad()
def test_other_sizes_are_resized_after_scaling_with_antialias() -> None:
    from torchvision.transforms.v2.functional import resize

    room, images = encoder(), torch.rand(1, 3, 100, 40)
    resized = resize(images * 2 - 1, [56, 56], antialias=True)
    torch.testing.assert_close(room(images), room(resized / 2 + 0.5), atol=1e-5, rtol=1e-5)


def test_sizes_that_cannot_be() -> None:
    with pytest.raises(ValueError, match="2 patches a side"):
        encoder(image_size=16)
    with pytest.raises(ValueError, match="multiple of num_heads=3"):
        SiglipEncoder(56, 8, dim=16, depth=1, num_heads=3, mlp_dim=8)
