import json
from pathlib import Path

import pytest

from tests.bulk.inputs import picture, tiny_tokenizer, write_tar
from unitok.bulk import tokenize
from unitok.bulk.encoding import Encoder
from unitok.bulk.sources import plan
from unitok.bulk.verifying import verify_tokens


def test_mixed_up_images_and_damage_are_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    keys = {f"k{i}": {"jpg": picture(i)} for i in range(6)}
    tar = str(write_tar(tmp_path / "a.tar", keys))
    tokenizer, output = tiny_tokenizer(), tmp_path / "out"
    tokenize([tar], str(output), tokenizer, device="cpu", augment="flip")
    encoder = Encoder(tokenizer)
    assert verify_tokens(str(output), plan([tar], 10), encoder, 100)
    assert "verified 12 images: 100.0" in capsys.readouterr().err

    write_tar(Path(tar), {f"k{(i + 1) % 6}": files for i, files in enumerate(keys.values())})
    assert not verify_tokens(str(output), plan([tar], 10), encoder, 100)
    assert "12 images have other codes" in capsys.readouterr().err

    write_tar(Path(tar), {key: keys[key] for key in list(keys)[:5]})
    assert not verify_tokens(str(output), plan([tar], 10), encoder, 100)
    assert "2 images have other codes than are stored: ['k5', 'k5']" in capsys.readouterr().err

    sidecar = output / "shards" / "000000.jsonl"
    rows = [json.loads(line) for line in sidecar.read_text().splitlines()]
    assert len(rows) == 12
    sidecar.write_text(sidecar.read_text().replace("k5", "k7"))
    with pytest.raises(OSError, match="damaged"):
        verify_tokens(str(output), plan([tar], 10), encoder, 100)
