import io
import sys

import numpy as np
import pytest
import skimage.data
import torch
import torchvision.transforms.v2 as transforms
from PIL import Image

from unitok.bulk.views import decode, photo_views
from unitok.images import load_image


def _jpeg(image: Image.Image, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=92, **options)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def photo() -> bytes:
    return _jpeg(Image.fromarray(skimage.data.chelsea()))  # 451 x 300


def test_pixels_of_load_image(photo: bytes, monkeypatch: pytest.MonkeyPatch):
    with Image.open(io.BytesIO(photo)) as image:
        expected = load_image(image, 64).permute(1, 2, 0).numpy()
        whole = load_image(image, None, 16).permute(1, 2, 0).numpy()
    view = photo_views(photo, 64, 16, "none")
    assert (view.width, view.height) == (451, 300)
    difference = np.abs(view.views[0].pixels.astype(int) - expected)
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.005
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "simplejpeg", None)
        assert np.array_equal(photo_views(photo, 64, 16, "none").views[0].pixels, expected)
    own = photo_views(photo, None, 16, "none").views[0]
    assert own.pixels.shape == (288, 448, 3)
    assert own.crop == (1, 6, 449, 294)
    assert np.abs(own.pixels.astype(int) - whole).max() <= 1


@pytest.mark.parametrize("options", [{}, {"subsampling": 0}, {"progressive": True}])
def test_simplejpeg_and_pillow_agree_to_one_grey_level(options: dict, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("simplejpeg")
    for picture in (skimage.data.astronaut(), skimage.data.coffee(), skimage.data.camera()):
        data = _jpeg(Image.fromarray(picture), **options)
        fast = np.asarray(decode(data)).astype(int)
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, "simplejpeg", None)
            plain = np.asarray(decode(data)).astype(int)
        assert np.abs(fast - plain).max() <= 1


def test_ten_crops_are_torchvisions(photo: bytes):
    found = [view.pixels for view in photo_views(photo, 60, 16, "ten-crop").views]
    with Image.open(io.BytesIO(photo)) as image:
        large = load_image(image, 66)
    expected = transforms.TenCrop(60)(large)
    for ours, theirs in zip(found, expected, strict=True):
        assert (torch.from_numpy(ours).permute(2, 0, 1).int() - theirs.int()).abs().max() <= 1
    views = photo_views(photo, 60, 16, "ten-crop").views
    assert [view.flipped for view in views] == [False] * 5 + [True] * 5
    assert views[0].crop[:2] == pytest.approx((75.5, 0), abs=4.6)  # a pixel of the resized photo
    assert views[3].crop[2:] == pytest.approx((375.5, 300), abs=4.6)


def test_flip(photo: bytes):
    plain, mirrored = photo_views(photo, 32, 16, "flip").views
    assert np.array_equal(plain.pixels[:, ::-1], mirrored.pixels)
    assert mirrored.flipped


def test_exif_orientation_with_both_decoders(monkeypatch: pytest.MonkeyPatch):
    exif = Image.Exif()
    exif[0x0112] = 6
    data = _jpeg(Image.fromarray(skimage.data.chelsea()), exif=exif)
    shapes = [np.asarray(decode(data)).shape]
    monkeypatch.setitem(sys.modules, "simplejpeg", None)
    assert [*shapes, np.asarray(decode(data)).shape] == [(451, 300, 3), (451, 300, 3)]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"not a picture", "not an image"),
        (_jpeg(Image.new("RGB", (64, 64)))[:300], "broken"),
    ],
)
def test_reasons_are_the_same_words_each_time(data: bytes, reason: str):
    texts = set()
    for _ in range(2):
        with pytest.raises(ValueError, match=reason) as caught:
            photo_views(data, 16, 16, "none")
        texts.add(str(caught.value))
    assert len(texts) == 1
    assert "0x" not in texts.pop()


def test_too_small_for_its_own_shape():
    with pytest.raises(ValueError, match="10 x 40 px is smaller than 16"):
        photo_views(_jpeg(Image.new("RGB", (10, 40))), None, 16, "none")
