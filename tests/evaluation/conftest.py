import numpy as np
import pytest
import torch
from PIL import Image

from unitok.evaluation.ranks import Ranks, Run
from unitok.models.unitok import tiny


@pytest.fixture
def tokenizer():
    torch.manual_seed(0)
    return tiny().eval()


@pytest.fixture
def run():
    return Run(Ranks(0, 1, torch.device("cpu")), batch_size=3)


@pytest.fixture
def folder(tmp_path):
    """Seven smooth photos of two classes, none square."""
    generator = np.random.default_rng(0)
    root = tmp_path / "photos"
    for index in range(7):
        path = root / ("red_fox" if index % 2 else "cat") / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        small = Image.fromarray(generator.integers(0, 255, (5, 6, 3), dtype=np.uint8))
        small.resize((80, 70), Image.Resampling.BICUBIC).save(path)
    return root
