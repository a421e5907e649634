"""Which class a photo belongs to, and what the classes are called."""

import csv
import json
import re
from pathlib import Path
from typing import NamedTuple

from unitok.evaluation.photos import Photo

TEMPLATES = ("openai-imagenet", "simple", "plain")


class Classes(NamedTuple):
    """The classes of a folder of photos.

    Attributes:
        names: for the prompts, in the order of labels.
        labels: of each photo.
    """

    names: list[str]
    labels: list[int]


def read_classes(photos: list[Photo], classes: str | None = None) -> Classes:
    """The class of each photo, by its folder or by a table.

    Args:
        photos: from `find_photos`.
        classes: "imagenet" (1000 folders named by WordNet id, open_clip's names); a .txt with one name a line, in the
            order of sorted folders; a .json with a list in that order or {folder: name}; a .csv with the columns
            `folder` (or `file`) and `class_name` (or `name`). None takes the folder names themselves, "_" for a space.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a folder without photos, a photo without a class, another number of names than of folders.
    """
    if classes is None or classes == "imagenet":
        folders = sorted({_folder(photo) for photo in photos})
        names = _imagenet(folders) if classes else [folder.replace("_", " ") for folder in folders]
        table = dict(zip(folders, names, strict=True))
    else:
        table = _table(Path(classes), sorted({_folder(photo) for photo in photos}))
    found = [table.get(_folder(photo), table.get(photo.name)) for photo in photos]
    names = list(dict.fromkeys(table.values()))
    if lost := [photo.name for photo, name in zip(photos, found, strict=True) if name is None]:
        raise ValueError(f"{len(lost)} photos have no class in {classes}; the first: {lost[0]}")
    numbers = {name: number for number, name in enumerate(names)}
    return Classes(names, [numbers[name] for name in found if name is not None])


def check_folders(root: Path) -> None:
    """Raise ValueError where a class folder holds no photos: its class would silently count for nothing."""
    from unitok.images import SUFFIXES

    folders = [path for path in sorted(root.iterdir()) if path.is_dir() and not path.name.startswith(".")]
    for folder in folders:
        if not any(path.suffix.lower() in SUFFIXES for path in folder.rglob("*")):
            raise ValueError(f"the class folder {folder} holds no photos; remove it or fill it")


def read_templates(templates: str) -> list[str]:
    """Prompts with one {} for the class name.

    Args:
        templates: "openai-imagenet" (open_clip's 80), "simple" (open_clip's 7 that do best), "plain" (the name alone),
            or a .txt with one prompt a line.

    Raises:
        ValueError: an unknown name, or a line without {}.
    """
    import open_clip

    if templates in TEMPLATES:
        known = {"openai-imagenet": open_clip.OPENAI_IMAGENET_TEMPLATES, "simple": open_clip.SIMPLE_IMAGENET_TEMPLATES}
        return [template("{}") for template in known[templates]] if templates in known else ["{}"]
    path = Path(templates)
    if not path.is_file():
        raise ValueError(f"templates={templates!r} is neither one of {list(TEMPLATES)} nor a file")
    lines = [line.strip() for line in path.read_text().splitlines() if line.strip()]
    if not lines or (wrong := [line for line in lines if line.count("{}") != 1]):
        raise ValueError(
            f"each line of {path} needs one {{}} for the class name: {wrong[0] if lines else 'it is empty'}"
        )
    return lines


def _folder(photo: Photo) -> str:
    """The folder that names the class: the photo's parent, also inside a shard."""
    return Path(photo.name).parent.name


def _imagenet(folders: list[str]) -> list[str]:
    from open_clip import IMAGENET_CLASSNAMES

    if len(folders) != 1000 or not all(re.fullmatch(r"n\d{8}", folder) for folder in folders):
        raise ValueError(
            f"open_clip's ImageNet names need 1000 folders named by WordNet id, found {len(folders)}"
            f" ({', '.join(folders[:3])}, ...); give --classes FILE for others"
        )
    return list(IMAGENET_CLASSNAMES)


def _table(path: Path, folders: list[str]) -> dict[str, str]:
    """Folder or file -> class name."""
    if not path.is_file():
        raise FileNotFoundError(f"no class file {path}")
    if path.suffix == ".csv":
        with open(path, newline="") as file:
            rows = list(csv.DictReader(file))
        keys = [key for key in ("folder", "file") if rows and key in rows[0]]
        values = [value for value in ("class_name", "name") if rows and value in rows[0]]
        if not keys or not values:
            raise ValueError(f"{path} needs the columns folder (or file) and class_name (or name)")
        return {row[keys[0]]: row[values[0]] for row in rows}
    names = json.loads(path.read_text()) if path.suffix == ".json" else path.read_text().splitlines()
    if isinstance(names, dict):
        return {str(folder): str(name) for folder, name in names.items()}
    names = [str(name).strip() for name in names if str(name).strip()]
    if len(names) != len(folders):
        raise ValueError(f"{path} has {len(names)} names for {len(folders)} class folders")
    return dict(zip(folders, names, strict=True))
