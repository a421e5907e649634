import io
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from unitok.images import find_images, load_image, read_image, read_images, to_pil, write_images


@pytest.fixture
def photo() -> Image.Image:
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (12, 19, 3), dtype=np.uint8))
    return coarse.resize((190, 120), Image.Resampling.BICUBIC)


def pixels(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)


@pytest.mark.parametrize("shape", [(190, 120), (120, 190), (128, 128), (301, 77), (64, 64), (63, 65), (33, 500)])
@pytest.mark.parametrize("size", [64, 96])
def test_one_pass_is_torchvision_resize_and_centre_crop(photo, shape, size):
    photo = photo.resize(shape)
    expected = v2.CenterCrop(size)(v2.Resize(size, v2.InterpolationMode.BICUBIC)(photo))
    found = load_image(photo, size)
    assert found.dtype == torch.uint8
    assert (found.int() - pixels(expected).int()).abs().max() <= 1


def test_own_shape_is_a_central_cut_without_resampling(photo):
    image = load_image(photo, None)
    assert torch.equal(image, pixels(photo)[:, 4:116, 7:183])
    assert read_images([photo], None, multiple=32).shape == (1, 3, 96, 160)


def test_all_sources_agree(photo, tmp_path):
    photo.save(tmp_path / "photo.png")
    array, tensor = np.array(photo), pixels(photo)
    sources = [tmp_path / "photo.png", str(tmp_path / "photo.png"), photo, array, tensor]
    sources += [array.astype(np.float64) / 255, tensor / 255, array.astype(np.uint16) * 257]
    images = read_images(sources, size=None)
    assert images.dtype == torch.float32
    assert all(torch.equal(image, images[0]) for image in images)
    assert torch.equal(images[0], load_image(photo, None) / 255)
    assert torch.equal(read_images(photo, None), images[:1])
    assert torch.equal(read_images(tensor, None), images[:1])
    assert torch.equal(read_images(torch.stack([tensor, tensor]), None), images[:2])
    assert torch.equal(read_image(photo, None), images[0])


def test_jpeg_webp_and_own_files_come_back(photo, tmp_path):
    images = read_images([photo], 64)
    paths = [tmp_path / name for name in ("a.png", "b.jpg", "c.webp", "d.JPEG")]
    write_images(images.expand(4, -1, -1, -1), paths)
    back = read_images(paths, None)
    assert torch.equal(back[0], images[0])
    assert ((back - images) ** 2).mean((1, 2, 3)).max() < 1e-3
    assert [path.read_bytes()[:4] for path in paths] == [b"\x89PNG", b"\xff\xd8\xff\xe0", b"RIFF", b"\xff\xd8\xff\xe0"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "b.jpg", "c.webp", "d.JPEG"]


def test_writing_clamps_and_rounds_to_nearest(tmp_path):
    values = torch.tensor([-1.0, 0.0, 0.4 / 255, 0.6 / 255, 254.6 / 255, 2.0]).expand(3, 1, 6)
    write_images([values, (values.clamp(0, 1) * 255).round().byte()], [tmp_path / "a.png", tmp_path / "b.png"])
    for name in ("a.png", "b.png"):
        with Image.open(tmp_path / name) as image:
            assert np.array(image)[0, :, 0].tolist() == [0, 0, 0, 1, 255, 255]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(photo, tmp_path, orientation):
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = photo.transpose(undo[orientation]) if orientation in undo else photo
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "turned.png", exif=exif)
    assert torch.equal(load_image(tmp_path / "turned.png", None), load_image(photo, None))


def test_alpha_is_laid_over_white(tmp_path):
    half = Image.new("RGBA", (16, 16), (255, 0, 0, 128))
    half.save(tmp_path / "half.png")
    assert load_image(tmp_path / "half.png", None)[:, 0, 0].tolist() == [255, 127, 127]
    clear = Image.new("LA", (16, 16), (0, 0))
    assert load_image(clear, None).float().mean() == 255
    assert load_image(np.zeros((16, 16, 4), np.uint8), None).float().mean() == 255
    palette = Image.new("P", (16, 16), 0)
    palette.putpalette([0, 0, 0, 255, 255, 255])
    palette.save(tmp_path / "palette.gif", transparency=0)
    assert load_image(tmp_path / "palette.gif", None).float().mean() == 255


def test_grey_palette_bilevel_cmyk_and_deep_files(photo, tmp_path):
    grey = photo.convert("L")
    grey.save(tmp_path / "grey.jpg", quality=95)
    image = load_image(tmp_path / "grey.jpg", None)
    assert torch.equal(image[0], image[1])
    assert torch.equal(load_image(np.array(grey), None), load_image(grey, None))
    assert torch.equal(load_image(np.array(grey)[..., None], None), load_image(grey, None))
    deep = Image.fromarray(np.array(grey).astype(np.uint16) * 257)
    deep.save(tmp_path / "deep.png")
    deep.save(tmp_path / "deep.tif")
    assert torch.equal(load_image(tmp_path / "deep.png", None), load_image(grey, None))
    assert torch.equal(load_image(tmp_path / "deep.tif", None), load_image(grey, None))
    Image.fromarray(np.array(grey).astype(np.float32) / 255).save(tmp_path / "float.tif")
    assert torch.equal(load_image(tmp_path / "float.tif", None), load_image(grey, None))
    photo.quantize(16).save(tmp_path / "palette.png")
    assert torch.equal(load_image(tmp_path / "palette.png", None), load_image(photo.quantize(16).convert("RGB"), None))
    photo.convert("1").save(tmp_path / "bilevel.png")
    assert set(load_image(tmp_path / "bilevel.png", None).unique().tolist()) == {0, 255}
    photo.convert("CMYK").save(tmp_path / "cmyk.jpg", quality=95)
    error = load_image(tmp_path / "cmyk.jpg", None).float() - load_image(photo, None).float()
    assert error.abs().mean() < 4


def test_an_animation_gives_its_first_frame(tmp_path):
    frames = [Image.new("RGB", (32, 32), colour) for colour in ("red", "blue")]
    for name in ("moving.gif", "moving.png", "moving.webp"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], duration=50)
        assert (load_image(tmp_path / name, None)[:, 8, 8].int() - torch.tensor([255, 0, 0])).abs().max() < 4


def png_of(width: int, height: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.png", b"", r"empty\.png is empty \(0 bytes\)"),
        ("words.jpg", b"not a photo at all", r"words\.jpg is not an image"),
        ("bomb.png", png_of(60000, 60000), r"bomb\.png is refused: .*exceeds limit.* smaller"),
        ("cut.png", png_of(64, 64), r"cut\.png is broken"),
        ("none.png", png_of(0, 64), r"none\.png"),
    ],
)
def test_bad_files_are_named_and_explained(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(OSError, match=message):
        read_images([tmp_path / name])


@pytest.mark.parametrize("name", ["half.jpg", "half.png", "half.webp", "half.gif", "half.tif", "half.bmp"])
def test_truncated_files(photo, tmp_path, name):
    buffer = io.BytesIO()
    photo.save(buffer, format={"jpg": "JPEG", "tif": "TIFF"}.get(name[5:], name[5:].upper()))
    (tmp_path / name).write_bytes(buffer.getvalue()[: len(buffer.getvalue()) // 2])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of a cut TIFF before it gives up
        with pytest.raises(OSError, match=name.replace(".", r"\.")):
            load_image(tmp_path / name)


def outcome(path: Path) -> str:
    try:
        return "image" if load_image(path, 32).shape == (3, 32, 32) else "another shape"
    except (OSError, ValueError) as error:
        return "named error" if path.name in str(error) else str(error)


def test_a_corrupted_byte_gives_an_image_or_a_named_error(photo, tmp_path):
    rng = np.random.default_rng(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for suffix, kind in {".jpg": "JPEG", ".png": "PNG", ".gif": "GIF", ".tif": "TIFF"}.items():
            buffer = io.BytesIO()
            photo.resize((40, 40)).save(buffer, format=kind)
            for _ in range(60):
                content = bytearray(buffer.getvalue())
                content[rng.integers(len(content))] = rng.integers(256)
                path = tmp_path / f"flipped{suffix}"
                path.write_bytes(content)
                assert outcome(path) in ("image", "named error")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (np.full((32, 32, 3), np.nan), "NaN"),
        (torch.full((3, 32, 32), float("nan")), "NaN"),
        (np.full((32, 32, 3), 255.0), r"\[0, 1\], found values from 255 to 255"),
        (torch.full((3, 32, 32), -1.0), "from -1 to -1"),
        (np.zeros((32, 32, 3), np.int64), "not int64"),
        (np.zeros((3, 32, 32), np.uint8), r"got \(3, 32, 32\)"),
        (torch.zeros(32, 32, 3), r"\(1 \| 3 \| 4, H, W\), got \(32, 32, 3\)"),
        (np.zeros((0, 32, 3), np.uint8), r"got \(0, 32, 3\)"),
        (Image.new("RGB", (0, 8)), "no pixels: 0 x 8"),
        (Image.fromarray(np.full((16, 16), 70000, np.int32)), "more than 16 bits"),
    ],
)
def test_bad_arrays(source, message):
    with pytest.raises(ValueError, match=message):
        load_image(source)


def test_bad_requests(photo, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.png"):
        read_images([tmp_path / "nowhere.png"])
    with pytest.raises(ValueError, match="empty"):
        read_images([])
    with pytest.raises(ValueError, match="size=0"):
        load_image(photo, 0)
    with pytest.raises(ValueError, match="10 x 40 px is smaller than 16"):
        load_image(photo.resize((10, 40)), None)
    with pytest.raises(ValueError, match="2 shapes"):
        read_images([photo, photo.rotate(90, expand=True)], None)
    images = read_images([photo], 32)
    with pytest.raises(ValueError, match="1 images need as many paths, got 2"):
        write_images(images, [tmp_path / "a.png", tmp_path / "b.png"])
    with pytest.raises(ValueError, match=r"'\.txt' is not one of"):
        write_images(images, [tmp_path / "a.txt"])
    with pytest.raises(FileNotFoundError, match="no folder"):
        write_images(images, [tmp_path / "deep" / "a.png"])
    with pytest.raises(ValueError, match="NaN"):
        write_images(images * float("nan"), [tmp_path / "a.png"])
    with pytest.raises(ValueError, match=r"\(3, H, W\), got \(1, 4, 4\)"):
        to_pil(torch.zeros(1, 4, 4))
    with pytest.raises(ValueError, match="int64"):
        to_pil(torch.zeros(3, 4, 4, dtype=torch.int64))
    assert list(tmp_path.iterdir()) == []


def test_find_images_walks_in_order(tmp_path):
    for name in ("b/2.JPG", "b/1.png", "a.webp", "b/notes.txt", ".hidden/x.png", "b/.thumb.png", "odd.name"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "none").mkdir()
    names = [path.relative_to(tmp_path).as_posix() for path in find_images([tmp_path, tmp_path / "odd.name"])]
    assert names == ["a.webp", "b/1.png", "b/2.JPG", "odd.name"]
    with pytest.raises(ValueError, match="holds no images"):
        find_images([tmp_path / "none"])
    with pytest.raises(FileNotFoundError, match="missing"):
        find_images([tmp_path / "missing"])
