"""What every tokenizer promises. Each module of `unitok.models` that has a `tiny()` is found and held to it."""

import importlib
import pkgutil
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

import unitok.models
from unitok.hub import load_tokenizer, save_tokenizer
from unitok.models import TOKENIZERS
from unitok.tokenizer import Tokenizer

MODULES = [
    module
    for info in pkgutil.iter_modules(unitok.models.__path__)
    if hasattr(module := importlib.import_module(f"unitok.models.{info.name}"), "tiny")
]


@pytest.fixture(params=MODULES, ids=lambda module: module.__name__.rpartition(".")[2])
def module(request: pytest.FixtureRequest) -> ModuleType:
    torch.manual_seed(0)
    return request.param


@pytest.fixture
def tokenizer(module: ModuleType) -> Tokenizer:
    return module.tiny().eval()


def photos(tokenizer: Tokenizer, count: int = 2, wide: bool = False) -> Tensor:
    size = tokenizer.image_size
    return torch.rand(count, 3, size, size + size // 4 // 16 * 16 + 16 if wide else size)


def needs_pixels(tokenizer: Tokenizer) -> None:
    """Some tokenizers end at features; their pixels come from a de-tokenizer of its own."""
    if tokenizer.decoder is None:
        pytest.skip("no pixel decoder")


def test_every_model_file_of_the_catalogue_is_found() -> None:
    homes = {builder.__module__ for builder in TOKENIZERS.values()}
    wrapper = {"unitok.models.detokenizers"}  # puts another decoder on tokenizers that are found by themselves
    assert homes - wrapper <= {module.__name__ for module in MODULES}


def test_codes_are_int64_in_range_and_deterministic(tokenizer: Tokenizer) -> None:
    images = photos(tokenizer)
    codes = tokenizer.encode(images)
    assert codes.dtype == torch.int64
    assert codes.ndim == 4
    assert codes.shape[:2] == (2, tokenizer.num_codebooks)
    assert codes.min() >= 0
    assert codes.max() < tokenizer.codebook_size
    assert torch.equal(codes, tokenizer.encode(images))
    assert not torch.is_inference(codes)


def test_features_lie_on_the_grid_of_the_codes(tokenizer: Tokenizer) -> None:
    codes = tokenizer.encode(photos(tokenizer))
    features = tokenizer.features(codes)
    assert features.shape[:3] == (2, *codes.shape[2:])


@pytest.mark.parametrize("wide", [False, True])
def test_decoded_images_have_the_encoded_size_and_lie_in_the_unit_range(tokenizer: Tokenizer, wide: bool) -> None:
    needs_pixels(tokenizer)
    images = photos(tokenizer, wide=wide)
    decoded = tokenizer.decode(tokenizer.encode(images))
    assert decoded.shape == images.shape
    assert decoded.dtype == torch.float32
    assert decoded.min() >= 0
    assert decoded.max() <= 1


def test_an_image_that_is_not_square_has_codes(tokenizer: Tokenizer) -> None:
    codes = tokenizer.encode(photos(tokenizer, wide=True))
    assert tokenizer.features(codes).shape[1:3] == codes.shape[2:]


@pytest.mark.parametrize("wide", [False, True])
def test_an_image_is_encoded_alike_alone_and_in_a_batch(tokenizer: Tokenizer, wide: bool) -> None:
    images = photos(tokenizer, count=3, wide=wide)
    assert torch.equal(tokenizer.encode(images), torch.cat([tokenizer.encode(image[None]) for image in images]))


def test_training_sees_the_codes_that_encode_returns(tokenizer: Tokenizer) -> None:
    images = photos(tokenizer)
    codes = tokenizer.encode(images)
    out = tokenizer(images, decoded=None if tokenizer.decoder is not None else 0)
    assert torch.equal(out.codes, codes)
    torch.testing.assert_close(out.features.detach(), tokenizer.features(codes).detach(), atol=1e-4, rtol=1e-4)
    if tokenizer.decoder is not None:
        torch.testing.assert_close(out.images.detach().clamp(0, 1), tokenizer.decode(codes), atol=1e-4, rtol=0)


def test_every_parameter_is_reached_by_a_gradient(tokenizer: Tokenizer) -> None:
    tokenizer.train()
    images = photos(tokenizer)
    out = tokenizer(images, decoded=None if tokenizer.decoder is not None else 0)
    loss = out.images.square().sum() + out.features.square().sum() + out.quantizer_loss
    if tokenizer.contrast is not None:
        text = tokenizer.encode_text(torch.randint(1, 1000, (2, 77)), normalize=True)
        image = tokenizer.contrast.embed_image(out.features, normalize=True)
        loss = loss + tokenizer.contrast.logit_scale.exp() * (image * text).sum()
    loss.backward()
    trainable = {name: p for name, p in tokenizer.named_parameters() if p.requires_grad}
    assert trainable
    assert [name for name, p in trainable.items() if p.grad is None or not p.grad.any()] == []


def test_wrong_images_are_told_apart(tokenizer: Tokenizer) -> None:
    images = photos(tokenizer)
    for wrong, message in [
        (images[0], "shape"),
        (images[:, :1], "shape"),
        ((images * 255).to(torch.uint8), "floats"),
        (images * 255, "must lie in"),
        (images * 2 - 1, "must lie in"),
        (images / 0 * 0, "NaN"),
    ]:
        with pytest.raises(ValueError, match=message):
            tokenizer.encode(wrong)


def test_wrong_codes_are_told_apart(tokenizer: Tokenizer) -> None:
    codes = tokenizer.encode(photos(tokenizer))
    for wrong in (codes + tokenizer.codebook_size, codes - tokenizer.codebook_size, codes.float(), codes[0]):
        with pytest.raises(ValueError, match="codes"):
            tokenizer.features(wrong)
    with pytest.raises(ValueError, match="codebooks"):
        tokenizer.features(torch.cat([codes, codes], dim=1))


def test_save_and_load_give_equal_codes(
    module: ModuleType, tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(TOKENIZERS, "tiny", module.tiny)
    tokenizer.config = {"tokenizer": "tiny", "arguments": {}}
    for parameter in tokenizer.parameters():
        nn.init.normal_(parameter, std=0.1)  # so that nothing agrees by its initial value
    again = load_tokenizer(save_tokenizer(tokenizer, tmp_path))
    images = photos(tokenizer)
    codes = tokenizer.encode(images)
    assert torch.equal(again.encode(images), codes)
    assert torch.equal(load_tokenizer(tmp_path, parts="encode").encode(images), codes)
    features = load_tokenizer(tmp_path, parts="decode").features(codes)
    assert torch.equal(features, tokenizer.features(codes))
