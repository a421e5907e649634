"""Every recipe is read by the command line it is for; those that fit a CPU train two steps."""

from pathlib import Path

import pytest
from PIL import Image

from unitok.hub import save_tokenizer
from unitok.models.unitok import unitok_tiny
from unitok.training.cli import TrainingCLI, main

RECIPES = Path(__file__).parents[1] / "recipes"
BASES = sorted(RECIPES.glob("base/*.yaml"))
UNITOK = sorted(RECIPES.glob("unitok/*.yaml"))


class Parsed(TrainingCLI):
    """Reads and checks, builds nothing."""

    def __init__(self, *recipes):
        super().__init__([word for recipe in recipes for word in ("--config", str(recipe))], run=False)

    def instantiate_classes(self):
        pass

    def _add_instantiators(self):
        pass


def with_tiny(recipe):
    return (RECIPES / "unitok/tiny.yaml", recipe) if recipe.name.startswith(("ablation", "tiny_")) else (recipe,)


@pytest.mark.parametrize("recipe", UNITOK, ids=lambda path: path.stem)
def test_reads(recipe):
    config = Parsed(BASES[0], *with_tiny(recipe)).config
    assert config.model.class_path.startswith("unitok.")
    assert config.trainer.max_steps > 0


@pytest.mark.parametrize("base", BASES, ids=lambda path: path.stem)
def test_a_base_stands_before_a_recipe(base):
    config = Parsed(base, RECIPES / "unitok/tiny.yaml").config
    assert config.trainer.accelerator == ("cpu" if base.stem == "cpu" else "gpu")


@pytest.mark.parametrize("books", [1, 2, 4, 8])
def test_ablations_hold_the_total_constant(books):
    config = Parsed(*with_tiny(RECIPES / f"unitok/ablation_codebooks_{books}.yaml")).config
    built = config.model.init_args.tokenizer.init_args
    assert built.num_codebooks == books
    assert built.num_codebooks * built.codebook_size == 16384
    tiny = Parsed(RECIPES / "unitok/tiny.yaml").config
    assert config.model.init_args.weights == tiny.model.init_args.weights  # not forgotten by the difference


@pytest.mark.parametrize("recipe", UNITOK, ids=lambda path: path.stem)
def test_head_says_what_is_to_be_known(recipe):
    head = [line for line in recipe.read_text().splitlines() if line.startswith("#")]
    for word in ("Command:", "Hardware:", "Hours:", "Expected:"):
        assert any(word in line for line in head)
    assert any("measured" in line or "published" in line or "see " in line for line in head)


@pytest.fixture
def photos(tmp_path):
    for index in range(8):
        folder = tmp_path / "photos" / f"class_{index % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.effect_noise((48, 40), 20 + index).convert("RGB").save(folder / f"{index}.png")
    return tmp_path / "photos"


SMOKE = ["tiny", "reconstruction_only", "decoder_finetune", "ablation_codebooks_1"]


@pytest.mark.filterwarnings("ignore")  # Lightning's advice on loggers, workers and small runs
@pytest.mark.parametrize("name", SMOKE)
def test_trains_two_steps(name, photos, tmp_path):
    words = ["fit", "--config", str(RECIPES / "base/cpu.yaml")]
    for recipe in with_tiny(RECIPES / f"unitok/{name}.yaml"):
        words += ["--config", str(recipe)]
    data = {"train": photos, "size": 32, "batch_size": 4, "workers": 0}
    if name in ("tiny", "ablation_codebooks_1"):
        data |= {"validation": photos, "class_names": "null"}
        for weight in ("alignment", "spatial_alignment"):  # the teacher's weights are not in the repository
            words += [f"--model.init_args.weights.{weight}", "0"]
    if name == "decoder_finetune":
        save_tokenizer(unitok_tiny(), tmp_path / "start")
        words += ["--model.init_args.tokenizer.init_args.source", str(tmp_path / "start")]
    words += [part for key, value in data.items() for part in (f"--data.init_args.{key}", str(value))]
    run = {"max_steps": 2, "default_root_dir": tmp_path / "run", "logger": "false", "val_check_interval": 2}
    run |= {"enable_progress_bar": "false", "enable_model_summary": "false"}
    words += [part for key, value in run.items() for part in (f"--trainer.{key}", str(value))]
    assert main(words) == 0
    assert (tmp_path / "run/checkpoints/last.ckpt").is_file()
    assert (tmp_path / "run/tokenizer/model.safetensors").is_file()
