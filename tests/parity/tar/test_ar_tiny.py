"""The autoregressive de-tokenizer against the reference's numbers (spec: 3. AR-DTok; README of the goldens, 7)."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from tests.parity.tar import fill
from unitok.decoders import AutoregressiveDecoder
from unitok.decoders.prefix_transformer import PrefixTransformer
from unitok.models import ar_dtok

HERE = Path(__file__).parent


class NoPixels(nn.Module):
    """Stands where a pixel tokenizer of 256 entries would."""

    num_codebooks, codebook_size = 1, 256


def published_checkpoint() -> dict:
    keys = json.loads((HERE / "ar_tiny/keys.json").read_text())
    args = json.loads((HERE / "ar_tiny/meta.json").read_text())["args"]
    state = {name: fill.value(name, shape) for name, (shape, _, _) in keys.items()}
    return {"model": {"name": "llama-abs", "args": args, "sd": state}}


@pytest.fixture(scope="module")
def transformer() -> PrefixTransformer:
    return ar_dtok.read_transformer(published_checkpoint())


@pytest.fixture(scope="module")
def golden() -> dict[str, Tensor]:
    return load_file(HERE / "ar_tiny/golden.safetensors")


def grid(cond: Tensor, count: int) -> Tensor:
    side = round(count**0.5)
    return cond[:, :count].unflatten(1, (side, side))


@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize(
    ("name", "guidance", "interval", "count"),
    [
        ("greedy_cfg1", 1.0, None, 36),
        ("greedy_cfg4", 4.0, None, 36),
        ("greedy_cfg4_interval5", 4.0, 5, 36),
        ("greedy_cfg4_cond9", 4.0, None, 9),
        ("greedy_cfg4_cond4", 4.0, None, 4),
    ],
)
def test_greedy_codes_equal(transformer, golden, name, guidance, interval, count, cached):
    decoder = AutoregressiveDecoder(transformer, NoPixels(), top_k=1, guidance=guidance, guidance_interval=interval)
    decoder.cached = cached
    codes = decoder.sample(grid(golden["cond"], count))
    assert codes.shape == (2, 1, 4, 4)
    assert torch.equal(codes.flatten(1).int(), golden[name])


def test_teacher_forced_logits_and_loss(transformer, golden):
    decoder = AutoregressiveDecoder(transformer, NoPixels())
    codes = golden["greedy_cfg1"].long().view(2, 1, 4, 4)
    logits = decoder.logits(grid(golden["cond"], 36), codes)
    torch.testing.assert_close(logits, golden["tf_logits"], atol=1e-4, rtol=0)
    loss = decoder.code_loss(grid(golden["cond"], 36), codes)
    torch.testing.assert_close(loss[None], golden["tf_loss"], atol=1e-5, rtol=0)
