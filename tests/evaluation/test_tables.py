import re
from dataclasses import replace
from pathlib import Path

import pytest

from unitok.evaluation.protocol import Protocol
from unitok.evaluation.report import make_report, read_report, write_report
from unitok.evaluation.tables import by_protocol, compare, table, write_between_markers

PROTOCOL = Protocol("reconstruction", "abcdef0123456", 10, 256, "bicubic", 256, "uint8, half up", {"net": "12"}, {})
ROOT = Path(__file__).parents[2]


@pytest.fixture
def reports(run):
    one = make_report("ours", None, PROTOCOL, {"psnr": 20.456, "bits_per_image": 24576.0, "rFD-net": 1.5}, run)
    two = make_report("jpeg", None, PROTOCOL, {"psnr": 19.0, "bits_per_image": 24000.4, "codebook_usage": 0.5}, run)
    return [one, two]


def test_a_table_by_hand(reports):
    assert table(reports).splitlines() == [
        "| tokenizer | bits/image | rFD-net ↓ | PSNR dB ↑ | usage % |",
        "|-----------|------------|-----------|-----------|---------|",
        "| ours      | 24,576     | 1.50      | 20.46     | -       |",
        "| jpeg      | 24,000     | -         | 19.00     | 50.0    |",
        "",
        f"Protocol `{PROTOCOL.id}`: reconstruction, 10 photos (sha256 abcdef0123), shorter side 256 (bicubic), "
        "middle 256 px, networks: net.",
    ]


def test_unlike_protocols_are_refused_unless_forced(reports, run, tmp_path, capsys):
    other = make_report("more", None, replace(PROTOCOL, count=50000), {"psnr": 21.0}, run)
    paths = [tmp_path / f"{index}.json" for index in range(3)]
    for report, path in zip([*reports, other], paths, strict=True):
        write_report(report, path)
    compare(paths[:2])
    assert "| ours " in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"2\.json follows .* they differ in count: 10 against 50000"):
        compare(paths)
    compare(paths, force=True)
    assert other.protocol_id in capsys.readouterr().out


def test_the_readmes_text_around_a_table_stays(tmp_path):
    page = tmp_path / "README.md"
    page.write_text("before\n<!-- table x -->\nold\n<!-- /table x -->\nafter\n")
    write_between_markers(page, "table x", r"new \1")
    assert page.read_text() == "before\n<!-- table x -->\nnew \\1\n<!-- /table x -->\nafter\n"
    with pytest.raises(ValueError, match="no place for this table"):
        write_between_markers(page, "table y", "new")


def test_the_tables_of_the_readme_are_those_of_the_results():
    text = (ROOT / "README.md").read_text()
    wanted = re.findall(r"<!-- table (\w+) -->\n(.*?)\n<!-- /table \1 -->", text, re.DOTALL)
    paths = sorted((ROOT / "benchmarks" / "results").glob("*-*.json")) if wanted else []
    groups = by_protocol([read_report(path) for path in paths if '"protocol_id"' in path.read_text()])
    for protocol, written in wanted:
        assert written == table(groups[protocol])
