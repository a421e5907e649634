import json

import open_clip
import pytest

from unitok.evaluation.classes import check_folders, read_classes, read_templates
from unitok.evaluation.photos import find_photos


def test_folder_names_are_class_names(folder):
    classes = read_classes(find_photos(folder))
    assert classes.names == ["cat", "red fox"]
    assert classes.labels == [0, 0, 0, 0, 1, 1, 1]


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("a.csv", "class_index,folder,class_name\n0,red_fox,vixen\n1,cat,tom\n"),
        ("a.json", json.dumps({"red_fox": "vixen", "cat": "tom"})),
    ],
)
def test_a_table_keeps_its_own_order(folder, tmp_path, file, text):
    (tmp_path / file).write_text(text)
    classes = read_classes(find_photos(folder), str(tmp_path / file))
    assert classes.names == ["vixen", "tom"]
    assert classes.labels == [1, 1, 1, 1, 0, 0, 0]


def test_a_table_may_name_files(folder, tmp_path):
    rows = "".join(f"{index}.png,{'odd' if index % 2 else 'even'}\n" for index in range(7))
    (tmp_path / "labels.csv").write_text("file,class_name\n" + rows)
    flat = tmp_path / "flat"
    flat.mkdir()
    for path in folder.rglob("*.png"):
        path.rename(flat / path.name)
    classes = read_classes(find_photos(flat), str(tmp_path / "labels.csv"))
    assert classes.names == ["even", "odd"]
    assert classes.labels == [0, 1, 0, 1, 0, 1, 0]


def test_a_list_follows_the_sorted_folders(folder, tmp_path):
    (tmp_path / "names.txt").write_text("tom\nvixen\n")
    assert read_classes(find_photos(folder), str(tmp_path / "names.txt")).names == ["tom", "vixen"]
    (tmp_path / "names.txt").write_text("tom\n")
    with pytest.raises(ValueError, match="1 names for 2 class folders"):
        read_classes(find_photos(folder), str(tmp_path / "names.txt"))


def test_bad_classes(folder, tmp_path):
    photos = find_photos(folder)
    with pytest.raises(FileNotFoundError, match="no class file"):
        read_classes(photos, "gone.csv")
    with pytest.raises(ValueError, match="1000 folders named by WordNet id, found 2"):
        read_classes(photos, "imagenet")
    (tmp_path / "some.json").write_text('{"cat": "tom"}')
    with pytest.raises(ValueError, match=r"3 photos have no class .* red_fox/1\.png"):
        read_classes(photos, str(tmp_path / "some.json"))
    check_folders(folder)
    (folder / "dog").mkdir()
    with pytest.raises(ValueError, match="dog holds no photos"):
        check_folders(folder)


def test_templates(tmp_path):
    prompts = read_templates("openai-imagenet")
    assert [prompt.format("cat") for prompt in prompts] == [t("cat") for t in open_clip.OPENAI_IMAGENET_TEMPLATES]
    assert read_templates("plain") == ["{}"]
    (tmp_path / "mine.txt").write_text("a {}.\n\nthe {}\n")
    assert read_templates(str(tmp_path / "mine.txt")) == ["a {}.", "the {}"]
    (tmp_path / "mine.txt").write_text("a cat\n")
    with pytest.raises(ValueError, match="a cat"):
        read_templates(str(tmp_path / "mine.txt"))
    with pytest.raises(ValueError, match="'none'"):
        read_templates("none")
