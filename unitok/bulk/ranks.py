"""Which of many processes this one is, as torchrun, Lightning or SLURM tell it; and which shards are its own."""

import os
from typing import NamedTuple

_LAUNCHERS = (
    ("RANK", "WORLD_SIZE", "LOCAL_RANK"),  # torchrun, and Lightning within its own launchers
    ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID"),
)


class Rank(NamedTuple):
    """A process among the others.

    Attributes:
        number: below `world`.
        world: how many processes there are.
        local: its number on its machine.
    """

    number: int = 0
    world: int = 1
    local: int = 0

    def owns(self, shard: int) -> bool:
        """Whether a shard is this process's: each run of `world` shards has one for each, at a turning place.

        So with any other number of processes later, what a lost process left undone is spread over all of them.
        """
        return (shard + shard // self.world) % self.world == self.number


def launched_rank() -> Rank:
    """From the environment; one process where it says nothing.

    Processes never talk to each other, so one that dies holds up no other.

    Raises:
        ValueError: numbers that make no sense.
    """
    for number, count, local in _LAUNCHERS:
        if number in os.environ and count in os.environ:
            rank = Rank(int(os.environ[number]), int(os.environ[count]), int(os.environ.get(local, 0)))
            if not 0 <= rank.number < rank.world:
                raise ValueError(f"{number}={rank.number} must be at least 0 and below {count}={rank.world}")
            return rank
    return Rank()
