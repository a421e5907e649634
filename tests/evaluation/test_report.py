import json
from dataclasses import replace

import pytest

from unitok.evaluation.protocol import Protocol
from unitok.evaluation.report import make_report, print_report, read_report, write_report

PROTOCOL = Protocol("reconstruction", "ab", 10, 256, "bicubic", 256, "uint8, half up", {"net": "12"}, {})


def test_a_report_says_everything_and_comes_back(tokenizer, run, tmp_path, capsys):
    report = make_report("tiny", tokenizer, PROTOCOL, {"psnr": 20.5, "each": [1.0]}, run, ["a.png: broken"], ["few"])
    write_report(report, tmp_path / "new" / "a.json")
    assert read_report(tmp_path / "new" / "a.json") == report
    assert report.about.keys() >= {"command", "commit", "date", "device", "dtype", "versions", "weights_sha256"}
    assert report.protocol_id == PROTOCOL.id
    print_report(report)
    assert "20.5" in capsys.readouterr().out


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_a_figure_that_is_no_number_is_an_error(run, broken):
    with pytest.raises(ValueError, match=r"psnr=.* is no figure"):
        make_report("tiny", None, PROTOCOL, {"psnr": broken}, run)


def test_an_edited_protocol_is_found_out(run, tmp_path):
    path = tmp_path / "a.json"
    write_report(make_report("tiny", None, PROTOCOL, {}, run), path)
    edited = json.loads(path.read_text())
    edited["protocol"]["count"] = 50000
    path.write_text(json.dumps(edited))
    with pytest.raises(ValueError, match=f"says protocol {PROTOCOL.id}, .* {replace(PROTOCOL, count=50000).id}"):
        read_report(path)


@pytest.mark.parametrize("text", ["{", "[]", '{"psnr": 3}'])
def test_other_json_is_refused(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ValueError, match=r"is no report of `unitok eval`"):
        read_report(tmp_path / "a.json")
    with pytest.raises(FileNotFoundError, match="no report"):
        read_report(tmp_path / "b.json")
