"""`unitok encode` and `decode`: many photos <-> one safetensors file of codes.

The file holds one tensor for each grid, named "16x16" and so on: (B, K, h, w) codes in the smallest integer that holds
them. Its metadata names the photos of each grid in order, K and V, and a fingerprint of the codebooks.
"""

import hashlib
import json
import os
from collections import defaultdict
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

from unitok.commands.photos import Device, Dtype, Photos, device_of, load_on, seeded, shape_wanted
from unitok.files import replacing
from unitok.hub import DEFAULT
from unitok.images import write_images
from unitok.tokenizer import Tokenizer

FORMAT = "unitok codes 1"


class Codes(NamedTuple):
    """A file of codes.

    Attributes:
        grids: "16x16" -> (B, K, 16, 16) integer codes.
        names: "16x16" -> the names of its B photos.
        about: K, V and the fingerprint of the tokenizer that made them.
    """

    grids: dict[str, Tensor]
    names: dict[str, list[str]]
    about: dict[str, Any]


def encode(
    photos: list[Path],
    output: Path = Path("codes.safetensors"),
    tokenizer: str = DEFAULT,
    size: int | None = None,
    own_shape: bool = False,
    batch_size: int = 8,
    device: Device = "auto",
    dtype: Dtype = "float32",
    strict: bool = False,
) -> int:
    """Photos and folders -> one safetensors of codes. For millions of photos use `unitok tokenize`, which can resume.

    Args:
        photos: files and folders; folders are walked.
        output: the file of codes, written at the end, whole or not at all.
        tokenizer: a name of the catalogue, a folder, a published checkpoint file, or owner/name on the Hub.
        size: shorter side and centre square, in pixels; left out, the size the tokenizer was trained on.
        own_shape: keep each photo's own shape (cut to whole tokens).
        batch_size: photos at once.
        device: where to compute; auto takes CUDA where there is one.
        dtype: bfloat16 is faster and changes some codes.
        strict: stop at the first photo that cannot be read.
    """
    model = load_on(tokenizer, "encode", device, dtype)
    if not output.absolute().parent.is_dir():
        raise FileNotFoundError(f"no folder {output.parent} to write {output.name} into: create it first")
    reader = Photos(photos, *shape_wanted(model, size, own_shape), strict)
    grids: dict[str, list[Tensor]] = defaultdict(list)
    paths: dict[str, list[Path]] = defaultdict(list)
    for batch, images in reader.batches(batch_size):
        codes = model.encode(images.to(device_of(model)), validate=False).cpu()
        grid = f"{codes.shape[2]}x{codes.shape[3]}"
        grids[grid].append(codes.to(_smallest(model.codebook_size)))
        paths[grid] += batch
    root = Path(os.path.commonpath([path.absolute().parent for group in paths.values() for path in group]))
    names = {grid: [path.absolute().relative_to(root).as_posix() for path in group] for grid, group in paths.items()}
    write_codes(output, Codes({grid: torch.cat(parts) for grid, parts in grids.items()}, names, _about(model)))
    print(f"wrote {output}: the codes of {sum(map(len, names.values()))} photos")
    return reader.exit_code


def decode(
    codes: Path,
    output: Path = Path("decoded"),
    tokenizer: str = DEFAULT,
    keys: list[str] | None = None,
    batch_size: int = 8,
    seed: int = 0,
    device: Device = "auto",
    dtype: Dtype = "float32",
) -> None:
    """A file of codes -> a folder of PNG files, named as the photos were.

    Args:
        codes: a file that `unitok encode` wrote, or a folder of `unitok tokenize`, of which eight are shown.
        output: the folder; created where it does not exist.
        tokenizer: the tokenizer that made the codes.
        keys: which images of a folder of `unitok tokenize`.
        batch_size: photos at once.
        seed: of a generative decoder; a pixel decoder draws nothing.
        device: where to compute; auto takes CUDA where there is one.
        dtype: bfloat16 is faster and a little less exact.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size} must be at least 1")
    if (codes / "manifest.json").is_file():
        from unitok.bulk.pictures import decode_tokens

        decode_tokens(str(codes), keys, str(output), None if tokenizer == DEFAULT else tokenizer, seed=seed)
        return
    if keys is not None:
        raise ValueError(f"keys choose images of a folder of `unitok tokenize`, and {codes} is none")
    found = read_codes(codes)
    model = load_on(tokenizer, "decode", device, dtype)
    for key, ours in _about(model).items():
        if found.about.get(key) != ours:
            raise ValueError(
                f"{codes} was made by another tokenizer: its {key} is {found.about.get(key)}, that of {tokenizer} is "
                f"{ours}; give the one that made it with --tokenizer"
            )
    targets = _targets(found.names, output)
    with tqdm(total=sum(map(len, targets.values())), unit="photo", disable=None) as bar:
        for grid, stored in found.grids.items():
            for start in range(0, len(stored), batch_size):
                part = stored[start : start + batch_size].to(device_of(model), torch.int64)
                files = targets[grid][start : start + batch_size]
                for folder in {file.parent for file in files}:
                    folder.mkdir(parents=True, exist_ok=True)
                write_images(model.decode(part, seeded(model, seed)), files)
                bar.update(len(files))
    print(f"wrote {sum(map(len, targets.values()))} photos into {output}")


def write_codes(path: Path, codes: Codes) -> None:
    """Write a file of codes, whole or not at all."""
    metadata = {"format": FORMAT, "names": json.dumps(codes.names), "about": json.dumps(codes.about)}
    with replacing(path) as temporary:
        save_file({grid: part.contiguous() for grid, part in codes.grids.items()}, temporary, metadata=metadata)


def read_codes(path: Path) -> Codes:
    """Read a file of codes.

    Raises:
        FileNotFoundError: there is none.
        ValueError: not a whole safetensors file, not one of codes, or names that do not fit the tensors.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no file of codes at {path}")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            grids = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{path} is not a whole safetensors file: {error}") from error
    if metadata.get("format") != FORMAT:
        raise ValueError(f"{path} is no file of codes: its format is {metadata.get('format')!r} and not {FORMAT!r}")
    try:
        names, about = json.loads(metadata["names"]), json.loads(metadata["about"])
        counts = {grid: len(group) for grid, group in names.items()}
    except (KeyError, AttributeError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path}: its metadata cannot be read: {error!r}") from error
    if counts != {grid: len(part) for grid, part in grids.items()}:
        raise ValueError(f"{path} names {counts} photos but holds codes of { {g: len(p) for g, p in grids.items()} }")
    if wrong := {grid: part.dtype for grid, part in grids.items() if part.is_floating_point()}:
        raise ValueError(f"{path}: codes must be integers, not {wrong}")
    return Codes(grids, names, about)


def _about(tokenizer: Tokenizer) -> dict[str, Any]:
    """K, V and a fingerprint of the codebooks, the same whether weights are float32 or bfloat16, whole or half."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tokenizer.quantizer.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().to(torch.bfloat16).contiguous().flatten().view(torch.uint8).numpy())
    return {
        "num_codebooks": tokenizer.num_codebooks,
        "codebook_size": tokenizer.codebook_size,
        "fingerprint": digest.hexdigest()[:16],
    }


def _smallest(codebook_size: int) -> torch.dtype:
    bounds = {torch.uint8: 2**8, torch.int16: 2**15, torch.int32: 2**31}
    return next(dtype for dtype, bound in bounds.items() if codebook_size <= bound)


def _targets(names: dict[str, list[str]], folder: Path) -> dict[str, list[Path]]:
    """The PNG of each photo; where two differ in the suffix alone, it is kept: a.jpg.png and a.webp.png."""
    everything = [PurePosixPath(name) for group in names.values() for name in group]
    for name in everything:
        if name.is_absolute() or ".." in name.parts or not name.name:
            raise ValueError(f"the name {str(name)!r} in this file of codes leads out of the folder {folder}")
    stems = [name.with_suffix("") for name in everything]
    twice = {stem for stem in stems if stems.count(stem) > 1} if len(set(stems)) < len(stems) else set()
    return {
        grid: [
            folder / (f"{name}.png" if PurePosixPath(name).with_suffix("") in twice else Path(name).with_suffix(".png"))
            for name in group
        ]
        for grid, group in names.items()
    }
