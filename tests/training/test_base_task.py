from unittest.mock import Mock

import pytest
import torch
from lightning.pytorch import Trainer
from torch import nn
from torch.optim import SGD
from torch.utils.data import DataLoader

from unitok.training.base_task import BaseTask, Losses, NotFiniteError, Optimization, adamw

pytestmark = pytest.mark.filterwarnings("ignore")


class Line(BaseTask):
    """y = w x towards 1, and a second optimizer that must not be counted."""

    def __init__(self, optimization, broken_at=None):
        super().__init__(optimization, averaged="line")
        self.line, self.other, self.broken_at = nn.Linear(1, 1, bias=False), nn.Linear(1, 1), broken_at
        nn.init.zeros_(self.line.weight)
        self.seen, self.drawn = [], []

    def trained_parameters(self):
        return list(self.line.named_parameters())

    def configure_optimizers(self):
        optimizers, schedulers = super().configure_optimizers()
        return [*optimizers, SGD(self.other.parameters(), 0.1)], schedulers

    def losses(self, batch):
        self.drawn.append(float(torch.rand(())))
        loss = (self.line(batch) - 1).square().mean()
        if len(self.drawn) == self.broken_at:
            loss = loss * float("nan")
        return Losses(loss + self.other(batch).square().mean(), {"distance": loss})

    def after_step(self):
        self.seen.append(float(self.line.weight))


def fit(task, batches=10, **options):
    torch.manual_seed(3)
    data = DataLoader([torch.ones(1) for _ in range(batches)], batch_size=1)
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = Trainer(accelerator="cpu", max_epochs=1, enable_model_summary=False, **quiet, **options)
    trainer.fit(task, data)
    return trainer


def test_ten_batches_are_ten_steps_with_two_optimizers():
    task = Line(Optimization(lr=0.1, warmup=0.0))
    before = task.other.weight.item()
    assert fit(task).global_step == 10
    assert len(task.seen) == 10
    assert task.other.weight.item() != before
    assert fit(Line(Optimization()), max_steps=4).global_step == 4


def test_accumulation_is_one_step_of_the_mean_gradient():
    one, four = Line(Optimization(lr=0.1, warmup=0.0)), Line(Optimization(lr=0.1, warmup=0.0, accumulate=4))
    fit(one, batches=1)
    trainer = fit(four, batches=8)
    assert trainer.global_step == 2
    assert four.seen[0] == pytest.approx(one.seen[0])


def test_gradient_is_clipped():
    task = Line(Optimization(clip=0.5, warmup=0.0))
    norms = []
    step = task._step
    task._step = lambda: (norms.append(float(task.line.weight.grad.norm())), step())
    fit(task, batches=1)
    assert norms == pytest.approx([0.5])  # it was 2


def test_the_average_follows_the_formula():
    task = Line(Optimization(lr=0.1, warmup=0.0, ema=0.5))
    fit(task, batches=3)
    average = 0.0
    for step, weight in enumerate(task.seen, 1):
        decay = min(0.5, (1 + step) / (10 + step))
        average = decay * average + (1 - decay) * weight
    assert float(task.average.weight) == pytest.approx(average, rel=1e-5)
    assert task.evaluated is task.average
    assert "other" not in dict(task.average.named_modules())


def test_learning_rate_over_the_run():
    rates = []

    class Watched(Line):
        def _step(self):
            rates.append(self._optimizers()[0].param_groups[0]["lr"])
            super()._step()

    fit(Watched(Optimization(lr=1.0, warmup=0.2, final=0.1)))
    assert rates[:3] == pytest.approx([0.0, 0.5, 1.0])
    assert rates[-1] == pytest.approx(0.1)


def test_not_finite_names_the_term_and_leaves_the_weights():
    task = Line(Optimization(lr=0.1, warmup=0.0), broken_at=3)
    with pytest.raises(NotFiniteError, match="step 2: distance = nan"):
        fit(task)
    assert len(task.seen) == 2
    assert float(task.line.weight) == task.seen[-1]


def test_randomness_hangs_on_seed_and_batch_alone():
    first, second = Line(Optimization()), Line(Optimization())
    fit(first)
    torch.rand(7)
    fit(second, batches=4)
    assert first.drawn[:4] == second.drawn
    assert len(set(first.drawn)) == 10


def test_a_run_without_end_is_refused():
    with pytest.raises(ValueError, match="max_steps"):
        fit_endless()


def fit_endless():
    task = Line(Optimization())
    trainer = Trainer(accelerator="cpu", max_epochs=-1, logger=False, enable_checkpointing=False)
    trainer.fit(task, DataLoader([torch.ones(1)], batch_size=1))


def test_tensor_parallelism_is_refused_by_name():
    task = Line(Optimization())
    task._device_mesh = {"tensor_parallel": Mock(size=lambda: 8)}
    with pytest.raises(ValueError, match="tensor_parallel_size=8"):
        task.configure_model()


def test_what_decays():
    module = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2))
    module.logit_scale = nn.Parameter(torch.zeros(()))
    decayed, others = adamw(module.named_parameters(), 1.0, (0.9, 0.95), 0.02).param_groups
    assert [p.shape for p in decayed["params"]] == [(2, 2)]
    assert decayed["weight_decay"] == 0.02
    assert len(others["params"]) == 4
    assert others["weight_decay"] == 0
    with pytest.raises(ValueError, match="nothing is trained"):
        adamw([], 1.0, (0.9, 0.95), 0.0)
