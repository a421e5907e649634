import json
import os

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from unitok import hub
from unitok.cli import main
from unitok.commands.codes import Codes, read_codes, write_codes
from unitok.hub import load_tokenizer, save_tokenizer
from unitok.images import load_image, read_images


@pytest.fixture
def photos(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for name, shape in {"a.png": (70, 90), "sub/b.webp": (48, 33), "sub/a.png": (70, 90), "a.jpg": (64, 64)}.items():
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = Image.fromarray(rng.integers(0, 256, (5, 5, 3), dtype=np.uint8))
        noise.resize(shape, Image.Resampling.BICUBIC).save(path)
    return tmp_path / "photos"


def test_there_and_back_at_each_photos_own_shape(photos, tiny_folder, capsys):
    tokenizer = load_tokenizer(tiny_folder)
    words = ["--tokenizer", str(tiny_folder), "--device", "cpu"]
    assert main(["encode", "photos", "--own-shape", "--batch-size", "2", *words]) == 0
    assert "the codes of 4 photos" in capsys.readouterr().out
    codes = read_codes(photos.parent / "codes.safetensors")
    assert codes.names == {"4x4": ["a.jpg"], "5x4": ["a.png", "sub/a.png"], "2x3": ["sub/b.webp"]}
    assert codes.grids["5x4"].dtype == torch.uint8  # the smallest that holds 32 codes
    assert main(["decode", "codes.safetensors", "-o", "out", *words]) == 0
    found = sorted(
        path.relative_to(photos.parent / "out").as_posix() for path in (photos.parent / "out").rglob("*.png")
    )
    assert found == ["a.jpg.png", "a.png.png", "sub/a.png", "sub/b.png"]
    for name, source in {"a.png.png": "a.png", "sub/b.png": "sub/b.webp", "a.jpg.png": "a.jpg"}.items():
        expected = tokenizer.decode(tokenizer.encode(read_images([photos / source], None)))
        error = load_image(photos.parent / "out" / name, None)[None].float() - expected * 255
        assert error.abs().max() <= 0.51


def test_equal_shapes_make_one_tensor(photos, tiny_folder):
    paths = sorted(str(path) for path in photos.rglob("*.*"))
    assert main(["encode", *paths, "--size", "32", "-o", "c.safetensors", "--tokenizer", str(tiny_folder)]) == 0
    tensors = load_file("c.safetensors")
    assert {name: tuple(tensor.shape) for name, tensor in tensors.items()} == {"2x2": (4, 2, 2, 2)}
    expected = load_tokenizer(tiny_folder).encode(read_images(paths, 32))
    assert torch.equal(tensors["2x2"].long(), expected)


def test_one_bad_photo_is_reported_and_the_rest_are_done(photos, tiny_folder, capsys):
    (photos / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    words = ["encode", "photos", "-o", "c.safetensors", "--tokenizer", str(tiny_folder)]
    assert main(words) == 1
    out, err = capsys.readouterr()
    assert "skipped: photos/broken.png is" in err
    assert "the codes of 4 photos" in out
    os.remove("c.safetensors")
    assert main([*words, "--strict"]) == 2
    assert not os.path.exists("c.safetensors")
    assert capsys.readouterr().err.startswith("unitok encode: photos/broken.png is")
    assert main(["encode", "photos/broken.png", *words[2:]]) == 2
    for path in photos.rglob("*.*"):
        path.write_bytes(b"")
    assert main(words) == 2
    assert "none of the 5 photos could be read" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["photos", "--size", "30"], "--size 30 must be a positive multiple of 16"),
        (["photos", "--size", "32", "--own-shape"], "exclude each other"),
        (["photos", "--batch-size", "0"], "batch_size=0 must be at least 1"),
        (["nowhere"], "no file or folder nowhere"),
        (["photos", "-o", "deep/c.safetensors"], "no folder deep"),
        (["photos", "--tokenizer", "nothing"], "no tokenizer 'nothing'"),
    ],
)
def test_bad_requests(photos, tiny_folder, capsys, words, message):
    assert main(["encode", "--tokenizer", str(tiny_folder), *words]) == 2
    assert message in capsys.readouterr().err


def test_codes_of_another_tokenizer_are_refused(photos, tiny_folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(hub, "_multiplies_bfloat16", lambda: True)
    assert main(["encode", "photos", "-o", "c.safetensors", "--tokenizer", str(tiny_folder)]) == 0
    other = load_tokenizer(tiny_folder)
    other.quantizer.codebooks.data.mul_(2)
    save_tokenizer(other, tmp_path / "other")
    assert main(["decode", "c.safetensors", "--tokenizer", str(tmp_path / "other")]) == 2
    assert "made by another tokenizer: its fingerprint is" in capsys.readouterr().err
    assert main(["decode", "c.safetensors", "--dtype", "bfloat16", "--tokenizer", str(tiny_folder)]) == 0


def test_bad_files_of_codes(tiny_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    codes = Codes({"2x2": torch.zeros(1, 2, 2, 2, dtype=torch.uint8)}, {"2x2": ["a.png"]}, {})
    decode = ["decode", "c.safetensors", "--tokenizer", str(tiny_folder)]

    def refusal() -> str:
        assert main(decode) == 2
        return capsys.readouterr().err

    assert "no file of codes at c.safetensors" in refusal()
    (tmp_path / "c.safetensors").write_bytes(b"\0" * 20)
    assert "not a whole safetensors file" in refusal()
    save_file({"a": torch.zeros(1)}, "c.safetensors")
    assert "is no file of codes" in refusal()
    save_file({"a": torch.zeros(1)}, "c.safetensors", {"format": "unitok codes 1", "names": "[1]", "about": "{}"})
    assert "its metadata cannot be read" in refusal()
    write_codes(tmp_path / "c.safetensors", codes._replace(names={"2x2": ["a", "b"]}))
    assert "names {'2x2': 2} photos but holds codes of {'2x2': 1}" in refusal()
    write_codes(tmp_path / "c.safetensors", codes)
    assert "its num_codebooks is None, that of" in refusal()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"names": {"2x2": ["../a.png"]}}, "'../a.png' in this file of codes leads out of the folder decoded"),
        ({"names": {"2x2": ["/a.png"]}}, "leads out of the folder"),
        ({"grids": {"2x2": torch.full((1, 2, 2, 2), 32, dtype=torch.uint8)}}, "codes must lie in [0, 32)"),
        ({"grids": {"2x2": torch.zeros(1, 3, 2, 2, dtype=torch.uint8)}}, "with K=2 codebooks"),
        ({"grids": {"2x2": torch.zeros(1, 2, 2, 2)}}, "codes must be integers, not {'2x2': torch.float32}"),
    ],
)
def test_hostile_codes(photos, tiny_folder, capsys, change, message):
    assert main(["encode", "photos/a.jpg", "--size", "32", "--tokenizer", str(tiny_folder)]) == 0
    codes = read_codes(photos.parent / "codes.safetensors")
    assert json.loads(json.dumps(codes.about))["num_codebooks"] == 2
    write_codes(photos.parent / "codes.safetensors", codes._replace(**change))
    assert main(["decode", "codes.safetensors", "--tokenizer", str(tiny_folder)]) == 2
    assert message in capsys.readouterr().err
