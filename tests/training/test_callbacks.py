from types import SimpleNamespace

import torch
from skimage.data import astronaut

from unitok import load_tokenizer
from unitok.decoders import FlowDecoder
from unitok.models.unitok import tiny, unitok_tiny
from unitok.training.callbacks import ExportTokenizer, ReconstructionGrid

PHOTO = torch.from_numpy(astronaut()[:64, 160:224].copy()).permute(2, 0, 1)[None]


def trainer(**options):
    return SimpleNamespace(**{"is_global_zero": True, "fast_dev_run": False, "global_step": 4, **options})


def test_photos_stand_above_their_reconstructions():
    shown = []
    board = SimpleNamespace(experiment=SimpleNamespace(add_image=lambda name, grid, step: shown.append((grid, step))))
    task = SimpleNamespace(evaluated=tiny().eval(), device=torch.device("cpu"))
    batch = SimpleNamespace(images=PHOTO)
    ReconstructionGrid(every_n_steps=3).on_train_batch_end(trainer(loggers=[board]), task, None, batch, 0)
    assert not shown
    ReconstructionGrid(every_n_steps=4).on_train_batch_end(trainer(loggers=[board]), task, None, batch, 0)
    (grid, step) = shown[0]
    assert step == 4
    torch.testing.assert_close(grid[:, 2:66, 2:66], PHOTO[0] / 255)
    codes = task.evaluated.encode(PHOTO / 255)
    torch.testing.assert_close(grid[:, 68:132, 2:66], task.evaluated.decode(codes)[0])


def test_a_detokenizer_of_another_size_is_shown_at_the_size_of_the_photos():
    shown = []
    board = SimpleNamespace(experiment=SimpleNamespace(add_image=lambda name, grid, step: shown.append(grid)))
    tokenizer = tiny().eval()
    tokenizer.decoder = FlowDecoder(32, image_size=16, patch_size=8, dim=16, depth=1, num_heads=2, steps=1)
    task = SimpleNamespace(evaluated=tokenizer, device=torch.device("cpu"))
    batch = SimpleNamespace(images=PHOTO)
    ReconstructionGrid(every_n_steps=4).on_train_batch_end(trainer(loggers=[board]), task, None, batch, 0)
    torch.testing.assert_close(shown[0][:, 2:66, 2:66], PHOTO[0] / 255)
    assert shown[0].shape[1:] == (2 + 2 * 66, 2 + 66)


def test_the_export_loads(tmp_path):
    tokenizer = unitok_tiny(num_codebooks=4, codebook_size=16)
    task = SimpleNamespace(evaluated=tokenizer)
    ExportTokenizer().on_fit_end(trainer(default_root_dir=tmp_path), task)
    loaded = load_tokenizer(tmp_path / "tokenizer")
    codes = loaded.encode(PHOTO / 255)
    assert torch.equal(codes, tokenizer.eval().encode(PHOTO / 255))


def test_a_tokenizer_put_together_by_hand_is_not_exported(tmp_path, caplog):
    ExportTokenizer().on_fit_end(trainer(default_root_dir=tmp_path), SimpleNamespace(evaluated=tiny()))
    assert "put together by hand" in caplog.text
    assert not list(tmp_path.iterdir())
