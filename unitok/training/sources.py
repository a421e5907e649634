"""Where pairs of image and captions lie on disk: class folders and JSON-lines, checked before the first step."""

import csv
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"})


class Pair(NamedTuple):
    """An image file and what may be said of it; captions are empty where nothing is known."""

    image: str
    captions: tuple[str, ...]


def read_pairs(source: str, templates: Sequence[str], class_names: dict[str, str] | None = None) -> list[Pair]:
    """A folder or a JSON-lines file -> its pairs, sorted by path or in the order of its lines.

    Args:
        source: a folder of images, whose first level of subfolders are classes; or a file with one
            {"image": path relative to the file, "captions": [text, ...]} a line.
        templates: for folders, sentences with {} for the class name.
        class_names: for folders, folder -> class name; without it "_" in a folder's name is read as a space.

    Raises:
        OSError: the source or one of its folders or image files is missing or cannot be read.
        ValueError: no images in the folder, a folder that class_names does not name, or a broken line.
    """
    path = Path(source)
    if path.is_dir():
        return _folder_pairs(path, templates, class_names)
    if not path.exists():
        raise FileNotFoundError(f"no data at {source!r}: give an image folder, a .jsonl file or tar shards")
    if path.suffix not in {".jsonl", ".json", ".ndjson"}:
        raise ValueError(f"{source!r} is neither an image folder, a .jsonl file nor a .tar shard")
    return _line_pairs(path)


def read_class_names(path: str) -> dict[str, str]:
    """A CSV file with columns `folder` and `class_name` (or `name`) -> {folder: class name}.

    Raises:
        ValueError: a column is missing.
    """
    with open(path, newline="", encoding="utf-8") as file:
        rows = csv.DictReader(file)
        columns = rows.fieldnames or []
        name = "class_name" if "class_name" in columns else "name"
        if "folder" not in columns or name not in columns:
            raise ValueError(f"{path} needs the columns folder and class_name; it has {', '.join(columns) or 'none'}")
        return {row["folder"]: row[name] for row in rows}


def _folder_pairs(root: Path, templates: Sequence[str], class_names: dict[str, str] | None) -> list[Pair]:
    captions: dict[str, tuple[str, ...]] = {}
    pairs = []
    for image in _images(root):
        inside = image.relative_to(root)
        folder = inside.parts[0] if len(inside.parts) > 1 else ""
        if folder not in captions:
            captions[folder] = _class_captions(folder, templates, class_names)
        pairs.append(Pair(str(image), captions[folder]))
    if not pairs:
        raise ValueError(f"no images in {root}: looked for {', '.join(sorted(IMAGE_SUFFIXES))} in it and below it")
    return pairs


def _images(root: Path) -> Iterator[Path]:
    def fail(error: OSError) -> None:
        raise error

    for folder, subfolders, files in os.walk(root, onerror=fail, followlinks=True):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        for name in sorted(files):
            if Path(name).suffix.lower() in IMAGE_SUFFIXES and not name.startswith("."):
                yield Path(folder, name)


def _class_captions(folder: str, templates: Sequence[str], class_names: dict[str, str] | None) -> tuple[str, ...]:
    if not folder:
        return ()
    if class_names is None:
        name = folder.replace("_", " ")
    elif folder in class_names:
        name = class_names[folder]
    else:
        raise ValueError(f"the class names do not name the folder {folder!r}: add a line for it, or leave them out")
    return tuple(template.format(name) for template in templates)


def _line_pairs(path: Path) -> list[Pair]:
    pairs = []
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                pairs.append(_line_pair(line, path, number))
    if not pairs:
        raise ValueError(f"no pairs in {path}: it has no lines")
    _check_files(pairs, path)
    return pairs


def _line_pair(line: str, path: Path, number: int) -> Pair:
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}, line {number}: not JSON ({error})") from None
    image = record.get("image") if isinstance(record, dict) else None
    captions = record.get("captions", []) if isinstance(record, dict) else None
    captions = [captions] if isinstance(captions, str) else captions
    if not isinstance(image, str) or not isinstance(captions, list) or not all(isinstance(c, str) for c in captions):
        raise ValueError(f'{path}, line {number}: expected {{"image": path, "captions": [text, ...]}}')
    return Pair(os.path.join(path.parent, image), tuple(captions))


def _check_files(pairs: Sequence[Pair], path: Path) -> None:
    present: dict[str, frozenset[str]] = {}  # a folder is listed once: far cheaper than a look at every file
    for number, pair in enumerate(pairs, 1):
        folder, name = os.path.split(pair.image)
        if folder not in present:
            present[folder] = frozenset(os.listdir(folder)) if os.path.isdir(folder) else frozenset()
        if name not in present[folder]:
            raise FileNotFoundError(f"{path}, pair {number}: no image at {pair.image}")
