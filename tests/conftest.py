from pathlib import Path

import pytest
import torch

from unitok.hub import save_tokenizer
from unitok.models import TOKENIZERS
from unitok.models.unitok import tiny
from unitok.tokenizer import Tokenizer


def named_tiny() -> Tokenizer:
    tokenizer = tiny()
    tokenizer.config = {"tokenizer": "tiny", "arguments": {}}
    return tokenizer


@pytest.fixture(scope="session")
def _tiny_on_disk(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(TOKENIZERS, "tiny", named_tiny)
        return save_tokenizer(named_tiny(), tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def tiny_folder(monkeypatch, _tiny_on_disk) -> Path:
    """A folder that holds a very small tokenizer with random weights; do not write into it."""
    monkeypatch.setitem(TOKENIZERS, "tiny", named_tiny)
    return _tiny_on_disk
