"""The multi-codebook quantizer alone: losses, codes and gradients, against numbers of an independent one."""

from typing import Any

import pytest
import torch
from torch import Tensor
from unitok_fill import tensor_for
from unitok_weights import golden, load_json

from unitok.quantizers import MultiCodebookQuantizer

RULES = load_json("quantizer.json")
NUMBERS = golden("quantizer.safetensors")


def close(ours: Tensor, name: str, atol: float, rtol: float = 1e-5) -> None:
    theirs = NUMBERS[name]
    torch.testing.assert_close(ours.detach().reshape(theirs.shape), theirs, atol=atol, rtol=rtol)


def build(name: str, rule: dict[str, Any]) -> MultiCodebookQuantizer:
    books, width = rule["num_codebooks"], rule["vocab_width"]
    size = rule["vocab_size"] // books
    quantizer = MultiCodebookQuantizer(books, size, width, rule["beta"], rule["entropy_temp"], use_entropy=True)
    keys = [f"quantizer.{name}.codebooks.{k}.codebook.weight" for k in range(books)]
    quantizer.codebooks.data = torch.stack([tensor_for(key, (size, width // books)) for key in keys])
    return quantizer


@pytest.mark.parametrize("name", list(RULES))
def test_forward_and_backward(name: str) -> None:
    rule = RULES[name]
    batch, length, width = rule["input"]
    flat = (batch, length * width)
    quantizer = build(name, rule)
    latents = tensor_for(f"input.{name}", flat).view(batch, 1, length, width) * width**0.5 * length**0.5
    cotangent = tensor_for(f"cotangent.{name}", flat).view(batch, 1, length, width) * (length * width) ** 0.5
    out = quantizer(latents.requires_grad_())
    ((out.latents * cotangent).sum() + out.loss + 0.1 * out.entropy_loss).backward()

    assert torch.equal(out.codes.flatten(2), NUMBERS[f"{name}.idx"].long())
    close(out.latents, f"{name}.out", 1e-6)
    close(out.loss, f"{name}.vq_loss", 1e-6)
    close(out.entropy_loss, f"{name}.entropy_loss", 1e-6)
    close(quantizer.dequantize(out.codes), f"{name}.idx_to_f", 1e-6)
    close(latents.grad, f"{name}.grad_input", 1e-5, 1e-4)
    grad = quantizer.codebooks.grad
    close(grad[:, :64], f"{name}.grad_codebook", 1e-5, 1e-4)
    close(grad.flatten(1).norm(dim=1), f"{name}.grad_codebook_norm", 1e-5)


def test_the_entropy_of_each_codebook() -> None:
    rule = RULES["a"]
    batch, length, width = rule["input"]
    quantizer = build("a", rule)
    latents = tensor_for("input.a", (batch, length * width)).view(batch, 1, length, width) * (width * length) ** 0.5
    for k in range(rule["num_codebooks"]):
        alone = MultiCodebookQuantizer(1, 16, 4, entropy_temperature=rule["entropy_temp"], use_entropy=True)
        alone.codebooks.data = quantizer.codebooks.data[k : k + 1]
        close(alone(latents[..., 4 * k : 4 * k + 4]).entropy_loss, f"a.entropy_{k}", 1e-6)
