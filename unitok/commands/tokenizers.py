"""`unitok list`, `info` and `convert`: tokenizers themselves."""

from collections.abc import Sequence
from pathlib import Path

from torch import nn

from unitok import hub
from unitok.models import TOKENIZERS


def list_() -> None:
    """The catalogue: each name, whether its trained weights come with the package, and its one-line description."""
    width = max(map(len, TOKENIZERS))
    for name in hub.list_tokenizers():
        shipped = "weights included" if (hub.ASSETS / name / hub.WEIGHTS).is_file() else "give a file"
        summary = (TOKENIZERS[name].__doc__ or "").strip().splitlines()[0]
        print(f"{name:<{width}}  {shipped:<16}  {summary}")


def info(tokenizers: Sequence[str] = ()) -> None:
    """What tokenizers consist of: their rooms and parameters, their codes and what they cost.

    Args:
        tokenizers: names of the catalogue, folders, published checkpoint files, or owner/name on the Hub; left out,
            the one that comes with the package.
    """
    for source in tokenizers or [hub.DEFAULT]:
        tokenizer = hub.load_tokenizer(source)
        print(f"{source}  ({(tokenizer.config or {}).get('tokenizer')})")
        for name, room in tokenizer.named_children():
            print(f"  {name:<12} {type(room).__name__:<24} {_count(room):>13,} parameters")
        print(f"  {'total':<37} {_count(tokenizer):>13,}")
        bits, stride = tokenizer.bits_per_token, getattr(tokenizer.encoder, "stride", None)
        print(
            f"codes: K = {tokenizer.num_codebooks} codebooks of V = {tokenizer.codebook_size}, {bits:g} bits per token"
        )
        if stride:
            print(f"grid:  a token for each {stride} x {stride} px, {bits / stride**2:.4g} bits per pixel")
        print(f"size:  trained on {tokenizer.image_size} x {tokenizer.image_size} px")
        print(f"sha256 of the weights: {hub.weights_sha256(tokenizer)}")


def convert(
    source: Path,
    folder: Path,
    encoder_heads: int | None = None,
    detokenizer: str | None = None,
    pixels: str | None = None,
) -> None:
    """A published checkpoint -> a folder with config.json and model.safetensors.

    Args:
        source: the published file.
        folder: where the folder shall be; its weights' metadata names the source and its sha256.
        encoder_heads: TA-Tok with an encoder that is no SigLIP 2 size: its attention heads, which no tensor shows.
        detokenizer: TA-Tok: a published de-tokenizer to decode with, a file or a folder.
        pixels: TA-Tok: the pixel tokenizer whose codes an autoregressive de-tokenizer writes.
    """
    options = {"encoder_heads": encoder_heads, "detokenizer": detokenizer, "pixels": pixels}
    hub.convert(source, folder, **{name: value for name, value in options.items() if value is not None})
    size = (folder / hub.WEIGHTS).stat().st_size
    print(f"wrote {folder}: {hub.CONFIG} and {hub.WEIGHTS} ({size / 1e6:,.1f} MB)")


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
