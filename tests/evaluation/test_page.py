import re
from html.parser import HTMLParser

import pytest
from PIL import Image

from unitok.evaluation.page import report as make_page
from unitok.evaluation.protocol import Protocol
from unitok.evaluation.report import make_report, write_report

RECONSTRUCTION = Protocol("reconstruction", "ab", 10, 256, "bicubic", 256, "uint8, half up", {"net": "12"}, {})
ZERO_SHOT = Protocol("zero-shot", "ab", 10, 256, "bicubic", 256, "none", {}, {})


@pytest.fixture
def paths(run, tmp_path):
    Image.new("RGB", (4, 4), "red").save(tmp_path / "ours.png")
    ours = make_report(
        "<ours>", None, RECONSTRUCTION, {"psnr": 20.5, "bits_per_image": 24576.0}, run, ["x.png: broken"]
    )
    rest = [
        make_report(
            "jpeg", None, RECONSTRUCTION, {"psnr": 19.5, "bits_per_image": 24000.0}, run, warnings=["few photos"]
        ),
        make_report("<ours>", None, ZERO_SHOT, {"top1": 0.5, "bits_per_image": 24576.0}, run),
    ]
    paths = [tmp_path / f"{index}.json" for index in range(3)]
    for one, path in zip([ours._replace(picture="ours.png"), *rest], paths, strict=True):
        write_report(one, path)
    return paths


def test_the_page_holds_everything_and_fetches_nothing(paths, tmp_path):
    make_page(paths, tmp_path / "new" / "report.html")
    text = (tmp_path / "new" / "report.html").read_text()
    HTMLParser().feed(text)
    assert text.count("<table>") == 2  # unlike protocols never share one
    assert text.count("<svg") == 2  # rate-distortion of two, rate-semantics of one
    assert "data:image/png;base64," in text
    assert "few photos" in text
    assert "x.png: broken" in text
    assert "<ours>" not in text
    assert not re.search(r"(src|href)=\"(?!data:)", text)
    assert set(re.findall(r"https?://[^\"<]+", text)) <= {"http://www.w3.org/2000/svg"}


def test_the_readme_gets_the_tables_it_has_markers_for(paths, tmp_path):
    readme = tmp_path / "README.md"
    name = f"table {RECONSTRUCTION.id}"
    readme.write_text(f"<!-- {name} -->\nnever closed")
    with pytest.raises(ValueError, match="no place"):
        make_page(paths, tmp_path / "report.html", readme)
    readme.write_text(f"<!-- {name} -->\nold\n<!-- /{name} -->")
    make_page(paths, tmp_path / "report.html", readme)
    assert "| jpeg " in readme.read_text()
    assert "top-1" not in readme.read_text()
    readme.write_text("nothing")
    with pytest.raises(ValueError, match="no markers"):
        make_page(paths, tmp_path / "report.html", readme)
