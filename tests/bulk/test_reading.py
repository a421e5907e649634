import json
import pickle
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader

from tests.bulk.inputs import tiny_tokenizer, write_tars
from unitok.bulk import TokenDataset, tokenize


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three shards of four images."""
    folder = tmp_path_factory.mktemp("run")
    tokenize(write_tars(folder / "in", 3, 4, broken=False), str(folder / "out"), tiny_tokenizer(), device="cpu")
    return folder / "out"


def test_random_access_and_slices(folder: Path):
    dataset = TokenDataset(folder)
    assert [sample.key for sample in dataset[2:7]] == ["00002", "00003", "00004", "00005", "00006"]
    assert dataset[-1].key == dataset[11].key == "00011"
    codes = dataset.codes([11, 0, 5, 5])
    for row, index in zip(codes, [11, 0, 5, 5], strict=True):
        assert torch.equal(row, dataset[index].codes)
    assert torch.equal(dataset.codes(slice(1, 12, 3)), torch.stack([dataset[i].codes for i in (1, 4, 7, 10)]))
    assert len({tuple(row.flatten().tolist()) for row in dataset.codes(slice(None))}) > 6
    for index in (12, -13):
        with pytest.raises(IndexError, match="12 images"):
            dataset[index]
    with pytest.raises(KeyError, match="nobody"):
        dataset.find("nobody")
    assert [dataset.find(f"{i:05}") for i in range(12)] == list(range(12))


def test_pickled_and_in_a_loader(folder: Path):
    dataset = TokenDataset(folder)
    first = dataset[0].codes
    copy = pickle.loads(pickle.dumps(dataset))
    assert torch.equal(copy[0].codes, first)
    loader = DataLoader(copy, batch_size=5, collate_fn=lambda samples: torch.stack([s.codes for s in samples]))
    assert torch.equal(torch.cat(list(loader)), dataset.codes(slice(None)))


@pytest.mark.parametrize("place", ["codes", "checksum", "header", "sidecar", "cut"])
def test_one_flipped_byte(folder: Path, tmp_path: Path, place: str):
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in folder.rglob("*.*"):
        target = copy / path.relative_to(folder)
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(path.read_bytes())
    victim = copy / "shards" / ("000001.jsonl" if place == "sidecar" else "000001.safetensors")
    data = bytearray(victim.read_bytes())
    length = int.from_bytes(data[:8], "little")
    offsets = {} if place == "sidecar" else {n: v["data_offsets"] for n, v in json.loads(data[8 : 8 + length]).items()}
    if place == "cut":
        data = data[:-3]
    else:
        where = {
            "codes": 8 + length + offsets.get("codes.4x4", [0])[0] + 2,
            "checksum": 8 + length + offsets.get("crc32", [0])[0],
            "header": 12,
            "sidecar": 30,
        }[place]
        data[where] ^= 1
    victim.write_bytes(data)
    dataset = TokenDataset(copy)
    assert dataset[3].key == "00003"  # the other shards are as good as ever
    with pytest.raises(OSError, match=r"000001\.(safetensors|jsonl) is damaged"):
        dataset[4]
    with pytest.raises(OSError, match=r"000001\.(safetensors|jsonl) is damaged"):
        dataset.reader(1).check()


def test_no_run(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="holds no tokens"):
        TokenDataset(tmp_path)
    (tmp_path / "manifest.json").write_text('{"format": "other"}')
    with pytest.raises(ValueError, match="format 'other'"):
        TokenDataset(tmp_path)
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(ValueError, match="is damaged"):
        TokenDataset(tmp_path)
