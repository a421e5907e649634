"""Bookkeeping that every task shares: steps, clipping, accumulation, the moving average, schedules, exact resume."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy
from dataclasses import dataclass
from math import isfinite
from typing import Any, NamedTuple

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import STEP_OUTPUT
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from unitok.training.muon import Muon
from unitok.training.schedules import warmup_cosine
from unitok.training.sharding import average_replicated, clip_gradient, lerp, shard


@dataclass(frozen=True)
class Optimization:
    """How a task's network learns: AdamW, or Muon and AdamW together, under warm-up and cosine.

    Args:
        lr: learning rate of AdamW after the warm-up.
        muon_lr: learning rate of Muon, which then takes the weights of linear layers from AdamW; 0 is AdamW for all.
            Muon makes each step orthogonal and learns faster early on (on one small run here: 22.8 against 20.1 dB
            PSNR in the same CPU time); it does not know sharded weights.
        betas: of AdamW.
        eps: of AdamW.
        weight_decay: of weights with two axes or more; norms, biases and temperatures do not decay.
        warmup: share of the run.
        final: last learning rate over `lr`.
        clip: largest norm of the gradient.
        accumulate: batches of one step; the Trainer cannot do it here. A contrastive loss still compares one batch.
        ema: decay of the moving average that is evaluated and exported; 0 keeps none.
    """

    lr: float = 5e-4
    muon_lr: float = 0.0
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-6
    weight_decay: float = 0.02
    warmup: float = 0.01
    final: float = 0.1
    clip: float = 10.0
    accumulate: int = 1
    ema: float = 0.0


class Losses(NamedTuple):
    """What one batch costs.

    Attributes:
        backward: () whose gradient trains.
        terms: () values by name, before their weights: logged, and checked to be finite.
    """

    backward: Tensor
    terms: dict[str, Tensor]


class NotFiniteError(ValueError):
    """A loss term or the gradient is NaN or infinite. The step was not made, the last checkpoint is good."""


class BaseTask(LightningModule, ABC):
    """A network, its losses, and one optimizer step per batch.

    A task builds its network, names the averaged part, and answers `losses(batch)`. Lightning counts a step for every
    optimizer that steps through it; here only the first does, so ten batches are ten steps, whatever else learns.
    The random numbers of a step are drawn from (seed, batch, rank) alone, so a run that was killed and resumed draws
    what an unbroken one draws. Precision "16-mixed" is refused: it would need a scaler for each optimizer.

    Args:
        optimization: how the network learns.
        averaged: name of the submodule whose moving average is kept.
    """

    def __init__(self, optimization: Optimization, averaged: str = "tokenizer") -> None:
        super().__init__()
        if optimization.accumulate < 1:
            raise ValueError(f"accumulate={optimization.accumulate} must be at least 1")
        self.automatic_optimization = False
        self.optimization, self.averaged = optimization, averaged
        self.average: nn.Module | None = None
        self._configured = False
        self.batches_seen = 0
        self.seed: int | None = None

    @abstractmethod
    def losses(self, batch: Any) -> Losses:
        """What the batch costs, with gradient."""

    @property
    def evaluated(self) -> Any:
        """The network that is evaluated and exported: the moving average, where one is kept."""
        return self.average if self.average is not None else getattr(self, self.averaged)

    @property
    def total_steps(self) -> int:
        """Steps of the whole run, which every schedule is a share of.

        Raises:
            ValueError: the run has no end.
        """
        batches = self.trainer.estimated_stepping_batches
        if self.trainer.max_steps > 0 and self.trainer.max_steps <= batches:
            return self.trainer.max_steps
        if batches == float("inf") or batches <= 0:
            raise ValueError(
                "schedules are shares of the run: give the trainer max_steps, or max_epochs and sized data"
            )
        return max(1, int(batches) // self.optimization.accumulate)

    def configure_model(self) -> None:
        """Make the moving average's copy, and shard under ModelParallelStrategy; once."""
        if self._configured:
            return
        self._configured = True
        if self.optimization.ema:
            self.average = deepcopy(getattr(self, self.averaged)).requires_grad_(False).eval()
        if self.device_mesh is not None:
            if (split := self.device_mesh["tensor_parallel"].size()) > 1:  # Lightning's default: the GPUs of a node
                raise ValueError(
                    f"ModelParallelStrategy got tensor_parallel_size={split}, but layers are never split here: "
                    f"give tensor_parallel_size=1 and data_parallel_size=nodes x devices"
                )
            shard(self, self.device_mesh["data_parallel"])

    def configure_optimizers(self) -> Any:
        """AdamW, and Muon where it is asked for, with their schedule; a task with an adversary appends another."""
        options, total = self.optimization, self.total_steps
        named = list(self.trained_parameters())
        linear = _linear_weights(self) if options.muon_lr else set()
        matrices = [p for _, p in named if id(p) in linear]
        others = [(name, p) for name, p in named if id(p) not in linear]
        if any(isinstance(p, DTensor) for p in matrices):
            raise ValueError(
                f"muon_lr={options.muon_lr} does not know sharded weights: set it to 0 under this strategy"
            )
        optimizers: list[Optimizer] = [adamw(others, options.lr, options.betas, options.weight_decay, options.eps)]
        if matrices:
            optimizers.append(Muon(matrices, options.muon_lr, options.weight_decay))
        schedule = _schedule(total, options.warmup * total, options.final)
        return optimizers, [LambdaLR(optimizer, schedule) for optimizer in optimizers]

    def trained_parameters(self) -> Iterable[tuple[str, nn.Parameter]]:
        """Names and parameters of the first optimizer."""
        return [(name, p) for name, p in self.named_parameters() if p.requires_grad]

    def on_fit_start(self) -> None:
        """Fix the seed of this run; a resumed run has its own."""
        if self.trainer.precision == "16-mixed":
            raise ValueError('precision "16-mixed" has no place here: take "bf16-mixed" or "32-true"')
        if self.seed is None:
            self.seed = int(self.trainer.strategy.broadcast(torch.initial_seed() % 2**31))

    def training_step(self, batch: Any, batch_idx: int) -> STEP_OUTPUT:
        """One batch; a step of the optimizers after every `accumulate` of them."""
        count = self.optimization.accumulate
        last = (self.batches_seen + 1) % count == 0
        with self._seeded():
            losses = self.losses(batch)
            with nullcontext() if last else self._unsynchronised():
                self.manual_backward(losses.backward / count)
        self.batches_seen += 1
        values = {**losses.terms, **(self._clip() if last else {})}
        means = self._check_finite(values)
        if last:
            self._step()
        self.log_dict({f"train/{name}": value for name, value in means.items()})
        return {"loss": losses.backward.detach()}

    def _clip(self) -> dict[str, Tensor]:
        """Clip every optimizer's gradient; norms before clipping, by name."""
        norms = {}
        for index, optimizer in enumerate(self._optimizers()):
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            if self.device_mesh is not None:
                average_replicated(parameters)
            name = "gradient" if index == 0 else f"gradient_{index + 1}"
            norms[name] = clip_gradient(parameters, self.optimization.clip)
        return norms

    def _step(self) -> None:
        first, *others = self._optimizers()
        listed = self.optimizers()
        counted = listed[0] if isinstance(listed, list) else listed
        for optimizer in others:  # past Lightning's counter
            self.trainer.strategy.optimizer_step(optimizer, lambda: None, model=self)
        counted.step()
        for optimizer in (first, *others):
            optimizer.zero_grad()
        schedulers = self.lr_schedulers() or []
        for scheduler in schedulers if isinstance(schedulers, list) else [schedulers]:
            scheduler.step()
        self.after_step()
        self._move_average()

    def after_step(self) -> None:
        """A task's own work between the optimizer step and the moving average."""

    @torch.no_grad()
    def _move_average(self) -> None:
        if self.average is None:
            return
        decay = min(self.optimization.ema, (1 + self.global_step) / (10 + self.global_step))
        source = getattr(self, self.averaged)
        lerp(self.average.parameters(), source.parameters(), 1 - decay)
        for kept, buffer in zip(self.average.buffers(), source.buffers(), strict=True):
            kept.copy_(buffer)

    def _optimizers(self) -> list[Optimizer]:
        optimizers = self.optimizers(use_pl_optimizer=False)
        return optimizers if isinstance(optimizers, list) else [optimizers]

    def _unsynchronised(self) -> AbstractContextManager[Any]:
        block = getattr(self.trainer.strategy, "block_backward_sync", None)
        return nullcontext() if block is None else block()

    def _seeded(self) -> AbstractContextManager[Any]:
        seed = self.seed or 0
        number = (seed + 1_000_003 * (self.batches_seen * self.trainer.world_size + self.global_rank)) % 2**63
        return _randomness(number, self.device)

    def _check_finite(self, values: dict[str, Tensor]) -> dict[str, Tensor]:
        """Means over ranks by one reduction, so that all ranks stop together; here a GPU is waited for, once a step."""
        means = self.mean_over_ranks(torch.stack([v.detach().float().reshape(()) for v in values.values()]))
        bad = [f"{name} = {value}" for name, value in zip(values, means.tolist(), strict=True) if not isfinite(value)]
        if bad:
            raise NotFiniteError(
                f"not finite at step {self.global_step}: {', '.join(bad)}. The step was not made and the last "
                f"checkpoint is good; go on from it with a lower lr, a longer warm-up or precision 32-true"
            )
        return dict(zip(values, means.unbind(), strict=True))

    def mean_over_ranks(self, tensor: Tensor) -> Tensor:
        """The same tensor on every rank."""
        if self._trainer is None or self.trainer.world_size == 1:
            return tensor
        mean: Tensor = self.trainer.strategy.reduce(tensor, reduce_op="mean")
        return mean

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what resuming exactly needs beyond weights, optimizers, schedules and data."""
        checkpoint["task"] = {"kind": type(self).__name__, "batches_seen": self.batches_seen, "seed": self.seed}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take it back.

        Raises:
            ValueError: the checkpoint is of another task or architecture.
        """
        task = checkpoint.get("task", {"kind": "another program"})
        if task["kind"] != type(self).__name__:
            raise ValueError(f"this checkpoint was written by {task['kind']}, not by {type(self).__name__}")
        if state := checkpoint.get("state_dict"):
            _check_architecture(self.state_dict(), state)
        self.batches_seen, self.seed = task["batches_seen"], task["seed"]


def adamw(
    parameters: Iterable[tuple[str, nn.Parameter]],
    lr: float,
    betas: tuple[float, float],
    weight_decay: float,
    eps: float = 1e-6,
) -> AdamW:
    """AdamW in two groups: weights of two axes and more decay; norms, biases and temperatures do not."""
    named = list(parameters)
    if not named:
        raise ValueError("nothing is trained: every parameter is frozen or no loss reaches it")
    groups: list[dict[str, Any]] = [
        {"params": [p for name, p in named if _decays(name, p)], "weight_decay": weight_decay},
        {"params": [p for name, p in named if not _decays(name, p)], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    sharded = any(isinstance(p, DTensor) for _, p in named)  # one kernel cannot take shards and whole tensors together
    return AdamW(groups, lr=lr, betas=betas, eps=eps, fused=not sharded, foreach=False if sharded else None)


def _linear_weights(module: nn.Module) -> set[int]:
    """Ids of the weights of linear layers; an output head that is tied to its embedding is a table of words."""
    tables = {id(m.weight) for m in module.modules() if isinstance(m, nn.Embedding)}
    return {id(m.weight) for m in module.modules() if isinstance(m, nn.Linear)} - tables


def _decays(name: str, parameter: Tensor) -> bool:
    return parameter.ndim >= 2 and not name.endswith(("bias", "logit_scale"))


def _schedule(total: int, warmup: float, final: float) -> Callable[[int], float]:
    return lambda step: warmup_cosine(step, total, warmup, final)


class _randomness(AbstractContextManager[None]):
    """Random numbers inside follow from the number alone, and the state outside is left as it was."""

    def __init__(self, number: int, device: torch.device) -> None:
        self._number = number
        self._fork = torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])

    def __enter__(self) -> None:
        self._fork.__enter__()
        torch.manual_seed(self._number)

    def __exit__(self, *error: Any) -> None:
        self._fork.__exit__(*error)


def _check_architecture(expected: dict[str, Tensor], found: dict[str, Tensor]) -> None:
    problems = [f"{name} is missing" for name in expected if name not in found]
    problems += [f"{name} is unknown" for name in found if name not in expected]
    problems += [
        f"{name} is {tuple(found[name].shape)} instead of {tuple(tensor.shape)}"
        for name, tensor in expected.items()
        if name in found and found[name].shape != tensor.shape
    ]
    if problems:
        shown = "; ".join(problems[:4]) + ("; ..." if len(problems) > 4 else "")
        raise ValueError(f"the checkpoint is of another architecture, {len(problems)} tensors differ: {shown}")
