import math
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, Trainer
from torch import nn
from torch.utils.data import DataLoader

from unitok.losses.frozen import Frozen
from unitok.models import ta_tok
from unitok.models.unitok import tiny as unitok_tiny
from unitok.quantizers.words import Codebook, write_codebook
from unitok.training.alignment_task import AlignmentTask, SiglipTeacher
from unitok.training.base_task import Optimization
from unitok.training.data import Batch

FAST = Optimization(lr=1e-2, warmup=0.0, ema=0.5)


class Teacher(Frozen):
    """Patches of 8 x 8 pixels -> `width` channels; a 6 x 6 map of the tiny tokenizer's 48 pixels."""

    def __init__(self, width=32, patch=8):
        torch.manual_seed(7)
        super().__init__(nn.Conv2d(3, width, patch, patch))
        self.num_features = width

    def forward(self, images):
        return self.network(images).permute(0, 2, 3, 1)


def batch(count=4, size=48):
    generator = torch.Generator().manual_seed(0)
    return Batch(torch.randint(256, (count, 3, size, size), generator=generator, dtype=torch.uint8), None)


class Repeated(torch.utils.data.Dataset):
    def __len__(self):
        return 100

    def __getitem__(self, index):
        return batch()


def build(width=32, **options):
    torch.manual_seed(0)
    return AlignmentTask(ta_tok.tiny(), Teacher(width), **options)


def fit(task, folder, steps, resume=None, **options):
    trainer = Trainer(
        max_steps=steps, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=folder, **options,
    )  # fmt: skip
    loader = DataLoader(Repeated(), batch_size=None)
    validation = {"val_dataloaders": loader} if "limit_val_batches" in options else {}
    trainer.fit(task, loader, **validation, ckpt_path=resume)
    return trainer


def words_file(path, rows=64, width=24):
    embedding = torch.randn(rows, width, generator=torch.Generator().manual_seed(3))
    write_codebook(Codebook(embedding, torch.arange(rows), []), path, source="made up")
    return embedding


@pytest.mark.parametrize("scale", [1, 2, 3])
def test_loss_by_hand(scale):
    task = build(scales=[scale]).eval()
    images = batch().images / 255
    found = task.losses(batch())
    rooms, quantizer = task.tokenizer, task.tokenizer.quantizer
    with torch.no_grad():
        latents = rooms.project_in(rooms.encoder(images, scale)).double().numpy()
        codes = rooms.encode(images, scale)[:, 0].numpy()
        decoded = rooms.features(rooms.encode(images, scale)).double().numpy()
        teacher = task.teacher(images).double().numpy()
        weight, bias = (p.double().numpy() for p in quantizer.projection.parameters())
    latents /= np.linalg.norm(latents, axis=-1, keepdims=True)
    vectors = quantizer.embedding.double().numpy()[codes] @ weight.T + bias
    vectors /= np.linalg.norm(vectors, axis=-1, keepdims=True)
    side = 6 // scale
    pooled = teacher.reshape(4, side, scale, side, scale, -1).mean((2, 4))
    norms = np.linalg.norm(decoded, axis=-1) * np.linalg.norm(pooled, axis=-1)
    distance = 1 - ((decoded * pooled).sum(-1) / norms).mean()
    quantized = 1.25 * ((vectors - latents) ** 2).mean()
    assert found.terms["distance"].item() == pytest.approx(distance, abs=1e-5)
    assert found.terms["quantizer"].item() == pytest.approx(quantized, abs=1e-6)
    assert found.backward.item() == pytest.approx(distance + quantized, abs=1e-5)


def test_a_remainder_of_the_grid_is_dropped_as_the_encoder_drops_it():
    task = AlignmentTask(ta_tok.ta_tok(40, 8, 32, 1, 2, 64, 64, 16, 24, 1, 2, 64, 4), Teacher())  # a grid of 5 x 5
    images = torch.rand(2, 3, 40, 40)
    maps = task.teacher(images)
    expected = maps[:, :4, :4].unflatten(2, (2, 2)).unflatten(1, (2, 2)).mean((2, 4))
    assert torch.allclose(task.wanted(images, 2), expected, atol=1e-6)
    assert task.wanted(images, 2).shape[1:3] == task.tokenizer.encode(images, 2).shape[2:]


def test_a_teacher_of_another_grid_and_width_is_served():
    task = AlignmentTask(ta_tok.tiny(), Teacher(20, patch=16))  # 3 x 3 against 6 x 6, 20 channels against 32
    for scale in (1, 2, 3):
        task.scales = (scale,)
        assert math.isfinite(task.losses(batch()).backward.item())
    assert task.student.head.weight.shape == (20, 32)
    assert isinstance(build().student.head, nn.Identity)


@pytest.mark.filterwarnings("ignore")  # Lightning's advice on loggers, workers and small runs
def test_projection_learns_while_embedding_and_teacher_stay(tmp_path):
    embedding = words_file(tmp_path / "words.safetensors")
    task = build(20, optimization=FAST, codebook=str(tmp_path / "words.safetensors"), window=5)
    teacher = [p.clone() for p in task.teacher.network.parameters()]
    projection = task.tokenizer.quantizer.projection.weight.detach().clone()
    torch.manual_seed(1)
    first = task.losses(batch()).terms["distance"].item()
    trainer = fit(task, tmp_path, 8, limit_val_batches=1, val_check_interval=4)
    assert torch.equal(task.tokenizer.quantizer.embedding, embedding)
    assert torch.equal(task.evaluated.quantizer.embedding, embedding)
    assert not torch.equal(task.tokenizer.quantizer.projection.weight, projection)
    assert all(torch.equal(a, b) for a, b in zip(teacher, task.teacher.network.parameters(), strict=True))
    assert not any(name.startswith("teacher") for name in task.state_dict())
    assert task.losses(batch()).terms["distance"].item() < first
    logged = trainer.callback_metrics
    for scale in (1, 2, 3):
        assert -1 <= logged[f"val/cosine_{scale}"] <= 1
        assert 0 < logged[f"val/usage_{scale}"] <= 1
        assert f"train/usage_{scale}" in logged
    assert task.evaluated is not task.tokenizer
    quantizer = task.evaluated.quantizer  # whose projected codebook was kept at the validation before
    vectors = torch.nn.functional.normalize(quantizer.projection(quantizer.embedding), dim=-1)
    assert torch.allclose(quantizer.codebook, vectors, atol=1e-5)


def test_every_trained_parameter_is_reached():
    task = build(20)
    task.losses(batch()).backward.backward()
    assert [n for n, p in task.named_parameters() if p.requires_grad and p.grad is None] == []
    assert [n for n, p in task.named_parameters() if not p.requires_grad and p.grad is not None] == []


def test_entropy_term_is_weighed_into_the_loss_and_spreads_the_codes():
    torch.manual_seed(0)
    sizes = (48, 8, 32, 2, 2, 64, 64, 16, 24, 1, 2, 64, 4)
    task = AlignmentTask(
        ta_tok.ta_tok(*sizes, use_entropy=True, entropy_temperature=0.1), Teacher(), entropy_weight=0.5
    )
    images = batch(16)

    def used():
        return len(task.tokenizer.encode(images.images / 255).unique())

    found, before = task.losses(images), used()
    terms = found.terms
    expected = terms["distance"] + terms["quantizer"] + 0.5 * terms["entropy"]
    assert found.backward.item() == pytest.approx(expected.item(), abs=1e-6)
    optimizer = torch.optim.Adam([p for p in task.parameters() if p.requires_grad], 3e-3)
    for _ in range(15):
        optimizer.zero_grad()
        task.losses(images).backward.backward()
        optimizer.step()
    assert used() > before


def test_scales_are_drawn_as_often_as_named():
    task = build(scales=[1, 1, 2])
    drawn = []
    task.student.register_forward_pre_hook(lambda _, args: drawn.append(args[1]))
    torch.manual_seed(0)
    for _ in range(40):
        task.losses(batch(1))
    assert set(drawn) == {1, 2}
    assert drawn.count(1) > drawn.count(2) > 3


class Halfway(Callback):
    """A checkpoint after three steps."""

    def on_train_batch_end(self, trainer, task, *_):
        if trainer.global_step == 3:
            trainer.save_checkpoint(Path(trainer.default_root_dir) / "half.ckpt")


@pytest.mark.filterwarnings("ignore")  # Lightning's advice on loggers, workers and small runs
def test_a_resumed_run_ends_where_an_unbroken_one_does(tmp_path):
    whole, again = build(20, optimization=FAST), build(20, optimization=FAST)
    fit(whole, tmp_path, 6, callbacks=[Halfway()])
    fit(again, tmp_path, 6, resume=tmp_path / "half.ckpt")
    assert again.batches_seen == whole.batches_seen == 6
    assert again.seed == whole.seed
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name
    for scale, usage in whole.usage.items():
        assert usage.counts.sum() > 0
        assert torch.equal(usage.counts, again.usage[scale].counts)


def test_a_siglip_file_teaches_and_starts_the_encoder(tmp_path):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 2}
    network = transformers.SiglipVisionModel(
        transformers.SiglipVisionConfig(**sizes, image_size=48, patch_size=8)
    ).eval()
    network.save_pretrained(tmp_path)
    teacher = SiglipTeacher(str(tmp_path / "model.safetensors"), heads=2)
    task = AlignmentTask(ta_tok.tiny(), teacher, from_teacher=True)
    images = batch().images / 255
    with torch.no_grad():
        hidden = network(pixel_values=2 * images - 1, output_hidden_states=True).hidden_states[-2]
        assert torch.allclose(teacher(images).flatten(1, 2), hidden, atol=1e-5)
        assert torch.allclose(task.tokenizer.encoder.hidden(images), teacher(images))
    assert task.tokenizer.encoder.blocks[0].attn.qkv.weight.requires_grad
    with pytest.raises(ValueError, match=r"pass encoder_heads|not a SigLIP 2 size"):
        SiglipTeacher(str(tmp_path / "model.safetensors"))
    with pytest.raises(ValueError, match="not of the teacher's sizes"):
        AlignmentTask(ta_tok.ta_tok(48, 8, 32, 1, 2, 64, 64, 16, 24, 1, 2, 64, 4), teacher, from_teacher=True)


def test_what_cannot_be_trained_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"scales=\[4\] must be some of \[1, 2, 3\]"):
        build(scales=[4])
    with pytest.raises(ValueError, match=r"entropy_weight=0\.1 needs a tokenizer built with use_entropy=True"):
        build(entropy_weight=0.1)
    with pytest.raises(ValueError, match="needs a SiglipTeacher, not Teacher"):
        build(from_teacher=True)
    path = str(tmp_path / "words.safetensors")
    words_file(path, rows=63)
    with pytest.raises(ValueError, match=r"63 words of 24 channels.*codebook_size=64 and embedding_dim=24"):
        build(codebook=path)
    with pytest.raises(ValueError, match="MultiCodebookQuantizer has no frozen embedding"):
        AlignmentTask(unitok_tiny(), Teacher(), codebook=path, scales=[1])
    with pytest.raises(FileNotFoundError, match="no SigLIP weights"):
        SiglipTeacher(str(tmp_path / "none.safetensors"))
