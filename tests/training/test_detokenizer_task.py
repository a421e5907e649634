import math

import pytest
import torch
from lightning.pytorch import Trainer
from torch.utils.data import DataLoader

from tests.decoders.stand_ins import pixel_tokenizer
from unitok.decoders import AutoregressiveDecoder, FlowDecoder, ViTaminDecoder
from unitok.decoders.prefix_transformer import PrefixTransformer
from unitok.models import ta_tok
from unitok.models.unitok import tiny
from unitok.training.base_task import Optimization
from unitok.training.data import Batch
from unitok.training.detokenizer_task import DetokenizerTask

FAST = Optimization(lr=1e-2, warmup=0.0, ema=0.5)


def decoder(kind: str, dim: int = 32):
    torch.manual_seed(1)
    if kind == "flow":
        return FlowDecoder(dim, image_size=32, patch_size=8, dim=16, depth=1, num_heads=2, steps=2)
    words = PrefixTransformer(dim, 32, num_codes=4, max_condition=64, dim=16, depth=1, num_heads=2, dropout=0.1)
    return AutoregressiveDecoder(words, pixel_tokenizer(), guidance=2.0)


def batch(count: int = 4, size: int = 64) -> Batch:
    generator = torch.Generator().manual_seed(0)
    return Batch(torch.randint(256, (count, 3, size, size), generator=generator, dtype=torch.uint8), None)


class Repeated(torch.utils.data.Dataset):
    """The same batch again and again."""

    def __len__(self):
        return 100

    def __getitem__(self, index):
        return batch()


def fit(task, folder, steps=4, **options):
    trainer = Trainer(
        max_steps=steps, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=folder, **options,
    )  # fmt: skip
    loader = DataLoader(Repeated(), batch_size=None)
    trainer.fit(task, loader, **({"val_dataloaders": loader} if options else {}))
    return trainer


@pytest.mark.parametrize("kind", ["ar", "flow"])
@pytest.mark.filterwarnings("ignore")  # Lightning's advice on loggers, workers and small runs
def test_only_the_decoder_learns(kind, tmp_path):
    torch.manual_seed(0)
    task = DetokenizerTask(tiny().eval(), decoder(kind), FAST)
    before = {name: tensor.clone() for name, tensor in task.state_dict().items()}
    first = task.losses(batch()).backward.item()
    trainer = fit(task, tmp_path, limit_val_batches=1, val_check_interval=2)
    assert trainer.global_step == 4
    frozen = ("tokenizer.", "decoder.pixels.")
    for name, tensor in task.state_dict().items():
        if name.startswith(frozen):
            assert torch.equal(tensor, before[name]), name
    assert any(not torch.equal(task.state_dict()[name], before[name]) for name in before if name.startswith("decoder."))
    assert task.losses(batch()).backward.item() < first
    assert math.isfinite(trainer.callback_metrics["val/psnr"])
    assert "val/detokenizer" in trainer.callback_metrics


def test_every_trained_parameter_is_reached():
    for kind in ("ar", "flow"):
        task = DetokenizerTask(tiny().eval(), decoder(kind))
        for parameter in task.decoder.parameters():
            if parameter.requires_grad and parameter.ndim > 1:
                torch.nn.init.normal_(parameter, std=0.1)  # heads and gates start at zero and let nothing through
        task.losses(batch()).backward.backward()
        assert [n for n, p in task.named_parameters() if p.requires_grad and p.grad is None] == []
        assert [n for n, p in task.named_parameters() if not p.requires_grad and p.grad is not None] == []


def test_dropping_everything_leaves_the_condition_unseen():
    task = DetokenizerTask(tiny().eval(), decoder("ar"), condition_dropout=0.99999)
    torch.nn.init.normal_(task.decoder.transformer.head.weight)
    seen = []
    task.decoder.transformer.condition.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    task.losses(batch())
    assert seen[0].abs().max() == 0
    task.condition_dropout = 0.0
    task.losses(batch())
    assert seen[1].abs().min(-1).values.max() > 0


def test_frozen_parts_stay_in_eval_mode_and_are_shared_by_the_average():
    task = DetokenizerTask(tiny().eval(), decoder("ar"), FAST)
    task.configure_model()
    task.train()
    assert task.decoder.transformer.training
    assert not task.decoder.pixels.training
    assert not task.tokenizer.training
    assert task.average.pixels is task.decoder.pixels
    assert task.average.transformer is not task.decoder.transformer
    walk = task.evaluated
    assert walk.decoder is task.average
    assert walk.decode(walk.encode(batch().images[:1] / 255)).shape == (1, 3, 32, 32)


def test_every_scale_of_ta_tok_is_drawn():
    tokenizer = ta_tok.tiny().eval()
    size = tokenizer.image_size
    dim = tokenizer.features(tokenizer.encode(torch.rand(1, 3, size, size))).shape[-1]
    task = DetokenizerTask(tokenizer, decoder("flow", dim), scales=[1, 2, 3], condition_size=size)
    grids = set()
    original = task.condition
    task.condition = lambda images, scale: grids.add(scale) or original(images, scale)
    torch.manual_seed(0)
    for _ in range(12):
        task.losses(batch(1))
    assert grids == {1, 2, 3}


def test_what_cannot_be_trained_is_refused():
    with pytest.raises(ValueError, match=r"condition_dropout=1\.0"):
        DetokenizerTask(tiny(), decoder("flow"), condition_dropout=1.0)
    with pytest.raises(ValueError, match=r"scales=\[2\] must be some of \[1\]"):
        DetokenizerTask(tiny(), decoder("flow"), scales=[2])
    with pytest.raises(ValueError, match="ViTaminDecoder is no de-tokenizer"):
        DetokenizerTask(tiny(), ViTaminDecoder((8, 16, 32), (1, 1), depth=1, num_heads=2))
    task = DetokenizerTask(tiny().eval(), decoder("flow", dim=7))
    with pytest.raises(ValueError, match="cond_dim=7"):
        task.losses(batch())
