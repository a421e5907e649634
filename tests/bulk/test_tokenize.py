import io
import json
import os
from pathlib import Path

import fsspec
import pytest
import torch
from PIL import Image

from tests.bulk.inputs import picture, snapshot, tiny_tokenizer, write_tar, write_tars
from unitok.bulk import TokenDataset, tokenize
from unitok.cli import COMMANDS, _load, _parse
from unitok.images import read_image
from unitok.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return tiny_tokenizer()


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch):
    for name in ("RANK", "WORLD_SIZE", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)


def run(inputs, output, tokenizer, **options) -> int:
    return tokenize([str(i) for i in inputs], str(output), tokenizer, batch_size=4, workers=2, device="cpu", **options)


def test_codes_are_those_of_encode(tmp_path: Path, tokenizer: Tokenizer):
    inputs = write_tars(tmp_path, tars=2, images=6)
    assert run(inputs, tmp_path / "out", tokenizer, verify=True) == 0
    dataset = TokenDataset(tmp_path / "out")
    assert len(dataset) == 10
    for number in (0, 4, 6, 9):
        sample = dataset[dataset.find(f"{number:05}")]
        with Image.open(io.BytesIO(picture(number))) as image:
            expected = tokenizer.encode(read_image(image, 64)[None])[0]
        assert sample.codes.dtype == torch.int64
        assert (sample.codes == expected).float().mean() > 0.95  # another batch may tip a near tie
        assert sample.row == {
            "key": f"{number:05}",
            "view": 0,
            "width": 80,
            "height": 64,
            "crop": [8.0, 0.0, 72.0, 64.0],
            "flipped": False,
            "metadata": {"caption": f"picture {number}", "number": number},
        }


def test_manifest_and_failures(tmp_path: Path, tokenizer: Tokenizer):
    inputs = write_tars(tmp_path, tars=2, images=6)
    run(inputs, tmp_path / "out", tokenizer)
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["totals"] == {"images": 12, "rows": 10, "failed": 2, "duplicate_keys": 0, "duplicates": []}
    assert manifest["shards"][1]["grids"] == [[4, 4, 5]]
    assert (manifest["size"], manifest["batch_size"], manifest["dtype"]) == (64, 4, "float32")
    assert (manifest["tokenizer"]["num_codebooks"], manifest["tokenizer"]["codebook_size"]) == (2, 32)
    failures = [json.loads(line) for line in (tmp_path / "out" / "failed.jsonl").read_text().splitlines()]
    reason = "not an image that Pillow can read"
    assert failures == [{"input": inputs[i], "key": f"{k:05}", "reason": reason} for i, k in ((0, 5), (1, 11))]


def test_a_rerun_does_nothing(tmp_path: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch):
    inputs = write_tars(tmp_path, tars=2, images=3)
    run(inputs, tmp_path / "out", tokenizer)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
    monkeypatch.setattr(tokenizer, "encode", None)
    assert run(inputs, tmp_path / "out", tokenizer) == 0
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")} == before


def test_threads_workers_and_ranks_do_not_matter(tmp_path: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch):
    inputs = write_tars(tmp_path, tars=5, images=3)
    run(inputs, tmp_path / "one", tokenizer)
    for rank in (2, 0, 1):
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("WORLD_SIZE", "3")
        assert not (tmp_path / "three" / "failed.jsonl").exists()
        tokenize(inputs, str(tmp_path / "three"), tokenizer, batch_size=4, workers=1, device="cpu")
    assert snapshot(tmp_path / "three") == snapshot(tmp_path / "one")


def test_own_shapes_uint16_and_parquet_sidecar(tmp_path: Path, tokenizer: Tokenizer):
    shapes = [(80, 64), (64, 96), (85, 70), (48, 48)]
    (tmp_path / "in").mkdir()
    for number, shape in enumerate(shapes):
        (tmp_path / "in" / f"{number}.png").write_bytes(picture(number, *shape, kind="PNG"))
    for layout, sidecar in (("packed", "jsonl"), ("uint16", "parquet")):
        run([tmp_path / "in"], tmp_path / layout, tokenizer, own_shape=True, layout=layout, sidecar=sidecar)
    packed, plain = TokenDataset(tmp_path / "packed"), TokenDataset(tmp_path / "uint16")
    assert [tuple(sample.codes.shape) for sample in packed[:]] == [(2, 3, 3), (2, 4, 5), (2, 4, 5), (2, 6, 4)]
    assert [sample.key for sample in packed[:]] == ["3.png", "0.png", "2.png", "1.png"]
    for ours, theirs in zip(packed[:], plain[:], strict=True):
        assert torch.equal(ours.codes, theirs.codes)
        assert ours.row == theirs.row
    with pytest.raises(ValueError, match="3 grids"):
        packed.codes(slice(None))


def test_ten_crops(tmp_path: Path, tokenizer: Tokenizer):
    inputs = write_tars(tmp_path, tars=1, images=2, broken=False)
    run(inputs, tmp_path / "out", tokenizer, augment="ten-crop")
    dataset = TokenDataset(tmp_path / "out")
    assert [(s.key, s.row["view"]) for s in dataset[:]] == [(key, v) for key in ("00000", "00001") for v in range(10)]
    assert dataset.find("00001", view=3) == 13


def test_urls_of_other_file_systems(tmp_path: Path, tokenizer: Tokenizer):
    (path,) = write_tars(tmp_path, tars=1, images=3)
    memory = fsspec.filesystem("memory")
    memory.store.clear()
    memory.pipe_file("/in/000.tar", Path(path).read_bytes())
    for _ in range(2):
        assert run(["memory://in/*.tar"], "memory://out", tokenizer, verify=True) == 0
    run([path], tmp_path / "out", tokenizer)
    remote, local = TokenDataset("memory://out"), TokenDataset(tmp_path / "out")
    assert torch.equal(remote.codes([0, 1]), local.codes([0, 1]))
    assert remote[1].row == local[1].row


def test_a_truncated_tar_holds_up_no_other_shard(tmp_path: Path, tokenizer: Tokenizer, capsys):
    inputs = write_tars(tmp_path, tars=3, images=3)
    whole = Path(inputs[1]).read_bytes()
    Path(inputs[1]).write_bytes(whole[:5000])
    assert run(inputs, tmp_path / "out", tokenizer) == 1
    assert "001.tar is not a whole tar file" in "".join(capsys.readouterr())
    assert sorted(os.listdir(tmp_path / "out" / "ledger")) == ["000000.json", "000002.json"]
    with pytest.raises(ValueError, match="not complete"):
        TokenDataset(tmp_path / "out")
    Path(inputs[1]).write_bytes(whole)
    assert run(inputs, tmp_path / "out", tokenizer) == 0
    run(inputs, tmp_path / "fresh", tokenizer)
    assert snapshot(tmp_path / "out") == snapshot(tmp_path / "fresh")


def test_a_shard_that_changed_since(tmp_path: Path, tokenizer: Tokenizer):
    inputs = write_tars(tmp_path, tars=2, images=3)
    run(inputs, tmp_path / "out", tokenizer)
    before = snapshot(tmp_path / "out")
    write_tar(Path(inputs[1]), {"new": {"jpg": picture(99)}})
    with pytest.raises(ValueError, match=r"001\.tar is not what it was.*000001\.json to do it again"):
        run(inputs, tmp_path / "out", tokenizer)
    assert snapshot(tmp_path / "out") == before


def test_an_output_of_another_run(tmp_path: Path, tokenizer: Tokenizer):
    inputs = write_tars(tmp_path, tars=1, images=2)
    run(inputs, tmp_path / "out", tokenizer)
    before = snapshot(tmp_path / "out")
    for other, options, key in (
        (tiny_tokenizer(seed=1), {}, "codebooks_sha256"),
        (tokenizer, {"size": 32}, "size=64"),
        (tokenizer, {"augment": "flip"}, "augment='none'"),
    ):
        with pytest.raises(ValueError, match=f"{key}.*another folder"):
            run(inputs, tmp_path / "out", other, **options)
    with pytest.raises(ValueError, match=r"batch_size=4.*batch_size=8"):
        tokenize(inputs, str(tmp_path / "out"), tokenizer, batch_size=8, device="cpu")
    assert tokenize(inputs, str(tmp_path / "out"), tokenizer, device="cpu") == 0  # keeps the batch it began with
    assert snapshot(tmp_path / "out") == before
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.doc").write_text("")
    with pytest.raises(ValueError, match=r"thesis\.doc.*empty folder"):
        run(inputs, tmp_path / "full", tokenizer)


def test_duplicate_keys_are_kept_and_named(tmp_path: Path, tokenizer: Tokenizer, capsys):
    for name in ("a", "b"):
        write_tar(tmp_path / f"{name}.tar", {"same": {"jpg": picture(ord(name))}, name: {"jpg": picture(1)}})
    assert run([tmp_path / "a.tar", tmp_path / "b.tar"], tmp_path / "out", tokenizer) == 1
    assert "1 keys occur more than once, all kept: ['same']" in capsys.readouterr().err
    dataset = TokenDataset(tmp_path / "out")
    assert [sample.key for sample in dataset[:]] == ["same", "a", "same", "b"]
    with pytest.raises(ValueError, match="2 images have key='same'"):
        dataset.find("same")


def test_a_disk_that_is_full(tmp_path: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch):
    inputs = write_tars(tmp_path, tars=3, images=3)
    run(inputs, tmp_path / "whole", tokenizer)
    write, left = Path.write_bytes, [7]

    def full(path, data):
        left[0] -= 1
        if left[0] < 0:
            write(path, data[: len(data) // 2])
            raise OSError(28, "No space left on device", str(path))
        return write(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(OSError, match="No space left"):
            run(inputs, tmp_path / "out", tokenizer)
    assert run(inputs, tmp_path / "out", tokenizer) == 0
    assert snapshot(tmp_path / "out") == snapshot(tmp_path / "whole")


def test_no_permission(tmp_path: Path, tokenizer: Tokenizer):
    inputs = write_tars(tmp_path, tars=1, images=1, broken=False)
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        run(inputs, tmp_path / "file" / "out", tokenizer)


def test_bad_arguments(tmp_path: Path, tokenizer: Tokenizer):
    inputs = write_tars(tmp_path, tars=1, images=1, broken=False)
    for options, message in (
        ({"own_shape": True, "size": 64}, "own_shape"),
        ({"own_shape": True, "augment": "ten-crop"}, "ten-crop"),
        ({"batch_size": 0}, "batch_size=0"),
    ):
        with pytest.raises(ValueError, match=message):
            tokenize(inputs, str(tmp_path / "out"), tokenizer, device="cpu", **options)
    assert not (tmp_path / "out").exists()


def test_command_line():
    function = _load(COMMANDS["tokenize"][0])
    assert function is tokenize
    words = [
        "a",
        "{0..9}.tar",
        "-o",
        "out",
        "--tokenizer",
        "x",
        "--verify",
        "--augment",
        "ten-crop",
        "--batch-size",
        "8",
    ]
    parsed = _parse("tokenize", function, words)
    assert (parsed["inputs"], parsed["output"], parsed["tokenizer"]) == (["a", "{0..9}.tar"], "out", "x")
    assert (parsed["verify"], parsed["augment"], parsed["batch_size"], parsed["size"]) == (True, "ten-crop", 8, None)


@pytest.mark.slow
def test_several_processes_of_one_machine(tmp_path: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    inputs = write_tars(tmp_path, tars=3, images=3)
    assert run(inputs, tmp_path / "two", tokenizer, devices=2, verify=True) == 0
    run(inputs, tmp_path / "one", tokenizer)
    assert TokenDataset(tmp_path / "two").manifest == TokenDataset(tmp_path / "one").manifest
