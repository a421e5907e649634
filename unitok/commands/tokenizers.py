"""`unitok list`, `info` and `convert`: tokenizers themselves."""

from pathlib import Path

from unitok import hub
from unitok.hub import DEFAULT
from unitok.models import TOKENIZERS


def list_() -> None:
    """The catalogue: each name, whether its trained weights come with the package, and its one-line description."""
    width = max(map(len, TOKENIZERS))
    for name in hub.list_tokenizers():
        shipped = "weights included" if (hub.ASSETS / name / hub.WEIGHTS).is_file() else "give a file"
        summary = (TOKENIZERS[name].__doc__ or "").strip().splitlines()[0]
        print(f"{name:<{width}}  {shipped:<16}  {summary}")


def info(tokenizer: str = DEFAULT) -> None:
    """What a tokenizer consists of: its rooms and their parameters, its codes and what they cost.

    Args:
        tokenizer: a name of the catalogue, a folder, a published checkpoint file, or owner/name on the Hub.
    """
    loaded = hub.load_tokenizer(tokenizer)
    total = 0
    print(f"{tokenizer}  ({(loaded.config or {}).get('tokenizer')})")
    for name, room in loaded.named_children():
        count = sum(parameter.numel() for parameter in room.parameters())
        total += count
        print(f"  {name:<12} {type(room).__name__:<24} {count:>13,} parameters")
    print(f"  {'total':<37} {total:>13,}")
    stride = getattr(loaded.encoder, "stride", None)
    print(f"codes: K = {loaded.num_codebooks} codebooks of V = {loaded.codebook_size} entries", end="")
    print(f", {loaded.bits_per_token:g} bits per token")
    if stride:
        print(f"grid:  one token for {stride} x {stride} px, {loaded.bits_per_token / stride**2:.4g} bits per pixel")
    print(f"size:  trained on {loaded.image_size} x {loaded.image_size} px")
    print(f"sha256 of the weights: {hub.weights_sha256(loaded)}")


def convert(source: Path, folder: Path) -> None:
    """A published checkpoint -> a folder with config.json and model.safetensors.

    Args:
        source: the published file.
        folder: where the folder shall be; its weights' metadata names the source and its sha256.
    """
    hub.convert(source, folder)
    size = (folder / hub.WEIGHTS).stat().st_size
    print(f"wrote {folder}: {hub.CONFIG} and {hub.WEIGHTS} ({size / 1e6:,.1f} MB)")
