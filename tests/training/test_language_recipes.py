from pathlib import Path

import pytest

from tests.bulk.inputs import write_tars
from unitok.bulk import tokenize
from unitok.hub import load_tokenizer, save_tokenizer
from unitok.mllm import VisualAssistant
from unitok.models.unitok import unitok_tiny
from unitok.training.cli import TrainingCLI, main

RECIPES = Path(__file__).parents[2] / "recipes"
MLLM = sorted(RECIPES.glob("mllm/*.yaml"))


class Parsed(TrainingCLI):
    """Reads and checks, builds nothing."""

    def __init__(self, *recipes):
        super().__init__([word for recipe in recipes for word in ("--config", str(recipe))], run=False)

    def instantiate_classes(self):
        pass

    def _add_instantiators(self):
        pass


@pytest.mark.parametrize("recipe", MLLM, ids=lambda path: path.stem)
def test_reads(recipe):
    config = Parsed(RECIPES / "base/8gpu.yaml", recipe).config
    assert config.model.class_path.endswith("LanguageTask")
    assert config.best.mode == "min"
    assert config.trainer.max_steps > 0


@pytest.mark.parametrize("recipe", MLLM, ids=lambda path: path.stem)
def test_head_says_what_is_to_be_known(recipe):
    head = [line for line in recipe.read_text().splitlines() if line.startswith("#")]
    for word in ("Command:", "Hardware:", "Hours:", "Expected:"):
        assert any(word in line for line in head)


@pytest.mark.filterwarnings("ignore")  # Lightning's advice on loggers, workers and small runs
def test_tiny_trains_two_steps(tmp_path):
    save_tokenizer(unitok_tiny(), tmp_path / "visual")
    tars = write_tars(tmp_path / "in", 1, 4, broken=False)
    tokenize(tars, str(tmp_path / "codes"), load_tokenizer(tmp_path / "visual"), size=32, device="cpu")
    (tmp_path / "captions.jsonl").write_text('{"captions": ["picture 1", "picture 2"]}\n')
    words = ["fit", "--config", str(RECIPES / "base/cpu.yaml"), "--config", str(RECIPES / "mllm/tiny.yaml")]
    build = {
        "captions": tmp_path / "captions.jsonl",
        "tokenizer": tmp_path / "visual",
        "size": 32,
        "dim": 32,
        "depth": 1,
    }
    build |= {"head_dim": 32, "num_words": 300}
    words += [part for k, v in build.items() for part in (f"--model.init_args.assistant.init_args.{k}", str(v))]
    runs = f"[{tmp_path / 'codes'}]"
    data = {"train": runs, "validation": runs, "class_names": "null", "batch_size": 2}
    words += [part for k, v in data.items() for part in (f"--data.init_args.{k}", str(v))]
    run = {"max_steps": 2, "default_root_dir": tmp_path / "run", "logger": "false", "val_check_interval": 2}
    run |= {"enable_progress_bar": "false", "enable_model_summary": "false"}
    words += [part for key, value in run.items() for part in (f"--trainer.{key}", str(value))]
    assert main(words) == 0
    assert (tmp_path / "run/checkpoints/last.ckpt").is_file()
    assistant = VisualAssistant.load(tmp_path / "run/language_model")
    assert assistant.generate_images("picture 1").shape == (1, 3, 32, 32)
