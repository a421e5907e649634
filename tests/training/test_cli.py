from pathlib import Path

import pytest

from unitok.training.cli import main

RECIPE = str(Path(__file__).parents[2] / "recipes/unitok/reconstruction_only.yaml")

pytestmark = pytest.mark.filterwarnings("ignore")


def test_a_misspelt_key_is_named(tmp_path, capsys):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(Path(RECIPE).read_text().replace("contrastive: 0.0", "contrastiv: 0.0"))
    with pytest.raises(SystemExit) as stop:
        main(["fit", "--config", str(recipe)])
    assert stop.value.code == 2
    assert "contrastiv" in capsys.readouterr().err


def test_an_empty_data_folder(tmp_path, capsys):
    words = ["fit", "--config", RECIPE, "--data.init_args.train", str(tmp_path), "--trainer.accelerator", "cpu"]
    assert main([*words, "--trainer.default_root_dir", str(tmp_path / "run"), "--trainer.logger", "false"]) == 2
    error = capsys.readouterr().err
    assert str(tmp_path) in error


def test_a_checkpoint_that_is_not_there_is_no_fresh_start(tmp_path, capsys):
    for name in ("last", str(tmp_path / "x.ckpt")):
        words = ["fit", "--config", RECIPE, "--trainer.default_root_dir", str(tmp_path), "--ckpt_path", name]
        assert main(words) == 2
        assert "no checkpoint at" in capsys.readouterr().err
