import io

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data as photos
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from unitok.images import read_images
from unitok.training import crops
from unitok.training.crops import centre_crop, crop, random_box, training_crop

SCALE, RATIO = (0.3, 1.0), (3 / 4, 4 / 3)


@pytest.fixture(scope="module")
def photo():
    return Image.fromarray(photos.coffee())  # 600 x 400


def encoded(image, kind="JPEG", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def tensor(image):
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def whole(data, size=64):
    """The whole photo, resized: a training crop without randomness."""
    image = Image.open(io.BytesIO(data))
    shape = max(image.size) / min(image.size)
    return training_crop(data, np.random.default_rng(0), size, (1, 1), (1 / shape, shape), False)


@pytest.mark.parametrize(
    ("size", "box"), [(128, (100, 50, 420, 370)), (256, (10, 10, 480, 360)), (32, (0, 0, 600, 400))]
)
def test_a_crop_is_torchvisions_crop_and_resize_of_a_pillow_image(photo, size, box):
    left, top, right, bottom = box
    ours = crop(tensor(photo), box, size)
    theirs = functional.resized_crop(
        photo, top, left, bottom - top, right - left, [size, size], v2.InterpolationMode.BICUBIC
    )
    difference = (ours.int() - tensor(theirs)).abs()
    assert ours.dtype == torch.uint8
    assert difference.max() <= 2
    assert difference.float().mean() < 0.01


def test_the_centre_is_that_of_read_images(photo, tmp_path):
    (tmp_path / "photo.jpg").write_bytes(encoded(photo))
    ours = centre_crop(encoded(photo), np.random.default_rng(), 96)
    assert torch.equal(ours, read_images(tmp_path / "photo.jpg", 96)[0].mul(255).round().to(torch.uint8))


def test_flip_mirrors_left_and_right(photo):
    box = (0, 0, *photo.size)
    assert torch.equal(crop(tensor(photo), box, 32, flip=True), crop(tensor(photo), box, 32).flip(2))


def test_boxes_lie_inside_and_keep_scale_and_ratio():
    rng = np.random.default_rng(0)
    boxes = np.array([random_box(600, 400, rng, SCALE, RATIO) for _ in range(2000)])
    left, top, right, bottom = boxes.T
    assert left.min() >= 0
    assert top.min() >= 0
    assert right.max() <= 600
    assert bottom.max() <= 400
    area, shape = (right - left) * (bottom - top) / 240000, (right - left) / (bottom - top)
    assert 0.298 < area.min() < 0.302
    assert 0.748 < shape.min() < 0.76
    assert 1.32 < shape.max() < 1.337


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
    assert random_box(1000, 30, np.random.default_rng(0), (0.9, 1.0), RATIO) == (480, 0, 520, 30)


def test_the_same_generator_gives_the_same_crop_and_another_one_another(photo):
    data = encoded(photo)
    first, again, other = (
        training_crop(data, np.random.default_rng(seed), 32, SCALE, RATIO, True) for seed in (1, 1, 2)
    )
    assert first.shape == (3, 32, 32)
    assert first.dtype == torch.uint8
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("size", [16, 40, 150])
@pytest.mark.parametrize("options", [{"quality": 95, "subsampling": 0}, {"quality": 75}, {"progressive": True}])
def test_simplejpeg_gives_pillows_pixels(photo, monkeypatch, size, options):
    data = encoded(photo, **options)
    pytest.importorskip("simplejpeg")
    fast = [training_crop(data, np.random.default_rng(seed), size, SCALE, RATIO, True) for seed in range(5)]
    monkeypatch.setattr(crops, "decode_jpeg", None)
    for seed, ours in enumerate(fast):
        pillow = training_crop(data, np.random.default_rng(seed), size, SCALE, RATIO, True)
        assert (ours.int() - pillow).abs().max() <= 1


@pytest.mark.parametrize("fast", [True, False])
def test_a_large_jpeg_is_decoded_smaller_and_looks_the_same(photo, monkeypatch, fast):
    if not fast:
        monkeypatch.setattr(crops, "decode_jpeg", None)
    large = photo.resize((2400, 1600), Image.Resampling.BICUBIC)
    shapes, real = [], crops.crop
    monkeypatch.setattr(crops, "crop", lambda pixels, *rest: shapes.append(pixels.shape[1:]) or real(pixels, *rest))
    ours = whole(encoded(large, quality=95), 160)
    full = real(tensor(large), (0, 0, 2400, 1600), 160)
    assert shapes == [(400, 600)]
    assert (ours.int() - full).abs().float().mean() < 1


def test_a_photo_that_was_taken_sideways_is_turned_upright(photo):
    exif = Image.Exif()
    exif[0x0112] = 6
    for side in (600, 2400):
        upright = photo.resize((side, side * 2 // 3))
        turned = whole(encoded(upright.rotate(90, expand=True), exif=exif, quality=95))
        assert (turned.int() - whole(encoded(upright, quality=95))).abs().float().mean() < 2


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1", "LA", "I;16"])
@pytest.mark.parametrize("make", [whole, lambda data: centre_crop(data, np.random.default_rng(), 64)])
def test_every_kind_of_picture_becomes_rgb(photo, mode, make):
    image = photo.convert("L") if mode in ("LA", "I;16") else photo
    assert make(encoded(image.convert(mode), "JPEG" if mode in ("CMYK", "L") else "PNG")).shape == (3, 64, 64)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("make", [whole, lambda data: centre_crop(data, np.random.default_rng(), 64)])
def test_half_a_photo_is_an_error(photo, kind, make):
    data = encoded(photo, kind)
    with pytest.raises(OSError, match=r".+"):
        make(data[: len(data) // 2])
    with pytest.raises(OSError, match="identify"):
        make(b"no photo")
