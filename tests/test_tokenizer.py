import math

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from unitok.models.unitok import tiny
from unitok.tokenizer import Tokenizer, check_images


@pytest.fixture
def tokenizer() -> Tokenizer:
    torch.manual_seed(0)
    return tiny().eval()


@pytest.mark.parametrize(("height", "width"), [(512, 320), (256, 1024), (1024, 1024), (64, 64), (16, 16)])
def test_photos_go_there_and_back_at_their_own_shape(tokenizer: Tokenizer, height: int, width: int) -> None:
    images = torch.rand(1, 3, height, width)
    codes = tokenizer.encode(images)
    assert codes.shape == (1, 2, height // 16, width // 16)
    assert tokenizer.decode(codes).shape == images.shape


@torch.no_grad()
def test_rows_of_the_grid_are_rows_of_the_image(tokenizer: Tokenizer) -> None:
    tokenizer.decoder.blocks = nn.Identity()  # attention would carry a change everywhere
    features = torch.randn(1, 2, 8, 32)
    changed = features.clone()
    changed[0, 1, 6] = torch.randn(32)
    weight = (tokenizer.decoder(features) - tokenizer.decoder(changed)).abs().sum(1)[0]
    rows, columns = (weight.sum(1), weight.sum(0))
    assert (rows @ torch.arange(32.0) / rows.sum()).item() == pytest.approx(16 + 8, abs=8)
    assert (columns @ torch.arange(128.0) / columns.sum()).item() == pytest.approx(6 * 16 + 8, abs=8)
    assert columns[:48].max() == 0


def test_the_walk_is_its_rooms_in_a_row(tokenizer: Tokenizer) -> None:
    images = torch.rand(2, 3, 32, 48)
    with torch.no_grad():
        codes = tokenizer.quantizer.quantize(tokenizer.project_in(tokenizer.encoder(images)))
        features = tokenizer.project_out(tokenizer.quantizer.dequantize(codes))
        decoded = tokenizer.decoder(features).clamp(0, 1)
    assert torch.equal(tokenizer.encode(images), codes)
    assert torch.equal(tokenizer.features(codes), features)
    assert torch.equal(tokenizer.decode(codes), decoded)
    assert tokenizer.bits_per_token == 2 * 5


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 3, 64, 60), "width=60 must be positive multiples of 16"),
        ((1, 3, 50, 64), "height=50"),
        ((1, 3, 0, 64), "0"),
    ],
)
def test_sizes_that_do_not_fit_are_told(tokenizer: Tokenizer, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tokenizer.encode(torch.rand(shape))


def test_pixel_values_are_not_read_where_told_not_to() -> None:
    check_images(torch.full((1, 3, 16, 16), float("nan")), 16, validate=False)
    check_images(torch.rand(1, 3, 17, 19), stride=None)


def test_a_scale_this_tokenizer_does_not_have_is_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(ValueError, match="scale=2"):
        tokenizer.encode(torch.rand(1, 3, 32, 32), scale=2)


def test_a_pixel_decoder_takes_no_generator(tokenizer: Tokenizer) -> None:
    with pytest.raises(ValueError, match="ViTaminDecoder is deterministic"):
        tokenizer.decode(torch.zeros(1, 2, 2, 2, dtype=torch.int64), generator=torch.Generator())


@pytest.mark.parametrize(
    ("room", "walk"),
    [("encoder", "encode"), ("project_in", "encode"), ("decoder", "decode"), ("contrast", "encode_image")],
)
def test_a_missing_room_is_named(tokenizer: Tokenizer, room: str, walk: str) -> None:
    setattr(tokenizer, room, None)
    argument = torch.zeros(1, 2, 2, 2, dtype=torch.int64) if walk == "decode" else torch.rand(1, 3, 32, 32)
    with pytest.raises(ValueError, match=f"{walk} needs the"):
        getattr(tokenizer, walk)(argument)


@pytest.mark.parametrize(("decoded", "count"), [(None, 3), (1, 1), (0, 0)])
def test_only_the_first_images_are_decoded_in_training(tokenizer: Tokenizer, decoded: int | None, count: int) -> None:
    out = tokenizer(torch.rand(3, 3, 32, 32), decoded=decoded)
    assert out.images.shape == (count, 3, 32, 32)
    assert out.features.shape[0] == out.codes.shape[0] == 3


def test_image_embeddings_agree_with_and_without_gradients(tokenizer: Tokenizer) -> None:
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        expected = tokenizer.encode_image(images, normalize=True)
    embedded = tokenizer.encode_image(images, normalize=True)
    torch.testing.assert_close(embedded.detach(), expected, atol=1e-5, rtol=1e-4)
    embedded[0, 0].backward()
    assert tokenizer.encoder.stages.stem.conv1.weight.grad.any()


def test_projections_and_quantizer_are_a_float32_island_under_autocast(tokenizer: Tokenizer) -> None:
    seen: list[torch.dtype] = []
    for room in (tokenizer.project_in, tokenizer.quantizer, tokenizer.project_out):
        room.register_forward_hook(lambda module, args, out: seen.append(args[0].dtype))
    tokenizer.project_in.mlp.w2.register_forward_hook(lambda module, args, out: seen.append(out.dtype))
    with torch.autocast("cpu", torch.bfloat16):
        tokenizer(torch.rand(1, 3, 32, 32))
    assert seen == [torch.float32] * 4


def test_a_bfloat16_tokenizer_walks_and_returns_float32_images(tokenizer: Tokenizer) -> None:
    images = torch.rand(1, 3, 32, 32)
    half = tokenizer.bfloat16()
    codes = half.encode(images)
    assert half.features(codes).dtype == torch.bfloat16
    assert half.decode(codes).dtype == torch.float32


class Products(TorchDispatchMode):
    """Collects the types in which matrices are multiplied."""

    def __init__(self) -> None:
        super().__init__()
        self.types: set[torch.dtype] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if any(word in str(func) for word in ("mm.", "bmm.", "convolution", "attention")):
            self.types.add(tree_leaves(out)[0].dtype)
        return out


@torch.no_grad()
def test_every_product_outside_the_quantizer_takes_half_the_bits_in_bfloat16(tokenizer: Tokenizer) -> None:
    half = tokenizer.bfloat16()
    with Products() as encode:
        half.project_in(half.encoder(torch.rand(1, 3, 32, 32)))
    with Products() as decode:
        half.decode(torch.zeros(1, 2, 2, 2, dtype=torch.int64))
    assert encode.types == decode.types == {torch.bfloat16}


def test_codes_made_here_can_be_embedded_in_training(tokenizer: Tokenizer) -> None:
    table = nn.Embedding(32, 4)
    table(tokenizer.encode(torch.rand(1, 3, 32, 32))).sum().backward()
    assert table.weight.grad.any()


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
def test_codes_of_a_smaller_integer_type_mean_the_same(tokenizer, dtype):
    codes = tokenizer.encode(torch.rand(1, 3, 32, 32))
    assert torch.equal(tokenizer.features(codes.to(dtype)), tokenizer.features(codes))
