import numpy as np
import pytest
import torch

from tests.bulk.inputs import tiny_tokenizer
from unitok.bulk.batches import Batch, Closed, Failed
from unitok.bulk.encoding import CPU_BATCH, Encoded, Encoder


def _batch(shard: int, seed: int) -> Batch:
    pixels = np.random.default_rng(seed).integers(0, 256, (2, 32, 48, 3), dtype=np.uint8)
    return Batch(shard, pixels, [{"key": f"{seed}{i}"} for i in range(2)])


def test_codes_order_and_everything_else_in_its_place():
    tokenizer = tiny_tokenizer()
    first, second = _batch(0, 1), _batch(0, 2)
    events = [first, Failed(0, "k", "why"), second, Closed(0, 5, None), Closed(1, 0, None)]
    found = list(Encoder(tokenizer).stream(events))
    assert [type(event) for event in found] == [Encoded, Failed, Encoded, Closed, Closed]
    for event, batch in ((found[0], first), (found[2], second)):
        images = torch.from_numpy(batch.pixels).permute(0, 3, 1, 2) / 255
        assert event.rows == batch.rows
        assert np.array_equal(event.tokens(), tokenizer.encode(images).permute(0, 2, 3, 1).numpy())
        assert event.tokens().shape == (2, 2, 3, 2)


def test_batch_size_on_a_cpu():
    assert Encoder(tiny_tokenizer()).fitting_batch(64) == CPU_BATCH


@pytest.mark.gpu
def test_on_a_gpu():
    tokenizer = tiny_tokenizer()
    batch = _batch(0, 1)
    (on_cpu,) = Encoder(tokenizer).stream([batch])
    encoder = Encoder(tokenizer.cuda())
    (on_gpu,) = encoder.stream([batch])
    assert (on_cpu.tokens() == on_gpu.tokens()).mean() > 0.9
    fitting = encoder.fitting_batch(64)
    assert 1 <= fitting <= 512
    assert fitting & (fitting - 1) == 0
