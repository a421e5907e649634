from pathlib import Path

import pytest
from PIL import Image

from tests.bulk.inputs import tiny_tokenizer, write_tars
from unitok.bulk import TokenDataset, decode_tokens, tokenize
from unitok.images import read_images


def test_pictures_of_keys(tmp_path: Path):
    tokenizer = tiny_tokenizer()
    tokenize(write_tars(tmp_path / "in", 1, 3, broken=False), str(tmp_path / "out"), tokenizer, device="cpu")
    decode_tokens(str(tmp_path / "out"), ["00002"], str(tmp_path / "pictures"), tokenizer)
    (path,) = (tmp_path / "pictures").iterdir()
    assert path.name == "00002.png"
    expected = tokenizer.decode(TokenDataset(tmp_path / "out").codes([2]))
    assert (read_images([path], size=64) - expected).abs().max() <= 0.51 / 255
    decode_tokens(str(tmp_path / "out"), None, str(tmp_path / "all"), tokenizer)
    with Image.open(tmp_path / "all" / "00000.png") as image:
        assert image.size == (64, 64)
    with pytest.raises(ValueError, match="no image has key='x'"):
        decode_tokens(str(tmp_path / "out"), ["x"], str(tmp_path / "pictures"), tokenizer)
    with pytest.raises(ValueError, match="give the one that made them"):
        decode_tokens(str(tmp_path / "out"), None, str(tmp_path / "pictures"), tiny_tokenizer(1))
