"""Recipes of text-aligned tokenizers: both are read by the command line, the small one trains two steps and exports."""

import pytest
import timm
import torch
from safetensors.torch import save_file

import unitok
from tests.test_recipes import RECIPES, Parsed, photos  # noqa: F401
from unitok.quantizers.words import Codebook, write_codebook
from unitok.training.cli import main

NAMES = ["tiny", "ta_tok_384"]


@pytest.mark.parametrize("name", NAMES)
def test_reads(name):
    config = Parsed(RECIPES / "base/cpu.yaml", RECIPES / f"ta_tok/{name}.yaml").config
    assert config.model.class_path.endswith("AlignmentTask")
    assert config.model.init_args.scales == [1, 2, 3]
    assert config.model.init_args.codebook.endswith(".safetensors")
    assert config.trainer.max_steps > 0


@pytest.mark.parametrize("name", NAMES)
def test_head_says_what_is_to_be_known(name):
    head = [line for line in (RECIPES / f"ta_tok/{name}.yaml").read_text().splitlines() if line.startswith("#")]
    for word in ("Command:", "Hardware:", "Hours:", "Expected:"):
        assert any(word in line for line in head)


@pytest.mark.filterwarnings("ignore")  # Lightning's advice on loggers, workers and small runs
def test_trains_two_steps_and_exports(photos, tmp_path):  # noqa: F811
    write_codebook(Codebook(torch.randn(64, 12), torch.arange(64), []), tmp_path / "words.safetensors", "made up")
    save_file(timm.create_model("test_efficientnet").state_dict(), tmp_path / "teacher.safetensors")
    init = "--model.init_args"
    words = ["fit", "--config", str(RECIPES / "base/cpu.yaml"), "--config", str(RECIPES / "ta_tok/tiny.yaml")]
    sizes = {"codebook_size": 64, "embedding_dim": 12, "encoder_depth": 1, "decoder_depth": 1, "image_size": 48}
    words += [part for key, value in sizes.items() for part in (f"{init}.tokenizer.init_args.{key}", str(value))]
    teacher = {"name": "test_efficientnet", "weights": tmp_path / "teacher.safetensors", "options": "{}"}
    words += [part for key, value in teacher.items() for part in (f"{init}.teacher.init_args.{key}", str(value))]
    words += [f"{init}.codebook", str(tmp_path / "words.safetensors")]
    data = {"train": photos, "validation": photos, "size": 64, "batch_size": 4, "workers": 0}
    words += [part for key, value in data.items() for part in (f"--data.init_args.{key}", str(value))]
    run = {"max_steps": 2, "default_root_dir": tmp_path / "run", "logger": "false", "val_check_interval": 2}
    run |= {"enable_progress_bar": "false", "enable_model_summary": "false", "precision": "32-true"}
    words += [part for key, value in run.items() for part in (f"--trainer.{key}", str(value))]
    assert main(words) == 0
    assert (tmp_path / "run/checkpoints/best.ckpt").is_file()
    trained = unitok.load_tokenizer(tmp_path / "run/tokenizer")
    codes = trained.encode(torch.rand(1, 3, 48, 48), scale=3)
    assert codes.shape == (1, 1, 1, 1)
    assert trained.features(codes).shape == (1, 1, 1, 128)
