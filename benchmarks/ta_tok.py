"""TA-Tok's quantizer and features at the published size, against their straightforward form, in one run.

    python benchmarks/ta_tok.py

Random weights and latents; 729 tokens, 65,536 codes of 1,536 channels. Latents are taken twice: drawn at random (the
worst case: codes are far and nearly alike), and near codes, as those of a trained tokenizer are.
"""

import argparse
import multiprocessing
import time
from typing import Any

import torch
from timing import interleave, peak_bytes, write_result

from unitok.decoders import ScaleAdaptiveDecoder
from unitok.quantizers import TextAlignedQuantizer

FORMS: dict[str, dict[str, Any]] = {
    "straightforward": {"straightforward": True},
    "exact": {"search": "exact"},
    "scan": {"search": "scan"},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--codes", type=int, default=65536)
    options = parser.parse_args()
    torch.set_num_threads(1)
    context = multiprocessing.get_context("spawn")
    figures: dict[str, Any] = {}
    with context.Pool(1) as pool:
        figures["quantize"] = pool.apply(quantize, (options.codes, options.repeats))
    with context.Pool(1) as pool:
        figures["features"] = pool.apply(features, (options.codes, options.repeats))
    figures["quantize_peak_extra_mb"] = {}
    for form in FORMS:
        with context.Pool(1) as pool:
            figures["quantize_peak_extra_mb"][form] = pool.apply(peak_memory, (options.codes, form))
    write_result(
        "ta_tok_quantizer",
        figures,
        data="random weights and latents, seed 0",
        protocol="medians of the process's CPU seconds over interleaved runs, one thread; ratios are straightforward / "
        "form; memory is the tensors that stand at once during the second call, after the codebook was projected",
    )


@torch.no_grad()
def quantize(codes: int, repeats: int) -> dict[str, Any]:
    torch.set_num_threads(1)
    quantizer, latents = build(codes)
    answers: dict[str, Any] = {}
    for kind, batch in latents.items():
        seconds = interleave(
            {form: lambda f=form, b=batch: run(quantizer, f, b) for form in FORMS}, repeats, clock=time.process_time
        )
        found = {form: run(quantizer, form, batch) for form in FORMS}
        answers[kind] = {
            "seconds": seconds,
            "speedup": {form: seconds["straightforward"] / value for form, value in seconds.items()},
            "equal_codes": {form: (found[form] == found["exact"]).float().mean().item() for form in FORMS},
        }
    return answers


@torch.no_grad()
def features(codes: int, repeats: int) -> dict[str, Any]:
    torch.set_num_threads(1)
    quantizer, _ = build(codes)
    decoder = ScaleAdaptiveDecoder().eval()
    grid = torch.randint(codes, (1, 1, 27, 27), generator=torch.Generator().manual_seed(1))

    def walk(straightforward: bool) -> torch.Tensor:
        quantizer.straightforward = straightforward
        return decoder(quantizer.dequantize(grid))

    seconds = interleave(
        {"straightforward": lambda: walk(True), "rows used": lambda: walk(False)}, repeats, clock=time.process_time
    )
    return {
        "seconds": seconds,
        "speedup": seconds["straightforward"] / seconds["rows used"],
        "largest_difference": (walk(True) - walk(False)).abs().max().item(),
    }


@torch.no_grad()
def peak_memory(codes: int, form: str) -> float:
    """Megabytes of tensors that a call holds at once, its codebook projected before."""
    quantizer, latents = build(codes)
    run(quantizer, form, latents["near codes"])
    return peak_bytes(lambda: run(quantizer, form, latents["near codes"])) / 1e6


def build(codes: int) -> tuple[TextAlignedQuantizer, dict[str, torch.Tensor]]:
    torch.manual_seed(0)
    quantizer = TextAlignedQuantizer(codes, 1536).eval()
    near = quantizer.dequantize(torch.randint(codes, (1, 1, 27, 27))).detach()
    noise = torch.randn(1, 27, 27, 1536) / 1536**0.5
    return quantizer, {"near codes": near + noise, "random": noise}


def run(quantizer: TextAlignedQuantizer, form: str, latents: torch.Tensor) -> torch.Tensor:
    quantizer.straightforward, quantizer.search = False, "exact"
    for name, value in FORMS[form].items():
        setattr(quantizer, name, value)
    return quantizer.quantize(latents)


if __name__ == "__main__":
    main()
