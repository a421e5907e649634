import json

import numpy as np
import pytest
from safetensors.numpy import load

from unitok.bulk.packing import unpack
from unitok.bulk.shards import Packing, ShardDraft, key_hash


def _row(key: str) -> dict:
    return {"key": key, "view": 0, "width": 9, "height": 8, "crop": [0.0] * 4, "flipped": False, "metadata": {"c": "ü"}}


def test_layout_of_a_shard():
    """As the module's docstring says it, read with nothing but safetensors."""
    draw = np.random.default_rng(0)
    wide, square = draw.integers(0, 4096, (2, 1, 3, 8)), draw.integers(0, 4096, (1, 2, 2, 8))
    draft = ShardDraft(Packing("packed", 8, 4096), "jsonl")
    draft.add(square, [_row("s")])
    draft.add(wide[:1], [_row("w0")])
    draft.add(wide[1:], [_row("w1")])
    finished = draft.finish(images=4)
    tensors = load(finished.codes)
    assert {name: tensor.shape for name, tensor in tensors.items()} == {
        "codes.1x3": (2, 36),
        "codes.2x2": (1, 48),
        "crc32": (3,),
        "key_hash": (3,),
    }
    assert np.array_equal(unpack(tensors["codes.1x3"], 24, 12).reshape(2, 1, 3, 8), wide)
    assert [json.loads(line)["key"] for line in finished.sidecar.splitlines()] == ["w0", "w1", "s"]
    assert tensors["key_hash"].tolist() == [key_hash(key, 0) for key in ("w0", "w1", "s")]
    assert finished.summary["grids"] == [[1, 3, 2], [2, 2, 1]]
    assert (finished.summary["images"], finished.summary["rows"]) == (4, 3)


def test_uint16():
    tokens = np.array([[[[65535, 1]]]])
    draft = ShardDraft(Packing("uint16", 2, 65536), "jsonl")
    draft.add(tokens, [_row("a")])
    codes = load(draft.finish(1).codes)["codes.1x1"]
    assert codes.dtype == np.uint16
    assert codes.tolist() == [[65535, 1]]
    with pytest.raises(ValueError, match="codebook_size=65537"):
        Packing("uint16", 2, 65537).check()


def test_a_shard_without_images():
    finished = ShardDraft(Packing("packed", 2, 32), "jsonl").finish(images=1)
    assert (finished.summary["rows"], finished.summary["grids"], finished.sidecar) == (0, [], b"")
