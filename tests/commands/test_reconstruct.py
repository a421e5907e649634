import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from unitok import hub
from unitok.cli import main
from unitok.commands.comparison import Comparison, draw
from unitok.commands.reconstruct import SAMPLE, compare
from unitok.hub import load_tokenizer
from unitok.images import load_image


def test_the_sample_is_the_astronaut_at_512_px():
    photo = load_image(SAMPLE, None)
    assert photo.shape == (3, 512, 512)
    error = photo.permute(1, 2, 0).numpy().astype(float) - skimage.data.astronaut()
    assert np.abs(error).mean() < 3  # JPEG of the same photo
    assert "NASA" in (SAMPLE.parent / "ATTRIBUTION.md").read_text()


def test_figures_are_those_of_scikit_image(tiny_folder):
    tokenizer = load_tokenizer(tiny_folder)
    found = compare(tokenizer, "sample", load_image(SAMPLE, 64))
    photo, decoded = (side.permute(1, 2, 0).numpy() for side in (found.photo, found.decoded))
    assert found.psnr == pytest.approx(peak_signal_noise_ratio(photo, decoded), abs=1e-3)
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "channel_axis": 2}
    assert found.ssim == pytest.approx(structural_similarity(photo, decoded, data_range=255, **options), abs=2e-2)
    assert found.code_bits == 16 * 2 * 5  # 4 x 4 tokens of two codes out of 32
    assert found.bits_per_pixel == 160 / 4096


def test_the_picture_shows_photo_and_reconstruction_pixel_by_pixel(tmp_path):
    photo = torch.randint(0, 256, (3, 512, 480), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    decoded = 255 - photo
    row = Comparison("name" * 50, photo, decoded, psnr=7.0, ssim=0.1, code_bits=24.0 * 512 * 480)
    picture = np.array(draw([row, row], "title", "subtitle"))
    left, top, gap = 56, 124, 32
    inner = (slice(1, -1), slice(1, -1))  # inside the hairline
    for column, side in enumerate((photo, decoded)):
        start = left + column * (480 + gap)
        shown = picture[top : top + 512, start : start + 480]
        assert np.array_equal(shown[inner], side.permute(1, 2, 0).numpy()[inner])
    assert picture.shape[1] == 2 * left + 3 * 480 + 2 * gap


@pytest.mark.parametrize("words", [["--own-shape"], ["--size", "64"], []])
def test_the_command_writes_a_picture_and_prints_its_figures(tiny_folder, tmp_path, capsys, words):
    output = tmp_path / "new" / "picture.png"
    assert main(["reconstruct", "--tokenizer", str(tiny_folder), "-o", str(output), *words]) == 0
    out = capsys.readouterr().out
    side = 512 if words == ["--own-shape"] else 64
    assert f"astronaut.jpg                  {side} x {side}".replace("  64 x 64", "    64 x 64") in out
    assert "wrote" in out
    with Image.open(output) as picture:
        assert picture.width > 3 * 480


def test_a_folder_of_pictures_and_a_bad_photo(tiny_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("unitok.commands.reconstruct.MOST_ROWS", 2)
    for index in range(3):
        Image.new("RGB", (32, 32), (index, 0, 0)).save(tmp_path / f"{index:02d}.png")
    words = ["reconstruct", str(tmp_path), "--size", "32", "--tokenizer", str(tiny_folder), "-o"]
    assert main([*words, str(tmp_path / "one.png")]) == 2
    assert "3 photos make too tall a picture: give a folder" in capsys.readouterr().err
    (tmp_path / "00.png").write_bytes(b"x")
    assert main([*words, str(tmp_path / "out")]) == 1
    assert len(list((tmp_path / "out").glob("*.png.png"))) == 2


def test_without_trained_weights_it_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(hub, "ASSETS", tmp_path)
    assert main(["reconstruct", "-o", str(tmp_path / "x.png")]) == 2
    assert "no trained weights of 'unitok_tiny' come with this package" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_cuda_that_is_not_there(tiny_folder, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(["reconstruct", "--tokenizer", str(tiny_folder), "--device", "cuda"]) == 2
    assert "finds no CUDA device; use --device cpu or auto" in capsys.readouterr().err
