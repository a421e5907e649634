"""AR-DTok's tokens per second, one forward per code over a static cache against the whole sequence anew each time.

python benchmarks/ar_detokenizer.py [--size S] [--depth 4] [--batches 1 8] [--condition 81] [--codes 64] [--compiled]
"""

import argparse
import os
from functools import partial

import torch
from timing import interleave, write_result
from torch import Tensor, nn

from unitok.decoders import AutoregressiveDecoder
from unitok.decoders.prefix_transformer import PrefixTransformer
from unitok.models.ar_dtok import SIZES


class NoPixels(nn.Module):
    num_codebooks, codebook_size = 1, 16384


def sample(codes: dict[str, Tensor], name: str, decoder: AutoregressiveDecoder, features: Tensor) -> None:
    codes[name] = decoder.sample(features, torch.Generator().manual_seed(0))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", default="S", choices=SIZES)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--depth", type=int, help="blocks, where not those of the size")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--condition", type=int, default=81)
    parser.add_argument("--codes", type=int, default=64)
    parser.add_argument("--guidance", type=float, default=4.0)
    parser.add_argument("--compiled", action="store_true", help="time the compiled step of constant shapes too")
    options = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    load = os.getloadavg()[0]  # of a shared machine; ratios are of one run
    torch.manual_seed(0)
    depth, heads, dim = SIZES[options.size]
    depth = options.depth or depth
    transformer = PrefixTransformer(
        1152, 16384, options.codes, options.condition, dim=dim, depth=depth, num_heads=heads
    )
    nn.init.normal_(transformer.head.weight, std=0.02)
    figures = {}
    for batch in options.batches:
        features = torch.randn(batch, 1, options.condition, 1152, device=device)
        variants, codes = {}, {}
        for name in ("no_cache", "cache") + (("compiled",) if options.compiled else ()):
            decoder = AutoregressiveDecoder(
                transformer, NoPixels(), guidance=options.guidance, compiled=name == "compiled"
            )
            decoder.cached = name != "no_cache"
            decoder = decoder.to(device).eval()
            variants[name] = partial(sample, codes, name, decoder, features)
        seconds = interleave(variants, options.repeats, warmup=int(options.compiled))
        figures[f"batch_{batch}"] = {
            "tokens_per_second": {name: round(batch * options.codes / s, 2) for name, s in seconds.items()},
            "speedup_over_no_cache": {name: round(seconds["no_cache"] / s, 2) for name, s in seconds.items()},
            "share_of_equal_codes": {
                n: round(float((c == codes["no_cache"]).float().mean()), 4) for n, c in codes.items()
            },
        }
    write_result(
        f"ar_detokenizer_{device}",
        figures,
        protocol={
            **vars(options),
            "parameters": sum(p.numel() for p in transformer.parameters()),
            "dtype": "float32",
            "load_average_before": round(load, 1),
            "what": "sampled codes of a random transformer, prefill included, pixel decoder left out; no_cache is the "
            "straightforward form, which `AutoregressiveDecoder.cached = False` keeps; medians, interleaved",
        },
    )


if __name__ == "__main__":
    main()
