import pytest
import torch

from unitok import load_tokenizer
from unitok.models.trained import read_trained
from unitok.models.unitok import unitok_tiny


def checkpoint(tokenizer, *prefixes):
    state = {f"{p}.{n}": t for p, shift in prefixes for n, t in {n: t + shift for n, t in tokenizer.state_dict().items()}.items()}  # fmt: skip  # noqa: E501
    return {"state_dict": state, "task": {"kind": "TokenizerTask", "tokenizer": tokenizer.config}}


def test_the_average_is_what_loads(tmp_path):
    tokenizer = unitok_tiny(num_codebooks=4, codebook_size=16)
    torch.save(checkpoint(tokenizer, ("tokenizer", 1.0), ("average", 0.0)), tmp_path / "last.ckpt")
    loaded = load_tokenizer(tmp_path / "last.ckpt")
    assert loaded.config == tokenizer.config
    for name, tensor in tokenizer.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor)


def test_without_an_average_the_tokenizer(tmp_path):
    tokenizer = unitok_tiny(num_codebooks=4, codebook_size=16)
    assert read_trained(checkpoint(tokenizer, ("tokenizer", 0.0))).state.keys() == tokenizer.state_dict().keys()


def test_other_files_and_tokenizers_by_hand():
    assert read_trained({"state_dict": {}}) is None
    with pytest.raises(ValueError, match="put together by hand"):
        read_trained({"state_dict": {}, "task": {"tokenizer": None}})
