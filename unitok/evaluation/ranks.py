"""One evaluation shared by several processes: who does which part, and how the parts come together.

Started alone, a command is rank 0 of 1. Under torchrun each process takes every n-th image, and everything that is
reported is put together from all of them in the order of the images, so the numbers do not depend on their count.
"""

import os
from typing import Any, NamedTuple, TypeVar

import torch
import torch.distributed as dist

T = TypeVar("T")


class Ranks(NamedTuple):
    """One process among those that share the work.

    Attributes:
        rank: in [0, size).
        size: number of processes.
        device: where this process computes.
    """

    rank: int
    size: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this process speaks for all: prints, writes, computes the final figures."""
        return self.rank == 0

    def share(self, count: int) -> range:
        """The indices below `count` that are this process's work; none is done twice."""
        return range(self.rank, count, self.size)

    def gather(self, value: T) -> list[T]:
        """Every process's value, in the order of ranks, on all of them."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values


class Run(NamedTuple):
    """How a run computes; none of it belongs to the protocol, as no figure should depend on it.

    Attributes:
        ranks: who shares the work.
        batch_size: images at once.
        workers: processes that decode photos.
        dtype: of the model's weights. It may move figures, and stands in the report for that.
    """

    ranks: Ranks
    batch_size: int = 32
    workers: int = 0
    dtype: torch.dtype = torch.float32


def join(device: str | None = None) -> Ranks:
    """Join the group of torchrun where there is one (gloo between CPUs, NCCL between GPUs).

    Args:
        device: "cpu", "cuda", "cuda:1", ...; None takes a GPU where there is one.
    """
    chosen = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if not dist.is_initialized():
        if int(os.environ.get("WORLD_SIZE", "1")) == 1:
            return Ranks(0, 1, chosen)
        dist.init_process_group("cpu:gloo,cuda:nccl" if chosen.type == "cuda" else "gloo")
    if str(chosen) == "cuda":
        chosen = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(chosen)
    return Ranks(dist.get_rank(), dist.get_world_size(), chosen)
