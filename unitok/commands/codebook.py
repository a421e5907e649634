"""`unitok codebook`: the frozen half of a text-aligned codebook, from any language model."""

import json
from pathlib import Path

from unitok.quantizers.words import Codebook, read_embedding, select_embeddings, write_codebook


def codebook(
    from_: str = "",
    size: int = 65536,
    output: Path = Path("codebook.safetensors"),
    words: Path | None = None,
    tensor: str | None = None,
) -> None:
    """Choose the most representative rows of a language model's embedding, and write them with their words.

    Args:
        from_: a safetensors file, the folder of a language model, or owner/name on the Hub.
        size: how many rows.
        output: the file to write.
        words: a JSON list (or word -> id table), or a text file of one word a line, in the order of the embedding's
            rows; left out, words.json beside the embedding is read, or the language model's tokenizer (extra mllm).
        tensor: name of the embedding among the weights, where it is not a usual one.

    Raises:
        FileNotFoundError: no such file or folder.
        ValueError: no --from; no embedding in it; fewer rows than size; not as many words as rows.
    """
    if not from_:
        raise ValueError("--from is needed: a safetensors file, the folder of a language model, or owner/name")
    source = _fetched(from_)
    weight = read_embedding(source, tensor)
    ids = select_embeddings(weight, size)
    listed = _words(source, words, len(weight))
    chosen = [listed[index] for index in ids.tolist()] if listed else []
    write_codebook(Codebook(weight[ids].float(), ids, chosen), output, source=Path(from_).name)
    shown = (
        f", such as {', '.join(map(repr, chosen[:: max(1, size // 8)][:8]))}" if chosen else "; their words: unknown"
    )
    print(f"{output}: {size:,} of {len(weight):,} rows of {weight.shape[1]} channels{shown}")


def _fetched(source: str) -> Path:
    path = Path(source)
    if path.exists() or source.count("/") != 1 or source.startswith((".", "/")):
        return path
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(source, allow_patterns=["*.safetensors", "*.json", "*.txt", "*.model"]))


def _words(source: Path, given: Path | None, count: int) -> list[str]:
    """Words in the order of the embedding's rows; [] where none are known. Rows beyond the last word are unnamed."""
    beside = (source if source.is_dir() else source.parent) / "words.json"
    if given is None and beside.is_file():
        given = beside
    if given is not None:
        words = _listed(given)
        if len(words) != count:
            raise ValueError(f"{given} has {len(words)} words, the embedding has {count} rows")
        return words
    if source.is_dir() and ((source / "tokenizer.json").is_file() or (source / "tokenizer_config.json").is_file()):
        return _tokenizer_words(source, count)
    return []


def _listed(path: Path) -> list[str]:
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".json":
        return text.splitlines()
    words = json.loads(text)
    if isinstance(words, dict):
        words = sorted(words, key=words.__getitem__)
    if not isinstance(words, list):
        raise ValueError(f"{path} must hold a list of words, or a table of word -> id")
    return [str(word) for word in words]


def _tokenizer_words(folder: Path, count: int) -> list[str]:
    try:
        from transformers import AutoTokenizer
    except ImportError as error:
        raise ValueError(
            'the words of a language model need its tokenizer: pip install "unitok-vision[mllm]", or give --words'
        ) from error
    tokenizer = AutoTokenizer.from_pretrained(folder)
    known = min(len(tokenizer), count)
    return [tokenizer.decode([index]) for index in range(known)] + [""] * (count - known)
