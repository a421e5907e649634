from pathlib import Path

import pytest
import torch
from PIL import Image, ImageChops, ImageOps, ImageStat

from unitok.cli import main
from unitok.hub import load_tokenizer, save_tokenizer
from unitok.images import read_images
from unitok.models.ta_tok import tiny
from unitok.quantizers.words import Codebook, write_codebook

WORDS = [f"w{index}" for index in range(64)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    tokenizer = tiny()
    save_tokenizer(tokenizer, tmp_path / "ta_tok")
    book = Codebook(tokenizer.quantizer.embedding.detach().clone(), torch.arange(64), WORDS)
    write_codebook(book, tmp_path / "ta_tok" / "codebook.safetensors", source="test")
    pixels = torch.randint(0, 255, (60, 90, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    Image.fromarray(pixels.numpy()).save(tmp_path / "photo.png")
    return tmp_path


def test_words_are_those_of_the_codes(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name, photo, picture = str(folder / "ta_tok"), str(folder / "photo.png"), folder / "words.png"
    line = ["words", photo, "--tokenizer", name, "--scale", "2", "-o", str(picture)]
    assert main([*line, "--side", "240"]) == 0
    printed = capsys.readouterr().out.splitlines()
    codes = load_tokenizer(name).encode(read_images(photo, size=48), scale=2)[0, 0]
    assert [line.split() for line in printed[:3]] == [[WORDS[code] for code in row] for row in codes.tolist()]
    with Image.open(picture) as drawn, Image.open(photo) as given:  # the photo itself, not what the tokenizer saw of it
        sharp, seen = (
            ImageOps.fit(given, (size, size), Image.Resampling.BICUBIC).resize((240, 240)) for size in (240, 48)
        )
        to_sharp, to_seen = (ImageStat.Stat(ImageChops.difference(drawn, other)).mean[0] for other in (sharp, seen))
        assert to_sharp < to_seen / 2
    assert main([*line, "--side", "0"]) == 2


def test_another_codebook_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = folder / "other.safetensors"
    write_codebook(Codebook(torch.randn(64, 24), torch.arange(64), WORDS), other, source="test")
    arguments = ["words", str(folder / "photo.png"), "--tokenizer", str(folder / "ta_tok"), "-o", str(folder / "x.png")]
    assert main([*arguments, "--codebook", str(other)]) == 2
    assert "is not the codebook" in capsys.readouterr().err
    (folder / "ta_tok" / "codebook.safetensors").unlink()
    assert main(arguments) == 2
    assert "no codebook file" in capsys.readouterr().err
    assert not (folder / "x.png").exists()


def test_a_tokenizer_without_words_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from unitok.models.vq16 import tiny as vq_tiny

    save_tokenizer(vq_tiny(), folder / "vq")
    assert main(["words", str(folder / "photo.png"), "--tokenizer", str(folder / "vq")]) == 2
    assert "stand for no words" in capsys.readouterr().err
