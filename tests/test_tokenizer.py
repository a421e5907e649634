import math

import pytest
import torch

from unitok.models.unitok import tiny


@pytest.fixture(scope="module")
def tokenizer():
    torch.manual_seed(0)
    return tiny().eval()


@pytest.fixture(scope="module")
def images():
    return torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def test_there_and_back(tokenizer, images):
    codes = tokenizer.encode(images)
    assert codes.shape == (2, 2, 4, 4)
    assert codes.dtype == torch.int64
    assert codes.min() >= 0
    assert codes.max() < tokenizer.codebook_size
    decoded = tokenizer.decode(codes)
    assert decoded.shape == images.shape
    assert decoded.dtype == torch.float32
    assert decoded.min() >= 0
    assert decoded.max() <= 1
    assert tokenizer.features(codes).shape == (2, 4, 4, 32)
    assert tokenizer.bits_per_token == 2 * math.log2(32)


@pytest.mark.parametrize("shape", [(16, 64), (64, 16), (48, 80), (16, 16)])
def test_photos_keep_their_shape(tokenizer, shape):
    images = torch.rand(1, 3, *shape)
    codes = tokenizer.encode(images)
    assert codes.shape[2:] == (shape[0] // 16, shape[1] // 16)
    assert tokenizer.decode(codes).shape == images.shape


def test_a_batch_is_its_single_images(tokenizer, images):
    singles = torch.cat([tokenizer.encode(image[None]) for image in images])
    assert torch.equal(tokenizer.encode(images), singles)


def test_training_sees_the_codes_that_encode_returns(tokenizer, images):
    out = tokenizer(images)
    assert torch.equal(out.codes, tokenizer.encode(images))
    torch.testing.assert_close(out.images.detach().clamp(0, 1), tokenizer.decode(out.codes), atol=1e-4, rtol=1e-4)
    assert tokenizer(images, decoded=1).images.shape == (1, 3, 64, 64)
    assert tokenizer(images, decoded=0).images.shape == (0, 3, 64, 64)


def test_embeddings_with_and_without_gradients_agree(tokenizer, images):
    with torch.no_grad():
        still = tokenizer.encode_image(images, normalize=True)
    moving = tokenizer.encode_image(images, normalize=True)
    assert moving.requires_grad
    torch.testing.assert_close(moving.detach(), still, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(still.norm(dim=-1), torch.ones(2))
    text_ids = torch.zeros(2, 77, dtype=torch.int64)
    text_ids[:, :3] = torch.tensor([49406, 320, 49407])
    assert tokenizer.encode_text(text_ids, normalize=True).norm(dim=-1).sub(1).abs().max() < 1e-5
    with pytest.raises(ValueError, match=r"\(B, 77\), padded with 0, got \(2, 5\)"):
        tokenizer.encode_text(text_ids[:, :5])


def test_codes_can_be_embedded_in_training(tokenizer, images):
    codes = tokenizer.encode(images)
    table = torch.nn.Embedding(32, 4)
    table(codes).sum().backward()
    assert table.weight.grad is not None


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.rand(3, 64, 64), r"\(B, 3, H, W\), got \(3, 64, 64\)"),
        (torch.rand(1, 1, 64, 64), r"\(B, 3, H, W\)"),
        (torch.zeros(1, 3, 64, 64, dtype=torch.uint8), "not torch.uint8; unitok.read_images"),
        (torch.rand(1, 3, 60, 64), "height=60 and width=64 must be positive multiples of 16"),
        (torch.rand(0, 3, 64, 64), "positive"),
        (torch.full((1, 3, 64, 64), math.nan), "NaN"),
        (torch.full((1, 3, 64, 64), math.inf), "inf"),
        (torch.full((1, 3, 64, 64), 255.0), r"\[0, 1\], found values from 255 to 255"),
        (-torch.ones(1, 3, 64, 64), "from -1 to -1"),
    ],
)
def test_bad_images(tokenizer, images, message):
    with pytest.raises(ValueError, match=message):
        tokenizer.encode(images)


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        (torch.full((1, 2, 4, 4), 32), r"\[0, 32\), found values from 32 to 32"),
        (torch.full((1, 2, 4, 4), -1), "from -1 to -1"),
        (torch.zeros(1, 3, 4, 4, dtype=torch.int64), r"K=2 codebooks, got shape \(1, 3, 4, 4\)"),
        (torch.zeros(2, 4, 4, dtype=torch.int64), r"\(B, K, h, w\)"),
        (torch.zeros(1, 2, 4, 4), "integers .*not torch.float32"),
        (torch.zeros(1, 2, 4, 4, dtype=torch.bool), "not torch.bool"),
    ],
)
def test_bad_codes(tokenizer, codes, message):
    for walk in (tokenizer.decode, tokenizer.features):
        with pytest.raises(ValueError, match=message):
            walk(codes)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32])
def test_codes_of_a_smaller_integer_type_mean_the_same(tokenizer, images, dtype):
    codes = tokenizer.encode(images)
    assert torch.equal(tokenizer.features(codes.to(dtype)), tokenizer.features(codes))


def test_bad_requests(tokenizer, images):
    codes = tokenizer.encode(images)
    with pytest.raises(ValueError, match="deterministic and takes no generator"):
        tokenizer.decode(codes, generator=torch.Generator())
    with pytest.raises(ValueError, match="scale=2 is not one of"):
        tokenizer.encode(images, scale=2)
