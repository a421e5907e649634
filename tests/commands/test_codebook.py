import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from unitok.cli import main
from unitok.quantizers.words import read_codebook, select_embeddings

WEIGHT = torch.randn(20, 4, generator=torch.Generator().manual_seed(0))
WORDS = [f"word{index}" for index in range(20)]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    save_file({"embedding": WEIGHT}, tmp_path / "vectors.safetensors")
    (tmp_path / "words.json").write_text(json.dumps(WORDS))
    return tmp_path / "vectors.safetensors"


def test_rows_are_written_with_the_words_they_stand_for(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = model.parent / "book.safetensors"
    assert main(["codebook", "--from", str(model), "--size", "6", "-o", str(output)]) == 0
    book = read_codebook(output)
    ids = select_embeddings(WEIGHT, 6)
    assert torch.equal(book.ids, ids)
    assert torch.equal(book.embedding, WEIGHT[ids])
    assert book.words == [WORDS[index] for index in ids.tolist()]
    assert "6 of 20 rows of 4 channels" in capsys.readouterr().out


def test_words_come_from_the_language_models_own_tokenizer(tmp_path: Path) -> None:
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(WordLevel({word: index for index, word in enumerate(WORDS[:18])}, unk_token="word0"))
    PreTrainedTokenizerFast(tokenizer_object=words).save_pretrained(tmp_path)
    save_file({"model.embed_tokens.weight": WEIGHT}, tmp_path / "model.safetensors")
    output = tmp_path / "book"
    assert main(["codebook", "--from", str(tmp_path), "--size", "20", "-o", str(output)]) == 0
    assert read_codebook(output).words == [*WORDS[:18], "", ""]  # rows beyond the vocabulary have no word


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "--from is needed"),
        (["--from", "nowhere.safetensors"], "no safetensors file at nowhere.safetensors"),
        (["--from", "{model}", "--size", "21"], "size=21 must lie between 1 and the 20 rows"),
        (["--from", "{model}", "--size", "2", "--words", "{list}"], "has 2 words, the embedding has 20 rows"),
    ],
)
def test_bad_input(model: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str) -> None:
    listed = model.parent / "list.txt"
    listed.write_text("one\ntwo\n")
    filled = [argument.format(model=model, list=listed) for argument in arguments]
    assert main(["codebook", *filled, "-o", str(model.parent / "book")]) == 2
    assert words in capsys.readouterr().err
    assert not (model.parent / "book").exists()
