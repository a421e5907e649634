import open_clip
import pytest
import torch
from open_clip.model import CLIPTextCfg, CustomTextCLIP
from safetensors.torch import save_file
from torch.nn import functional as F

from unitok.encoders import ViTaminEncoder
from unitok.models.open_clip import initialise_from_open_clip
from unitok.quantizers import MultiCodebookQuantizer
from unitok.text import ContrastiveHead, TextTower
from unitok.tokenizer import Tokenizer

TEXT = {"width": 32, "heads": 2, "layers": 1, "vocab_size": 100, "context_length": 8}


@pytest.fixture(scope="module")
def clip() -> CustomTextCLIP:
    torch.manual_seed(0)
    vision = {"timm_model_name": "vitamin_small_224", "timm_pool": "", "timm_proj": "linear", "image_size": 64}
    with torch.device("meta"):
        model = CustomTextCLIP(24, vision, CLIPTextCfg(**TEXT)).eval()
    del model.visual.trunk.blocks[2:]
    model = model.to_empty(device="cpu").requires_grad_(False)
    for parameter in model.parameters():
        parameter.normal_(std=0.1)
    model.text.attn_mask = model.text.build_causal_mask()
    return model


@pytest.fixture(scope="module")
def state(clip) -> dict[str, torch.Tensor]:
    state = {name: tensor.clone() for name, tensor in clip.state_dict().items()}
    clip.visual.trunk.pos_embed = None  # the one thing the encoder leaves out: any size, no learned positions
    return state


def small(depth: int = 2, width: int = 64) -> Tokenizer:
    return Tokenizer(
        encoder=ViTaminEncoder((width, 128, 384), (2, 4), depth=depth, num_heads=6),
        project_in=torch.nn.Linear(384, 8),
        quantizer=MultiCodebookQuantizer(2, 16, 8),
        project_out=torch.nn.Linear(8, 384),
        decoder=None,
        contrast=ContrastiveHead(384, 24, TextTower(24, **TEXT)),
    ).eval()


@torch.no_grad()
def test_features_are_those_of_the_open_clip_model(clip, state):
    tokenizer = small()
    logit_scale = tokenizer.contrast.logit_scale.clone()
    images, text_ids = torch.rand(2, 3, 64, 96), torch.randint(1, 100, (3, 8))
    done = initialise_from_open_clip(tokenizer, state)
    expected = F.layer_norm(clip.visual.trunk.forward_features(2 * images - 1), (384,), eps=1e-6)
    torch.testing.assert_close(tokenizer.encoder(images), expected.unflatten(1, (4, 6)), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(tokenizer.encode_text(text_ids), clip.encode_text(text_ids), atol=1e-6, rtol=1e-5)
    assert tokenizer.contrast.logit_scale == logit_scale
    assert "logit_scale" in done.left
    assert {name.rpartition(".")[0] for name in done.left} == {
        "",
        "visual.trunk",
        "visual.trunk.fc_norm",
        "visual.head.proj",
    }
    parts = {name.split(".")[0] for name in done.taken}
    assert parts == {"encoder", "contrast"}
    assert len(done.taken) == len(state) - len(done.left)


def test_files_and_a_prefix(clip, state, tmp_path):
    save_file(state, tmp_path / "clip.safetensors")
    torch.save({"state_dict": {f"module.{k}": v for k, v in state.items()}, "epoch": 3}, tmp_path / "clip.pt")
    for name in ("clip.safetensors", "clip.pt"):
        tokenizer = small()
        assert initialise_from_open_clip(tokenizer, tmp_path / name).taken
        assert torch.equal(tokenizer.encoder.blocks[0].norm1.bias, clip.visual.trunk.blocks[0].norm1.bias)


def test_what_does_not_fit_is_refused(state, tmp_path):
    with pytest.raises(ValueError, match=r"another size of model: visual\.trunk"):
        initialise_from_open_clip(small(width=32), state)
    with pytest.raises(ValueError, match=r"not in the checkpoint: encoder\.blocks\.2"):
        initialise_from_open_clip(small(depth=3), state)
    with pytest.raises(ValueError, match=r"no weights of a ViTamin encoder.*visual\.conv1"):
        initialise_from_open_clip(small(), {"visual.conv1.weight": torch.zeros(1)})
    with pytest.raises(FileNotFoundError, match="nothing"):
        initialise_from_open_clip(small(), tmp_path / "nothing.pt")
    torch.save({"model": torch.nn.Linear(1, 1)}, tmp_path / "pickle.pt")
    with pytest.raises(ValueError, match="more than weights"):
        initialise_from_open_clip(small(), tmp_path / "pickle.pt")
    (tmp_path / "cut.safetensors").write_bytes(b"\x00" * 12)
    with pytest.raises(ValueError, match="not a readable checkpoint"):
        initialise_from_open_clip(small(), tmp_path / "cut.safetensors")


def test_released_open_clip_vitamin_has_the_widths_this_library_gives_large():
    config = open_clip.get_model_config("ViTamin-L-256")
    assert config["vision_cfg"]["timm_model_name"] == "vitamin_large_256"
    assert (config["text_cfg"]["width"], config["text_cfg"]["layers"], config["embed_dim"]) == (768, 12, 768)
