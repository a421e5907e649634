import json

import pytest

from unitok.training.sources import read_class_names, read_pairs


def test_a_folder_gives_class_captions_in_order(class_folder):
    pairs = read_pairs(str(class_folder), ["a photo of a {}.", "art of the {}"])
    assert [pair.image[-6:-4] for pair in pairs] == [f"{number:02d}" for number in range(24)]
    assert pairs[9].captions == ("a photo of a gas pump.", "art of the gas pump")


def test_class_names_come_from_a_file(class_folder, tmp_path):
    table = tmp_path / "classes.csv"
    table.write_text("class_index,folder,class_name\n0,church,chapel\n1,gas_pump,petrol pump\n2,tench,fish\n")
    names = read_class_names(str(table))
    assert read_pairs(str(class_folder), ["{}"], names)[-1].captions == ("fish",)
    with pytest.raises(ValueError, match="do not name the folder 'tench'"):
        read_pairs(str(class_folder), ["{}"], {"church": "church", "gas_pump": "gas pump"})


def test_class_names_need_their_columns(tmp_path):
    (tmp_path / "classes.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="needs the columns folder and class_name; it has a, b"):
        read_class_names(str(tmp_path / "classes.csv"))


def test_images_beside_the_class_folders_have_no_caption(class_folder):
    (class_folder / "church" / "00.png").rename(class_folder / "00.png")
    pairs = read_pairs(str(class_folder), ["{}"])
    assert [pair.captions for pair in pairs if pair.image.endswith("00.png")] == [()]


def test_lines_give_paths_relative_to_their_file(lines):
    pairs = read_pairs(str(lines), [])
    assert pairs[2].image == str(lines.parent / "files" / "32.png")
    assert pairs[2].captions == ("number 32", "32 in one colour")


@pytest.mark.parametrize("line", ["{", "[1]", '{"captions": ["a"]}', '{"image": "a.png", "captions": 3}'])
def test_a_broken_line_is_named_by_its_number(lines, line):
    lines.write_text(lines.read_text() + line + "\n")
    with pytest.raises(ValueError, match=r"pairs.jsonl, line 7: "):
        read_pairs(str(lines), [])


def test_a_missing_image_is_known_at_once(lines):
    lines.write_text(lines.read_text() + json.dumps({"image": "files/99.png", "captions": ["a"]}) + "\n")
    with pytest.raises(FileNotFoundError, match=r"pair 7: no image at .*99.png"):
        read_pairs(str(lines), [])


def test_nothing_to_read_is_said(tmp_path):
    with pytest.raises(FileNotFoundError, match="no data at"):
        read_pairs(str(tmp_path / "nowhere"), [])
    with pytest.raises(ValueError, match="no images in"):
        read_pairs(str(tmp_path), [])
    (tmp_path / "empty.jsonl").touch()
    with pytest.raises(ValueError, match="no pairs in"):
        read_pairs(str(tmp_path / "empty.jsonl"), [])
    (tmp_path / "table.parquet").touch()
    with pytest.raises(ValueError, match="neither an image folder"):
        read_pairs(str(tmp_path / "table.parquet"), [])


def test_a_folder_that_cannot_be_listed_is_an_error(class_folder, monkeypatch):
    import os

    real = os.scandir

    def scandir(path):
        if str(path).endswith("gas_pump"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(PermissionError, match="gas_pump"):
        read_pairs(str(class_folder), ["{}"])
