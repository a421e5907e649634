import json
from itertools import chain
from pathlib import Path

import lightning
import open_clip
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from unitok.training.data import ImageTextData

pytestmark = [
    pytest.mark.filterwarnings("ignore:This DataLoader will create"),
    pytest.mark.filterwarnings("ignore:`isinstance:FutureWarning"),  # Lightning 2.6 with torch 2.13
    pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`"),
    pytest.mark.filterwarnings("ignore:You defined a `validation_step`"),
]


@pytest.fixture
def make(class_folder, lines):
    """Thirty samples in batches of four: seven batches an epoch."""

    def data(**changes):
        options = {"train": [str(class_folder), str(lines)], "size": 8, "batch_size": 4, "workers": 0, "flip": True}
        return ImageTextData(**options | changes)

    return data


def ready(data):
    data.setup("fit")
    return data


class Diary(lightning.LightningModule):
    """Writes down what it is shown."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen, self.validated = [], []

    def training_step(self, batch, batch_idx):
        self.seen.append((batch.images.clone(), batch.text_ids.clone()))
        return self.weight.sum()

    def validation_step(self, batch, batch_idx):
        self.validated.append(batch.images[:, 0, 0, 0].tolist())

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(folder, data, every=None, resume=None, **options):
    module = Diary()
    callbacks = [ModelCheckpoint(folder / "run", "{step}", save_top_k=-1, every_n_train_steps=every)] if every else []
    trainer = lightning.Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=bool(callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=callbacks,
        **options,
    )
    trainer.fit(module, data, ckpt_path=resume, weights_only=True if resume else None)
    return module


def test_batches_are_small_integers_with_text(make):
    batch = next(iter(ready(make()).train_dataloader()))
    assert batch.images.shape == (4, 3, 8, 8)
    assert batch.images.dtype == torch.uint8
    assert batch.text_ids.shape == (4, 77)
    assert batch.text_ids.dtype == torch.int64


def test_text_is_that_of_open_clip(make, class_folder):
    table = class_folder.parent / "classes.csv"
    table.write_text("folder,class_name\nchurch,church\ngas_pump,petrol pump\ntench,tench\n")
    data = make(train=str(class_folder), class_names=str(table), templates=["art of the {}"])
    names = {0: "church", 1: "petrol pump", 2: "tench"}
    for batch in ready(data).train_dataloader():
        texts = [f"art of the {names[int(image[0, 0, 0]) // 8]}" for image in batch.images]
        assert torch.equal(batch.text_ids, open_clip.tokenize(texts))


def test_context_length_and_eighty_templates(make, class_folder):
    data = make(train=str(class_folder), context_length=16, templates="openai", batch_size=24)
    batch = next(iter(ready(data).train_dataloader()))
    assert batch.text_ids.shape == (24, 16)
    assert len({tuple(ids.tolist()) for ids in batch.text_ids}) > 12
    assert len(data.templates) == 80
    assert data.templates[0] == "a bad photo of a {}."


def test_without_text_no_caption_is_needed(make, class_folder):
    (class_folder / "church" / "00.png").rename(class_folder / "00.png")
    with pytest.raises(ValueError, match=r"00.png has no caption: .* text=false"):
        ready(make())
    assert next(iter(ready(make(text=False)).train_dataloader())).text_ids is None


def test_validation_is_whole_and_in_order(make, class_folder, numbers):
    loader = ready(make(validation=str(class_folder), batch_size=10)).val_dataloader()
    assert list(chain(*numbers(loader))) == list(range(24))
    assert len(loader) == 3


def test_weights_change_the_mix(make, numbers):
    loader = ready(make(weights=[0.5, 2], batch_size=24)).train_dataloader()
    (seen,) = numbers(loader)
    assert sum(number >= 30 for number in seen) == 12


def test_shards_train_and_validate(make, shards, numbers):
    data = ready(make(train=shards, validation=shards, batch_size=8, shuffle_buffer=4))
    assert sorted(chain(*numbers(data.train_dataloader()))) == list(range(32))
    assert list(chain(*numbers(data.val_dataloader()))) == list(range(32))
    assert len(ready(make(train=shards, samples_per_epoch=20)).train_dataloader()) == 5


@pytest.mark.parametrize("kind", ["pairs", "shards"])
@pytest.mark.parametrize(("every", "limit"), [(3, 1.0), (7, 1.0), (8, 1.0), (10, 1.0), (5, 5), (7, 5)])
def test_a_resumed_run_sees_what_it_would_have_seen(tmp_path, make, shards, kind, every, limit):
    options = {"train": shards, "samples_per_epoch": 30, "shuffle_buffer": 5} if kind == "shards" else {}
    options |= {"validation": shards} if kind == "shards" else {}
    limits = {"max_steps": 17, "limit_train_batches": limit}
    whole = fit(tmp_path, make(**options), every, **limits)
    resumed = fit(tmp_path, make(**options), resume=tmp_path / "run" / f"step={every}.ckpt", **limits)
    assert len(whole.seen) == 17
    assert len(resumed.seen) == 17 - every
    for (images, texts), (others, other_texts) in zip(whole.seen[every:], resumed.seen, strict=True):
        assert torch.equal(images, others)
        assert torch.equal(texts, other_texts)


def test_workers_of_a_resumed_run_may_be_others_with_pairs(tmp_path, make):
    whole = fit(tmp_path, make(workers=2), 3, max_steps=9)
    resumed = fit(tmp_path, make(), resume=tmp_path / "run" / "step=3.ckpt", max_steps=9)
    assert all(torch.equal(one[0], other[0]) for one, other in zip(whole.seen[3:], resumed.seen, strict=True))


def test_validation_between_steps_starts_anew_each_time(tmp_path, make, class_folder):
    data = make(validation=str(class_folder), batch_size=5)
    module = fit(tmp_path, data, max_epochs=2, num_sanity_val_steps=2, val_check_interval=3)
    assert [numbers[0] for numbers in module.validated[:2]] == [0, 5]
    whole = [list(range(first, min(first + 5, 24))) for first in range(0, 24, 5)]
    assert module.validated[2:] == whole * 4


def test_a_run_on_other_data_does_not_resume_silently(tmp_path, make, lines):
    fit(tmp_path, make(), 3, max_steps=3)
    with pytest.raises(ValueError, match="samples_per_epoch=30 in the checkpoint, 6 here"):
        fit(tmp_path, make(train=str(lines)), resume=tmp_path / "run" / "step=3.ckpt", max_steps=9)


@pytest.mark.filterwarnings("ignore:corrupt sample")
@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_with_more_than_a_hundredth_corrupt_says_so(tmp_path, make, class_folder, workers):
    (class_folder / "tench" / "20.png").write_bytes(b"no photo")
    with pytest.warns(UserWarning, match=r"3.6% of the samples were corrupt \(2 among 56 on this rank\).*20.png"):
        fit(tmp_path, make(workers=workers, train=str(class_folder), samples_per_epoch=None), max_steps=14)


def test_bad_input_is_known_before_the_first_step(make, class_folder, lines, shards, tmp_path):
    with pytest.raises(FileNotFoundError, match="no data at"):
        ready(make(train="nowhere"))
    with pytest.raises(ValueError, match="batch_size=31 is more than the 30 samples"):
        ready(make(batch_size=31)).train_dataloader()
    with pytest.raises(ValueError, match="batch_size=0 must be a multiple of ranks=1"):
        ready(make(batch_size=0))
    with pytest.raises(ValueError, match="mixes shards with folders"):
        make(train=[shards, str(lines)])
    with pytest.raises(ValueError, match="must be positive, one for each of the 2 sources"):
        make(weights=[1.0])
    with pytest.raises(ValueError, match="name a shard more than once"):
        make(train=shards, weights=[1.0])
    with pytest.raises(ValueError, match=r"needs exactly one \{\}"):
        make(templates="a photo")
    (tmp_path / "broken.jsonl").write_text(json.dumps({"image": "a.png"}) + "\n{\n")
    with pytest.raises(ValueError, match=r"broken.jsonl, line 2: not JSON"):
        ready(make(train=str(tmp_path / "broken.jsonl")))
    shard = Path(shards.replace("{0000..0003}", "0001"))
    shard.write_bytes(shard.read_bytes()[:3000])
    with pytest.raises(ValueError, match=r"0001.tar is cut short"):
        ready(make(train=shards))


def test_a_batch_must_be_shared_equally(make):
    data = make(batch_size=5)
    data.trainer = type("Trainer", (), {"global_rank": 0, "world_size": 2})()
    with pytest.raises(ValueError, match="batch_size=5 must be a multiple of ranks=2"):
        data.setup("fit")


def test_a_yaml_can_say_it_all(make, class_folder):
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(ImageTextData, "data")
    settings = parser.parse_object({"data": {"train": [str(class_folder)], "scale": [0.3, 1.0], "weights": [3]}})
    data = parser.instantiate(settings).data
    assert len(ready(data).train_dataloader()) == 1
