"""How fast: encode, decode and round trip, by batch size and dtype, interleaved with another tokenizer where asked."""

import platform
import resource
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from unitok.evaluation.protocol import Protocol
from unitok.evaluation.ranks import Run, join
from unitok.evaluation.report import device_name, make_report, print_report, write_report
from unitok.evaluation.rivals import DTYPES, display_name, open_model

Variant = Callable[[], Any]


def speed(
    tokenizer: str = "unitok_tiny",
    against: str | None = None,
    output: Path | None = None,
    batch_sizes: list[int] = [1, 8],  # noqa: B006 - read only; jsonargparse shows it in the help
    dtypes: list[str] = ["float32"],  # noqa: B006
    size: int | None = None,
    repeats: int = 10,
    warmup: int = 2,
    device: str | None = None,
) -> None:
    """Images per second and latency of encode, decode and both, peak memory, parameters, GFLOPs, equal codes.

    With --against, both are timed in turn, A B A B, in one process, so that a busy machine slows both alike; the ratio
    of medians is the figure to quote. Noise images: a tokenizer's speed does not depend on what they show, a codec's
    (JPEG, WebP) does.

    Args:
        tokenizer: a name, folder, file or "owner/name", or a rival.
        against: another.
        output: the JSON. None prints only.
        batch_sizes: images at once.
        dtypes: of the weights: float32, bfloat16, float16.
        size: side of the images; None takes the tokenizer's image_size.
        repeats: timed runs of each variant.
        warmup: runs before them.
        device: cpu, cuda, ...
    """
    ranks = join(device)
    if repeats < 1 or not batch_sizes or min(batch_sizes) < 1:
        raise ValueError(f"repeats={repeats} and batch_sizes={batch_sizes} must be at least 1")
    if unknown := [dtype for dtype in dtypes if dtype not in DTYPES]:
        raise ValueError(f"dtypes={unknown} are not among {list(DTYPES)}")
    names = [tokenizer] if against is None else [tokenizer, against]
    models = {
        (name, dtype): open_model(name, DTYPES[dtype], ranks.device)
        for name in dict.fromkeys(names)
        for dtype in dtypes
    }
    side = size or models[tokenizer, dtypes[0]].image_size
    figures = measure(models, batch_sizes, side, repeats, warmup, ranks.device)
    details = {"side": side, "batch_sizes": batch_sizes, "dtypes": dtypes, "repeats": repeats, "against": against}
    details["device"] = device_name(ranks.device)
    protocol = Protocol("speed", "noise, seed 0", max(batch_sizes), None, "none", side, "none", {}, details)
    report = make_report(
        display_name(tokenizer), models[tokenizer, dtypes[0]], protocol, figures, Run(ranks, dtype=DTYPES[dtypes[0]])
    )
    if ranks.first:
        print_report(report)
        for row in figures["rows"]:
            print("  " + "  ".join(f"{key}={_short(value)}" for key, value in row.items()))
        if output is not None:
            write_report(report, output)


def measure(
    models: dict[tuple[str, str], Any],
    batch_sizes: list[int],
    side: int,
    repeats: int,
    warmup: int,
    device: torch.device,
) -> dict[str, Any]:
    """{(name, dtype): model} -> {"rows": one of each model, dtype, batch size and walk; ...}.

    Args:
        models: opened, on the device; the first is the one whose sizes are told.
        batch_sizes: images at once.
        side: of the images.
        repeats: timed runs.
        warmup: runs before them.
        device: where they are.
    """
    generator = torch.Generator().manual_seed(0)
    first = next(iter(models.values()))
    rows: list[dict[str, Any]] = []
    for batch_size in batch_sizes:
        images = torch.rand(batch_size, 3, side, side, generator=generator).to(device)
        stored = {key: _encode(model, images) for key, model in models.items()}
        for walk in ("encode", "decode", "round_trip"):
            variants = {key: _walk(walk, model, images, stored[key]) for key, model in models.items()}
            times = interleave(variants, repeats, warmup, device)
            for key, variant in variants.items():
                seconds = times[key]
                row = {"tokenizer": key[0], "dtype": key[1], "batch_size": batch_size, "walk": walk}
                rows.append(row | summary(seconds, batch_size) | {"peak_mb": peak_memory(variant, device)})
    figures: dict[str, Any] = {
        "parameters": sum(p.numel() for p in first.parameters()) if isinstance(first, nn.Module) else 0,
        "encode_gflops": gflops(lambda: first.encode(images[:1])),
        "decode_gflops": gflops(_walk("decode", first, images[:1], _encode(first, images[:1]))),
        "rows": rows,
    }
    return figures | _equal_codes(models, stored)


def interleave(
    variants: dict[tuple[str, str], Variant], repeats: int, warmup: int, device: torch.device
) -> dict[tuple[str, str], list[float]]:
    """Wall seconds of each run of each variant, run A B A B ..."""
    times: dict[tuple[str, str], list[float]] = {key: [] for key in variants}
    for turn in range(warmup + repeats):
        for key, variant in variants.items():
            _synchronize(device)
            start = time.perf_counter()
            variant()
            _synchronize(device)
            if turn >= warmup:
                times[key].append(time.perf_counter() - start)
    return times


def summary(seconds: list[float], batch_size: int) -> dict[str, float]:
    """Seconds of each run -> images per second by the median, and latency of a batch in milliseconds."""
    ordered = sorted(seconds)
    p95 = ordered[min(len(ordered) - 1, round(0.95 * (len(ordered) - 1)))]
    median = statistics.median(ordered)
    return {"images_per_second": batch_size / median, "p50_ms": 1000 * median, "p95_ms": 1000 * p95}


def gflops(run: Variant) -> float:
    """Multiply-adds count two. What torch cannot count (a codec, a custom kernel) counts zero."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        run()
    return float(counter.get_total_flops()) / 1e9


def peak_memory(variant: Variant, device: torch.device) -> float:
    """MB: of the device during one run on CUDA; of the whole process so far elsewhere, which only ever grows."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        variant()
        _synchronize(device)
        return torch.cuda.max_memory_allocated(device) / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e6 if platform.system() == "Darwin" else 1e3)


def _walk(walk: str, model: Any, images: Tensor, stored: Any) -> Variant:
    @torch.no_grad()
    def run() -> Any:
        return model.decode(stored if walk == "decode" else model.encode(images))

    return (lambda: _encode(model, images)) if walk == "encode" else run


@torch.no_grad()
def _encode(model: Any, images: Tensor) -> Any:
    return model.encode(images)


def _equal_codes(models: dict[tuple[str, str], Any], stored: dict[tuple[str, str], Any]) -> dict[str, float]:
    """The share of codes that are those of float32, for each other dtype of each discrete tokenizer."""
    shares = {}
    for (name, dtype), codes in stored.items():
        exact = stored.get((name, "float32"))
        if dtype != "float32" and isinstance(codes, Tensor) and exact is not None and not codes.is_floating_point():
            shares[f"equal_codes {name} {dtype}"] = float((codes == exact).double().mean())
    return shares


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
