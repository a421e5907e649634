"""De-tokenizer recipes: each is read by the command line, and those that fit a CPU train two steps and export."""

import pytest
import torch

import unitok
from tests.test_recipes import RECIPES, Parsed, photos  # noqa: F401
from unitok.hub import save_tokenizer
from unitok.models.unitok import unitok_tiny
from unitok.training.cli import main

NAMES = ["ar_tiny", "diffusion_tiny", "ar_detokenizer_256", "ar_detokenizer_512", "diffusion_detokenizer_512"]


@pytest.mark.parametrize("name", NAMES)
def test_reads(name):
    config = Parsed(RECIPES / "base/cpu.yaml", RECIPES / f"ta_tok/{name}.yaml").config
    assert config.model.class_path.endswith("DetokenizerTask")
    assert config.trainer.max_steps > 0


@pytest.mark.parametrize("name", NAMES)
def test_head_says_what_is_to_be_known(name):
    head = [line for line in (RECIPES / f"ta_tok/{name}.yaml").read_text().splitlines() if line.startswith("#")]
    for word in ("Command:", "Hardware:", "Hours:", "Expected:"):
        assert any(word in line for line in head)


@pytest.mark.filterwarnings("ignore")  # Lightning's advice on loggers, workers and small runs
@pytest.mark.parametrize("name", ["ar_tiny", "diffusion_tiny"])
def test_trains_two_steps_and_exports(name, photos, tmp_path):  # noqa: F811
    save_tokenizer(unitok_tiny(codebook_size=64), tmp_path / "condition")
    save_tokenizer(unitok_tiny(num_codebooks=1, codebook_size=64, latent_dim=16), tmp_path / "pixels")
    decoder = {"depth": 1, "dim": 16, "num_heads": 2}
    init = "--model.init_args"
    words = ["fit", "--config", str(RECIPES / "base/cpu.yaml"), "--config", str(RECIPES / f"ta_tok/{name}.yaml")]
    words += [f"{init}.tokenizer.init_args.source", str(tmp_path / "condition")]
    if name == "ar_tiny":
        words += [f"{init}.decoder.init_args.pixels.init_args.source", str(tmp_path / "pixels")]
        decoder |= {"codebook_size": 64, "num_codes": 4}
        place = f"{init}.decoder.init_args.transformer.init_args"
    else:
        place, decoder = f"{init}.decoder.init_args", decoder | {"image_size": 32, "steps": 2}
    words += [part for key, value in decoder.items() for part in (f"{place}.{key}", str(value))]
    data = {"train": photos, "validation": photos, "size": 32, "batch_size": 4, "workers": 0}
    words += [part for key, value in data.items() for part in (f"--data.init_args.{key}", str(value))]
    run = {"max_steps": 2, "default_root_dir": tmp_path / "run", "logger": "false", "val_check_interval": 2}
    run |= {"enable_progress_bar": "false", "enable_model_summary": "false"}
    words += [part for key, value in run.items() for part in (f"--trainer.{key}", str(value))]
    assert main(words) == 0
    trained = unitok.load_tokenizer(tmp_path / "run/tokenizer")
    images = trained.decode(trained.encode(torch.rand(1, 3, 32, 32)), torch.Generator().manual_seed(0))
    assert images.shape == (1, 3, 32, 32)
