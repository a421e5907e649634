"""Every recipe is read by the command line it is for and says what it is; those that fit a CPU train two steps."""

from pathlib import Path

import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file

import unitok
from tests.bulk.inputs import write_tars
from unitok.bulk import tokenize
from unitok.hub import save_tokenizer
from unitok.mllm import VisualAssistant
from unitok.models.unitok import unitok_tiny
from unitok.quantizers.words import Codebook, write_codebook
from unitok.training.cli import TrainingCLI, main

RECIPES = Path(__file__).parents[1] / "recipes"
BASES = sorted(RECIPES.glob("base/*.yaml"))
ALL = sorted(set(RECIPES.glob("*/*.yaml")) - set(BASES))


class Parsed(TrainingCLI):
    """Reads and checks, builds nothing."""

    def __init__(self, *recipes):
        super().__init__([word for recipe in recipes for word in ("--config", str(recipe))], run=False)

    def instantiate_classes(self):
        pass

    def _add_instantiators(self):
        pass


def with_tiny(recipe):
    return (RECIPES / "unitok/tiny.yaml", recipe) if recipe.name.startswith(("ablation", "tiny_pixels")) else (recipe,)


@pytest.mark.parametrize("recipe", ALL, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_reads(recipe):
    config = Parsed(BASES[0], *with_tiny(recipe)).config
    assert config.model.class_path.startswith("unitok.training.")
    assert config.trainer.max_steps > 0


@pytest.mark.parametrize("recipe", ALL, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_head_says_what_is_to_be_known(recipe):
    head = [line for line in recipe.read_text().splitlines() if line.startswith("#")]
    for word in ("Command:", "Hardware:", "Hours:", "Expected:"):
        assert any(word in line for line in head)
    assert any("measured" in line or "published" in line or "see " in line for line in head)


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


@pytest.fixture
def photos(tmp_path):
    for index in range(8):
        folder = tmp_path / "photos" / f"class_{index % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.effect_noise((48, 40), 20 + index).convert("RGB").save(folder / f"{index}.png")
    return tmp_path / "photos"


def fit(run, recipe, *, trainer, **options):
    """Two steps of a recipe on the CPU, written to `run`; options are dotted names below model and data init_args."""
    trainer |= {"max_steps": 2, "default_root_dir": run, "logger": "false", "val_check_interval": 2}
    trainer |= {"enable_progress_bar": "false", "enable_model_summary": "false"}
    words = ["fit", "--config", str(RECIPES / "base/cpu.yaml")]
    for part in with_tiny(RECIPES / f"{recipe}.yaml"):
        words += ["--config", str(part)]
    for section in ("model", "data"):
        for name, value in options.get(section, {}).items():
            words += [f"--{section}.init_args.{name}", str(value)]
    for name, value in trainer.items():
        words += [f"--trainer.{name}", str(value)]
    assert main(words) == 0


def noise(photos, size):
    return {"train": photos, "validation": photos, "size": size, "batch_size": 4, "workers": 0}


quiet = pytest.mark.filterwarnings("ignore")  # Lightning's advice on loggers, workers and small runs


@quiet
@pytest.mark.parametrize("name", ["tiny", "reconstruction_only", "decoder_finetune", "ablation_codebooks_1"])
def test_tokenizers_train_two_steps(name, photos, tmp_path):
    model, data = {}, noise(photos, 32)
    if name in ("tiny", "ablation_codebooks_1"):
        data["class_names"] = "null"
        model = {"weights.alignment": 0, "weights.spatial_alignment": 0}  # the teacher is not in the repository
    if name == "decoder_finetune":
        model["tokenizer.init_args.source"] = save_tokenizer(unitok_tiny(), tmp_path / "start")
    fit(tmp_path / "run", f"unitok/{name}", model=model, data=data, trainer={})
    assert (tmp_path / "run/checkpoints/last.ckpt").is_file()
    assert (tmp_path / "run/tokenizer/model.safetensors").is_file()


@quiet
def test_ta_tok_trains_two_steps(photos, tmp_path):
    write_codebook(Codebook(torch.randn(64, 12), torch.arange(64), []), tmp_path / "words.safetensors", "made up")
    save_file(timm.create_model("test_efficientnet").state_dict(), tmp_path / "teacher.safetensors")
    sizes = {"codebook_size": 64, "embedding_dim": 12, "encoder_depth": 1, "decoder_depth": 1, "image_size": 48}
    teacher = {"name": "test_efficientnet", "weights": tmp_path / "teacher.safetensors", "options": "{}"}
    model = {f"tokenizer.init_args.{name}": value for name, value in sizes.items()}
    model |= {f"teacher.init_args.{name}": value for name, value in teacher.items()}
    model["codebook"] = tmp_path / "words.safetensors"
    fit(tmp_path / "run", "ta_tok/tiny", model=model, data=noise(photos, 64), trainer={"precision": "32-true"})
    assert (tmp_path / "run/checkpoints/best.ckpt").is_file()
    trained = unitok.load_tokenizer(tmp_path / "run/tokenizer")
    codes = trained.encode(torch.rand(1, 3, 48, 48), scale=3)
    assert codes.shape == (1, 1, 1, 1)
    assert trained.features(codes).shape == (1, 1, 1, 128)


@quiet
@pytest.mark.parametrize("name", ["ar_tiny", "diffusion_tiny"])
def test_detokenizers_train_two_steps(name, photos, tmp_path):
    condition = save_tokenizer(unitok_tiny(codebook_size=64), tmp_path / "condition")
    pixels = save_tokenizer(unitok_tiny(num_codebooks=1, codebook_size=64, latent_dim=16), tmp_path / "pixels")
    sizes, model = {"depth": 1, "dim": 16, "num_heads": 2}, {"tokenizer.init_args.source": condition}
    if name == "ar_tiny":
        model["decoder.init_args.pixels.init_args.source"] = pixels
        sizes |= {"codebook_size": 64, "num_codes": 4, "max_condition": 4}
        model |= {f"decoder.init_args.transformer.init_args.{key}": value for key, value in sizes.items()}
    else:
        model |= {f"decoder.init_args.{key}": value for key, value in (sizes | {"image_size": 32, "steps": 2}).items()}
    fit(tmp_path / "run", f"ta_tok/{name}", model=model, data=noise(photos, 32), trainer={"precision": "32-true"})
    trained = unitok.load_tokenizer(tmp_path / "run/tokenizer")
    images = trained.decode(trained.encode(torch.rand(1, 3, 32, 32)), torch.Generator().manual_seed(0))
    assert images.shape == (1, 3, 32, 32)


@quiet
def test_a_language_model_trains_two_steps(tmp_path):
    visual = save_tokenizer(unitok_tiny(), tmp_path / "visual")
    tars = write_tars(tmp_path / "in", 1, 4, broken=False)
    tokenize(tars, str(tmp_path / "codes"), unitok.load_tokenizer(visual), size=32, device="cpu")
    (tmp_path / "captions.jsonl").write_text('{"captions": ["picture 1", "picture 2"]}\n')
    build = {"captions": tmp_path / "captions.jsonl", "tokenizer": visual, "size": 32, "dim": 32, "depth": 1}
    build |= {"head_dim": 32, "num_words": 300}
    model = {f"assistant.init_args.{name}": value for name, value in build.items()}
    runs = f"[{tmp_path / 'codes'}]"
    data = {"train": runs, "validation": runs, "class_names": "null", "batch_size": 2}
    fit(tmp_path / "run", "mllm/tiny", model=model, data=data, trainer={"precision": "32-true"})
    assert (tmp_path / "run/checkpoints/last.ckpt").is_file()
    assistant = VisualAssistant.load(tmp_path / "run/language_model")
    assert assistant.generate_images("picture 1").shape == (1, 3, 32, 32)
