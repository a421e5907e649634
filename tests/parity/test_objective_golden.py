"""The training objective, against the loss that an independent implementation wrote down."""

from typing import NamedTuple

import pytest
from torch import Tensor
from unitok_weights import filled, golden, load_json

from unitok.models.unitok import rename
from unitok.training.base_task import Losses
from unitok.training.tokenizer_task import TokenizerTask, Weights


class Batch(NamedTuple):
    images: Tensor
    text_ids: Tensor


@pytest.fixture(scope="module")
def trained() -> tuple[TokenizerTask, Losses]:
    numbers = golden("base4", "golden.safetensors")
    weights = Weights(perceptual=0.0, adversarial=0.0, entropy=0.1)
    task = TokenizerTask(filled("base4", use_entropy=True), weights, decoded_fraction=0.5)
    images = numbers["image_u8"].permute(0, 3, 1, 2)
    return task, task.losses(Batch(images, numbers["text_tokens"][:2].long()))


def test_the_total_and_its_terms(trained: tuple[TokenizerTask, Losses]) -> None:
    wanted = load_json("base4", "meta.json")["train"]
    terms = {name: float(value.detach()) for name, value in trained[1].terms.items()}
    names = {"l1": "l1", "l2": "l2", "quantizer": "vq_loss", "entropy": "entropy_loss", "contrastive": "clip_loss"}
    for ours, theirs in names.items():
        assert terms[ours] == pytest.approx(wanted[theirs], rel=1e-4), ours
    total = 0.2 * terms["l1"] + terms["l2"] + terms["quantizer"] + 0.1 * terms["entropy"] + terms["contrastive"]
    assert total == pytest.approx(wanted["total"], abs=1e-3)


@pytest.mark.slow
def test_the_gradient_of_every_parameter(trained: tuple[TokenizerTask, Losses]) -> None:
    task, losses = trained
    losses.backward.backward()
    norms = {name: float(p.grad.norm()) for name, p in task.tokenizer.named_parameters() if p.grad is not None}
    wanted = load_json("base4", "meta.json")["train_grad_norm"]
    compared = 0
    for name, norm in wanted.items():
        ours = rename(name)
        if norm is not None and ours in norms:
            assert norms[ours] == pytest.approx(norm, rel=1e-3, abs=1e-6), name
            compared += 1
    assert compared > 0.95 * len(wanted)
