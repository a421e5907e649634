import io

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data as photos
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from unitok.training.crops import centre_box, centre_crop, crop, decode, random_box, training_crop

SCALE, RATIO = (0.3, 1.0), (3 / 4, 4 / 3)


@pytest.fixture(scope="module")
def photo():
    return Image.fromarray(photos.coffee())  # 600 x 400


def encoded(image, kind="JPEG", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def test_a_crop_is_torchvisions_crop_and_resize_but_for_its_border(photo):
    ours = crop(photo, (100, 50, 420, 370), 128).astype(int)
    theirs = functional.resized_crop(photo, 50, 100, 320, 320, [128, 128], v2.InterpolationMode.BICUBIC)
    difference = np.abs(ours - np.asarray(theirs).transpose(2, 0, 1))
    assert difference[:, 3:-3, 3:-3].max() == 0
    assert difference.mean() < 0.2


def test_the_centre_is_torchvisions_resize_and_centre_crop(photo):
    ours = centre_crop(encoded(photo, "PNG"), np.random.default_rng(), 200).astype(int)
    theirs = v2.Compose([v2.Resize(200, v2.InterpolationMode.BICUBIC), v2.CenterCrop(200)])(photo)
    assert np.abs(ours - np.asarray(theirs).transpose(2, 0, 1)).max() <= 1


def test_flip_mirrors_left_and_right(photo):
    whole = (0, 0, *photo.size)
    assert np.array_equal(crop(photo, whole, 32, flip=True), crop(photo, whole, 32)[:, :, ::-1])


def test_boxes_lie_inside_and_keep_scale_and_ratio():
    rng = np.random.default_rng(0)
    boxes = np.array([random_box(60, 40, rng, SCALE, RATIO) for _ in range(2000)])
    left, top, right, bottom = boxes.T
    assert left.min() >= 0
    assert top.min() >= 0
    assert right.max() <= 60
    assert bottom.max() <= 40
    area, shape = (right - left) * (bottom - top) / 2400, (right - left) / (bottom - top)
    assert area.min() > 0.2999
    assert shape.min() > 0.7499
    assert shape.max() < 1.3334


def test_boxes_are_spread_as_torchvisions():
    torch.manual_seed(0)
    transform = v2.RandomResizedCrop(8, SCALE, RATIO)
    image = torch.zeros(3, 400, 600)
    theirs = [transform.make_params([image]) for _ in range(2000)]
    rng = np.random.default_rng(0)
    ours = np.array([random_box(600, 400, rng, SCALE, RATIO) for _ in range(2000)])
    for name, values in (
        ("left", ours[:, 0]),
        ("top", ours[:, 1]),
        ("width", ours[:, 2] - ours[:, 0]),
        ("height", ours[:, 3] - ours[:, 1]),
    ):
        reference = np.array([params[name] for params in theirs])
        assert values.mean() == pytest.approx(reference.mean(), rel=0.05)
        assert values.std() == pytest.approx(reference.std(), rel=0.08)


def test_a_shape_that_never_fits_takes_the_largest_centred_box():
    assert random_box(1000, 10, np.random.default_rng(0), (0.9, 1.0), RATIO) == pytest.approx(
        (493.333, 0, 506.667, 10), abs=1e-3
    )
    assert centre_box(30, 10) == (10, 0, 20, 10)


def test_the_same_generator_gives_the_same_crop_and_another_one_another(photo):
    data = encoded(photo)
    first, again, other = (
        training_crop(data, np.random.default_rng(seed), 32, SCALE, RATIO, True) for seed in (1, 1, 2)
    )
    assert first.shape == (3, 32, 32)
    assert first.dtype == np.uint8
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_decoding_turns_upright(photo):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held on its side
    upright = decode(encoded(photo.rotate(90, expand=True), exif=exif, quality=95))
    assert upright.size == photo.size
    assert np.abs(np.asarray(upright).astype(int) - np.asarray(photo)).mean() < 5


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1", "LA"])
def test_every_kind_of_picture_becomes_rgb(photo, mode):
    kind = "JPEG" if mode == "CMYK" else "PNG"
    image = decode(encoded(photo.convert("L").convert(mode) if mode == "LA" else photo.convert(mode), kind))
    assert image.mode == "RGB"
    assert image.size == photo.size


def test_half_a_photo_is_an_error(photo):
    data = encoded(photo)
    with pytest.raises(OSError, match="truncated"):
        decode(data[: len(data) // 2])
    with pytest.raises(OSError, match="identify"):
        decode(b"no photo")
