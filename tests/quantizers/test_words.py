from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional as F

from unitok.quantizers.words import Codebook, read_codebook, read_embedding, select_embeddings, write_codebook


def test_the_rows_farthest_from_all_others_are_chosen() -> None:
    weight = torch.randn(60, 7, generator=torch.Generator().manual_seed(0)) + 0.5
    unit = F.normalize(weight.double(), dim=-1)
    distance = [sum(float(1 - a @ b) for j, b in enumerate(unit) if j != i) / 59 for i, a in enumerate(unit)]
    expected = sorted(sorted(range(60), key=lambda i: -distance[i])[:13])
    assert select_embeddings(weight, 13, rows=11).tolist() == expected


def test_ties_go_to_the_smaller_id_and_zero_rows_are_never_taken() -> None:
    weight = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [2.0, 0.0], [0.0, 2.0]])
    assert select_embeddings(weight, 2).tolist() == [1, 2]
    assert select_embeddings(weight, 4).tolist() == [1, 2, 3, 4]
    with pytest.raises(ValueError, match=r"size=5 must lie between 1 and the 4 rows"):
        select_embeddings(weight, 5)


def test_what_is_no_embedding_is_refused() -> None:
    with pytest.raises(ValueError, match="float matrix"):
        select_embeddings(torch.ones(3), 1)
    with pytest.raises(ValueError, match="not finite"):
        select_embeddings(torch.tensor([[1.0, float("nan")], [1.0, 0.0]]), 1)


def test_the_embedding_is_found_among_a_models_weights(tmp_path: Path) -> None:
    weight = torch.randn(5, 3).bfloat16()
    save_file({"model.embed_tokens.weight": weight, "lm_head.weight": torch.zeros(5, 3)}, tmp_path / "a.safetensors")
    save_file({"model.norm.weight": torch.zeros(3)}, tmp_path / "b.safetensors")
    assert torch.equal(read_embedding(tmp_path), weight)
    assert torch.equal(read_embedding(tmp_path / "a.safetensors", "lm_head.weight"), torch.zeros(5, 3))
    with pytest.raises(ValueError, match=r"0 matrices that could be nothing; name one of its 2: lm_head.weight, "):
        read_embedding(tmp_path, "nothing")


def test_missing_and_broken_files(tmp_path: Path) -> None:
    (tmp_path / "broken.safetensors").write_bytes(b"not safetensors")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="no safetensors file"):
        read_embedding(tmp_path / "empty")
    with pytest.raises(ValueError, match="not a whole safetensors file"):
        read_embedding(tmp_path / "broken.safetensors")
    with pytest.raises(FileNotFoundError, match="no codebook file"):
        read_codebook(tmp_path / "nothing.safetensors")
    with pytest.raises(ValueError, match="is no codebook file"):
        read_codebook(tmp_path / "broken.safetensors")


def test_a_codebook_is_read_as_it_was_written(tmp_path: Path) -> None:
    book = Codebook(torch.randn(3, 4), torch.tensor([2, 5, 7]), ["dog", "über", '"'])
    write_codebook(book, tmp_path / "book.safetensors", source="somewhere")
    again = read_codebook(tmp_path / "book.safetensors")
    assert torch.equal(again.embedding, book.embedding)
    assert torch.equal(again.ids, book.ids)
    assert again.words == book.words
