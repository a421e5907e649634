import subprocess
import sys
from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from unitok.quantizers import MultiCodebookQuantizer


class Dispatched(TorchDispatchMode):
    """Counts operators and remembers the largest tensor any of them returned."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()
        self.largest = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.calls[func.overloadpacket.__name__] += 1
        for tensor in out if isinstance(out, tuple | list) else (out,):
            if isinstance(tensor, Tensor):
                self.largest = max(self.largest, tensor.numel())
        return out


@pytest.fixture
def quantizer() -> MultiCodebookQuantizer:
    torch.manual_seed(0)
    return MultiCodebookQuantizer(num_codebooks=3, codebook_size=20, latent_dim=12, use_entropy=True)


def test_codes_are_the_nearest_by_cosine_in_each_book(quantizer: MultiCodebookQuantizer) -> None:
    latents = torch.randn(2, 4, 5, 12)
    codes = quantizer.quantize(latents)
    assert codes.shape == (2, 3, 4, 5)
    assert codes.dtype == torch.int64
    for b in range(2):
        for k in range(3):
            for i in range(4):
                for j in range(5):
                    chunk = latents[b, i, j, 4 * k : 4 * k + 4]
                    scores = [F.cosine_similarity(chunk, code, dim=0).item() for code in quantizer.codebooks[k]]
                    assert codes[b, k, i, j] == scores.index(max(scores))


def test_dequantized_latents_are_unit_code_vectors_and_quantize_back(quantizer: MultiCodebookQuantizer) -> None:
    codes = torch.randint(20, (2, 3, 4, 5))
    latents = quantizer.dequantize(codes)
    for b, k, i, j in [(0, 0, 0, 0), (1, 2, 3, 4), (1, 1, 0, 3)]:
        row = quantizer.codebooks[k, codes[b, k, i, j]]
        torch.testing.assert_close(latents[b, i, j, 4 * k : 4 * k + 4], row / row.norm())
    assert torch.equal(quantizer.quantize(latents), codes)


def test_the_first_of_equal_codes_wins(quantizer: MultiCodebookQuantizer) -> None:
    with torch.no_grad():
        quantizer.codebooks[:, 10:] = quantizer.codebooks[:, :10]
    assert quantizer.quantize(torch.randn(2, 8, 8, 12)).max() < 10


def test_training_sees_the_codes_and_a_gradient_through_the_normalised_latent(
    quantizer: MultiCodebookQuantizer,
) -> None:
    latents = torch.randn(1, 2, 3, 12, dtype=torch.float64).float().requires_grad_()
    out = quantizer(latents)
    assert torch.equal(out.codes, quantizer.quantize(latents))
    torch.testing.assert_close(out.latents, quantizer.dequantize(out.codes))
    cotangent = torch.randn_like(latents)
    (ours,) = torch.autograd.grad(out.latents, latents, cotangent)
    normalised = F.normalize(latents.unflatten(-1, (3, 4)), dim=-1).flatten(-2)
    (theirs,) = torch.autograd.grad(normalised, latents, cotangent)
    torch.testing.assert_close(ours, theirs)


def test_losses_are_their_formulas(quantizer: MultiCodebookQuantizer) -> None:
    latents = torch.randn(2, 4, 5, 12)
    out = quantizer(latents)
    chunks = F.normalize(latents.unflatten(-1, (3, 4)), dim=-1).flatten(0, 2)
    books = F.normalize(quantizer.codebooks, dim=-1)
    losses, entropies = [], []
    for k in range(3):
        distance = torch.cdist(chunks[:, k], books[k]).square()
        losses.append(1.25 * distance.min(1).values.mean() / 4)
        p = (-distance / 0.01).softmax(1)
        mean = p.mean(0)
        entropies.append(-(p * torch.log(p + 1e-20)).sum(1).mean() + (mean * torch.log(mean + 1e-7)).sum())
    torch.testing.assert_close(out.loss, torch.stack(losses).mean(), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(out.entropy_loss, torch.stack(entropies).mean(), rtol=1e-4, atol=1e-5)


def test_without_the_entropy_term_its_loss_is_zero() -> None:
    out = MultiCodebookQuantizer(2, 8, 8)(torch.randn(1, 2, 2, 8))
    assert out.entropy_loss == 0


def test_a_bfloat16_latent_meets_a_float32_quantizer() -> None:
    quantizer = MultiCodebookQuantizer(2, 64, 16).bfloat16()
    assert quantizer.unit_codebooks.dtype == torch.float32
    codes = quantizer.quantize(torch.randn(1, 4, 4, 16, dtype=torch.bfloat16))
    assert quantizer.dequantize(codes).dtype == torch.float32


def test_widths_that_do_not_divide_are_refused() -> None:
    with pytest.raises(ValueError, match=r"latent_dim=16 .* num_codebooks=3"):
        MultiCodebookQuantizer(num_codebooks=3, latent_dim=16)


def test_one_image_dispatches_few_operators_and_no_score_tensor() -> None:
    quantizer, latents = MultiCodebookQuantizer().eval(), torch.randn(1, 16, 16, 64)
    quantizer.quantize(latents)
    with Dispatched() as seen:
        codes = quantizer.quantize(latents)
    assert seen.largest <= quantizer.codebooks.numel()  # tokens x K x V would be 32 times that
    assert seen.calls["linalg_vector_norm"] == 0  # the codebooks were normalised before
    assert seen.calls["mm"] == seen.calls["argmax"] == 8 * 16
    with torch.no_grad(), Dispatched() as seen:
        quantizer.dequantize(codes)
    assert seen.calls["linalg_vector_norm"] == 0


MEASURE = """
import torch
from unitok.quantizers import MultiCodebookQuantizer

def peak():  # of this process alone: ru_maxrss would be inherited from the one that started it
    return int(next(line for line in open("/proc/self/status") if "VmHWM" in line).split()[1]) * 1024

quantizer = MultiCodebookQuantizer(8, 4096, 64).eval()
quantizer.quantize(torch.randn(1, 4, 4, 64))
latents = torch.randn(64, 16, 16, 64)
open("/proc/self/clear_refs", "w").write("5")  # the peak starts again at what is resident now
before = peak()
codes = {quantize}
print(peak() - before)
"""


def peak_bytes(quantize: str) -> int:
    program = MEASURE.format(quantize=quantize)
    return int(subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_16384_tokens_need_less_than_80_mb() -> None:
    assert peak_bytes("quantizer.quantize(latents)") < 80e6


@pytest.mark.slow
def test_the_measure_of_memory_sees_a_score_matrix() -> None:
    assert peak_bytes("(latents.view(-1, 64)[:, :8] @ quantizer.unit_codebooks[0].T).argmax(-1)") > 200e6
