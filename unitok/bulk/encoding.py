"""Batches of uint8 pictures -> codes, on a device, one batch behind so that a GPU never waits."""

import math
from collections.abc import Iterable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unitok.bulk.batches import Batch, Event
from unitok.tokenizer import Tokenizer

CPU_BATCH = 16
"""On a CPU the time of one image hardly depends on the batch."""
LARGEST_BATCH = 512


class Encoded:
    """A batch whose codes may still be on their way."""

    def __init__(self, batch: Batch, tokens: Tensor) -> None:
        self.shard, self.rows, self._tokens = batch.shard, batch.rows, tokens

    def tokens(self) -> NDArray[np.int32]:
        """(B, h, w, K) codes; waits for them."""
        return self._tokens.cpu().numpy()


class Encoder:
    """Encodes pictures with one tokenizer at one scale.

    Args:
        tokenizer: on its device.
        scale: see `Tokenizer.encode`.
    """

    def __init__(self, tokenizer: Tokenizer, scale: int = 1) -> None:
        self.tokenizer, self.scale = tokenizer, scale
        self.device = next(tokenizer.parameters()).device
        self.seconds = 0.0

    def __call__(self, pixels: NDArray[np.uint8]) -> Tensor:
        """(B, H, W, 3) uint8 -> (B, h, w, K) int32 codes on the device; on a GPU this returns before they are there."""
        images = torch.from_numpy(pixels)
        if self.device.type == "cuda":
            images = images.pin_memory().to(self.device, non_blocking=True)
        floats = images.permute(0, 3, 1, 2).float().div_(255)
        codes = self.tokenizer.encode(floats, self.scale, validate=False)
        return codes.permute(0, 2, 3, 1).to(torch.int32).contiguous()

    def stream(self, events: Iterable[Event]) -> Iterator[Event | Encoded]:
        """Each Batch as Encoded, all else as it came, in order; a batch is handed on when the next one has started."""
        waiting: Encoded | None = None
        for event in events:
            done, waiting = waiting, Encoded(event, self(event.pixels)) if isinstance(event, Batch) else None
            if done is not None:
                yield done
            if not isinstance(event, Batch):
                yield event
        if waiting is not None:
            yield waiting

    def fitting_batch(self, side: int, share: float = 0.8) -> int:
        """The largest power of two, up to LARGEST_BATCH, whose encode fits into `share` of the free GPU memory.

        Measured from the peaks of 1 and 4 images of side x side; on a CPU it is CPU_BATCH.
        """
        if self.device.type != "cuda":
            return CPU_BATCH
        free, _ = torch.cuda.mem_get_info(self.device)
        peaks = [self._peak(np.zeros((count, side, side, 3), np.uint8)) for count in (1, 1, 4)]
        per_image = max(1.0, (peaks[2] - peaks[1]) / 3)
        return min(LARGEST_BATCH, 2 ** int(math.log2(max(1.0, (free * share - peaks[1]) / per_image + 1))))

    def _peak(self, pixels: NDArray[np.uint8]) -> int:
        torch.cuda.reset_peak_memory_stats(self.device)
        before = torch.cuda.memory_allocated(self.device)
        self(pixels)
        torch.cuda.synchronize(self.device)
        return torch.cuda.max_memory_allocated(self.device) - before
