import json
import os
import socket

import pytest
import torch
import torch.multiprocessing as mp
from PIL import Image

from unitok.evaluation import reconstruction as module
from unitok.evaluation.judges import FeatureNetwork, Judges
from unitok.evaluation.photos import find_photos
from unitok.evaluation.protocol import Pipeline
from unitok.evaluation.ranks import Ranks, Run, join
from unitok.evaluation.reconstruction import evaluate, reconstruction
from unitok.evaluation.report import read_report
from unitok.models.unitok import tiny

PIPELINE = Pipeline(64, "bicubic", 64)
NETWORK = FeatureNetwork("thumbs", "rFD-thumbs", 48, "12ab", lambda images: images[:, :, ::16, ::16].flatten(1).float())
JUDGES = Judges(NETWORK, None, {"thumbs": "12ab"})


def measured(folder, tokenizer, run, cache):
    return evaluate("tiny", tokenizer, find_photos(folder), PIPELINE, JUDGES, run, cache)


def test_broken_photos_are_told_and_in_no_figure(folder, tokenizer, run, tmp_path):
    whole, _ = measured(folder, tokenizer, run, tmp_path)
    (folder / "cat" / "9.png").write_bytes(b"broken")
    report, scores = measured(folder, tokenizer, run, tmp_path)
    assert report.protocol["count"] == len(scores) == 7
    for name, value in whole.figures.items():
        assert report.figures[name] == pytest.approx(value, rel=1e-6), name
    assert [name.split(":")[0] for name in report.excluded] == ["cat/9.png"]
    assert any("cat/9.png" in text for text in report.warnings)
    assert any("rank 6 at most" in text for text in report.warnings)
    assert report.protocol_id != whole.protocol_id
    for path in folder.rglob("*.png"):
        path.write_bytes(b"broken")
    with pytest.raises(ValueError, match="none of 8 photos could be read"):
        measured(folder, tokenizer, run, tmp_path)


def test_kept_reference_statistics_give_the_same_figures(folder, tokenizer, run, tmp_path, monkeypatch):
    first, _ = measured(folder, tokenizer, run, tmp_path)
    (kept,) = tmp_path.glob("reference-*.safetensors")
    seen = []
    counting = NETWORK._replace(features=lambda images: seen.append(len(images)) or NETWORK.features(images))
    judges = JUDGES._replace(features=counting)
    second, _ = evaluate("tiny", tokenizer, find_photos(folder), PIPELINE, judges, run, tmp_path)
    assert second.figures == first.figures
    assert sum(seen) == 7  # the reconstructions alone
    kept.write_bytes(b"broken")
    third, _ = measured(folder, tokenizer, run, tmp_path)
    assert third.figures == first.figures


def test_the_command_writes_a_json_and_a_picture(folder, tokenizer, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(module, "open_model", lambda *_: tokenizer)
    monkeypatch.setattr(module, "open_judges", lambda *_: JUDGES)
    output = tmp_path / "new" / "tiny.json"
    reconstruction(data=str(folder), tokenizer="tiny", output=output, size=64, cache=tmp_path, device="cpu", workers=0)
    report = read_report(output)
    assert report.picture == "tiny.png"
    with Image.open(output.with_suffix(".png")) as picture:
        assert picture.size == (3 * 64, 6 * (64 + 16))
    assert report.figures["bits_per_image"] == 4 * 4 * 2 * 5
    assert report.protocol["networks"] == {"thumbs": "12ab"}
    assert f"protocol {report.protocol_id}" in capsys.readouterr().out


def test_an_interrupted_run_leaves_the_old_json(folder, tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "open_model", lambda *_: tokenizer)
    monkeypatch.setattr(module, "open_judges", lambda *_: JUDGES)
    output = tmp_path / "tiny.json"
    output.write_text("old")

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(tokenizer, "decode", interrupt)
    with pytest.raises(KeyboardInterrupt):
        reconstruction(data=str(folder), output=output, size=64, cache=tmp_path, device="cpu", workers=0)
    assert output.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["tiny.json"]


def test_two_processes_give_the_numbers_of_one(folder, tokenizer, run, tmp_path):
    (folder / "cat" / "9.png").write_bytes(b"broken")
    alone, scores = measured(folder, tokenizer, run, tmp_path / "one")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(_process, (str(port), folder, tmp_path), nprocs=2)
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["protocol_id"] == alone.protocol_id
    assert found["excluded"] == alone.excluded
    assert found["scores"] == pytest.approx([scores[i] for i in sorted(scores)], rel=1e-6)
    for name, value in alone.figures.items():
        assert found["figures"][name] == pytest.approx(value, rel=1e-6), name


def _process(rank, port, folder, tmp_path):
    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "RANK": str(rank), "WORLD_SIZE": "2"}
    ranks = join("cpu")
    torch.manual_seed(0)
    run = Run(Ranks(ranks.rank, ranks.size, ranks.device), batch_size=2)
    report, scores = measured(folder, tiny().eval(), run, tmp_path / "two")
    if ranks.first:
        found = {"figures": report.figures, "excluded": report.excluded, "protocol_id": report.protocol_id}
        (tmp_path / "found.json").write_text(json.dumps(found | {"scores": [scores[i] for i in sorted(scores)]}))
    torch.distributed.destroy_process_group()
