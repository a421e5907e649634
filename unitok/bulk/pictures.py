"""`unitok decode FOLDER --keys ...`: what is inside a run, as pictures."""

from pathlib import Path

import torch

from unitok.bulk.identity import check_tokenizer
from unitok.bulk.reading import TokenDataset
from unitok.hub import load_tokenizer
from unitok.images import write_images
from unitok.tokenizer import Tokenizer


def decode_tokens(
    folder: str,
    keys: list[str] | None = None,
    output: str = "decoded",
    tokenizer: str | Tokenizer | None = None,
    view: int = 0,
    seed: int = 0,
) -> None:
    """Decode images of a run by key and write them as PNG files.

    Args:
        folder: of the run, as `tokenize` wrote it; path or URL.
        keys: of the images; by default the first eight.
        output: folder for the pictures, named as the keys with "_" for "/".
        tokenizer: the one that made the codes; by default the one the run names.
        view: which view of each image, where the run was augmented.
        seed: of a generative decoder; a pixel decoder draws nothing.

    Raises:
        ValueError: another tokenizer than the one that made the codes; no such key, or one that occurs twice.
        OSError: no run there, or a damaged one.
    """
    dataset = TokenDataset(folder)
    if isinstance(tokenizer, Tokenizer):
        loaded = tokenizer
    else:
        name, dtype = tokenizer or dataset.manifest["tokenizer"]["name"], getattr(torch, dataset.manifest["dtype"])
        loaded = load_tokenizer(name, parts="decode", dtype=dtype)
    check_tokenizer(loaded, dataset.manifest, folder)
    try:
        indices = range(min(8, len(dataset))) if keys is None else [dataset.find(key, view) for key in keys]
    except KeyError as error:
        raise ValueError(f"{folder}: {error.args[0]}") from error
    Path(output).mkdir(parents=True, exist_ok=True)
    for index in indices:
        sample = dataset[index]
        generative = getattr(loaded.decoder, "generative", False)
        generator = torch.Generator().manual_seed(seed) if generative else None
        path = Path(output, sample.key.replace("/", "_")).with_suffix(".png")
        write_images(loaded.decode(sample.codes[None], generator=generator), [path])
        print(f"{sample.key} -> {path}")
