from xml.etree import ElementTree

import pytest

from unitok.evaluation.plots import Point, scatter

SVG = "{http://www.w3.org/2000/svg}"


def test_points_stand_where_their_numbers_say():
    points = [Point("a & b", 1000, 20.0), Point("c", 10000, 30.0), Point("d", 100000, 25.0)]
    picture = ElementTree.fromstring(scatter("title", "PSNR", points))
    found = {(float(c.get("cx")), float(c.get("cy"))) for c in picture.iter(f"{SVG}circle")}
    (ax, ay), (cx, cy), (dx, dy) = sorted(found)
    assert cx - ax == pytest.approx(dx - cx, abs=0.2)  # a logarithmic axis
    assert ay - dy == pytest.approx(dy - cy, abs=0.2)  # upwards
    texts = {text.text for text in picture.iter(f"{SVG}text")}
    assert {"a & b", "c", "d", "title", "PSNR", "bits per image", "10,000"} <= texts


def test_one_point_and_none():
    ElementTree.fromstring(scatter("title", "y", [Point("alone", 24576, 0.0)]))
    with pytest.raises(ValueError, match="positive bits"):
        scatter("title", "y", [])
    with pytest.raises(ValueError, match="positive bits"):
        scatter("title", "y", [Point("a", 0, 1)])
