"""What the glue to language models costs: codes <-> ids, the depth head, and generation of images.

OMP_NUM_THREADS=1 python benchmarks/mllm.py [--grid 16] [--dim 256] [--depth 4] [--repeats 5]
"""

import argparse
import os
import time
from functools import partial

import torch
from timing import interleave, write_result

from unitok.decoders.sampling import Sampling
from unitok.mllm import (
    DepthHead,
    Prompt,
    VisualLanguageModel,
    VisualVocabulary,
    expand_vocabulary,
    generate_codes,
)
from unitok.mllm.code_embedding import CodeEmbedding
from unitok.mllm.scratch import learn_words, qwen2

BOOKS, SIZE = 8, 4096  # of UniTok
CLOCK = time.perf_counter if torch.cuda.is_available() else time.process_time  # one thread: whoever else computes


def mapping(repeats: int) -> dict[str, float]:
    """Codes per second there and back, of 64 images of 16 x 16 tokens."""
    words = VisualVocabulary(learn_words(["a dog"], 300), BOOKS, SIZE)
    codes = torch.randint(SIZE, (64, BOOKS, 16, 16))
    ids = words.to_ids(codes)
    line = ids.flatten()
    variants = {"to_ids": partial(words.to_ids, codes), "to_codes": partial(words.to_codes, line)}
    seconds = interleave(variants, repeats, clock=CLOCK)
    return {name: round(codes.numel() / value) for name, value in seconds.items()}


def heads(dim: int, repeats: int, device: str) -> dict[str, dict[str, float]]:
    """Codes per second of a depth head over 1 and 64 positions, with its cache and without."""
    head = DepthHead(dim, BOOKS, SIZE, 256, 3, 4).to(device).eval()
    figures = {}
    for count in (1, 64):
        states = torch.randn(count, dim, device=device)
        variants = {name: partial(head.sample, states, cached=name == "cached") for name in ("cached", "recomputed")}
        seconds = interleave(variants, repeats, clock=CLOCK)
        figures[f"positions_{count}"] = {name: round(count * BOOKS / value, 1) for name, value in seconds.items()}
    return figures


def model_of(packed: bool, dim: int, depth: int, device: str) -> VisualLanguageModel:
    words = learn_words(["a dog"], 300)
    books, size = (BOOKS, SIZE) if packed else (1, 65536)
    vocabulary = VisualVocabulary(words, books, size, packed=packed)
    model = qwen2(words, dim, depth, 4)
    expand_vocabulary(model, vocabulary)
    parts = (CodeEmbedding(torch.randn(books, size, 8), dim), DepthHead(dim, books, size, 256, 3, 4)) if packed else ()
    return VisualLanguageModel(model, vocabulary, *parts).to(device).eval()


def generation(options: argparse.Namespace, device: str) -> dict[str, dict[str, float]]:
    """Image tokens per second: 65,536 words of TA-Tok's size, and 8 codes in a position; cache against none."""
    figures: dict[str, dict[str, float]] = {}
    for packed in (False, True):
        model = model_of(packed, options.dim, options.depth, device)
        for batch in (1, 8):
            ids = torch.randint(256, (batch, 12), device=device)
            rows = ids.new_zeros(batch, 12, BOOKS) if packed else None
            prompt, grid = Prompt(ids, torch.ones_like(ids), rows), (options.grid, options.grid)
            variants = {
                name: partial(generate_codes, model, prompt, grid, Sampling(), cached=name == "cached")
                for name in ("cached", "recomputed")
            }
            seconds = interleave(variants, options.slow_repeats, warmup=0, clock=CLOCK)
            kind = "packed_8x4096" if packed else "words_65536"
            figures[f"{kind}_batch_{batch}"] = {
                name: round(batch * options.grid**2 / value, 1) for name, value in seconds.items()
            }
    return figures


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--grid", type=int, default=8, help="side of the generated grids")
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--depth", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--slow-repeats", type=int, default=3)
    options = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    load = os.getloadavg()[0]
    torch.manual_seed(0)
    figures: dict[str, object] = {}
    for name, measure in {
        "codes_per_second": partial(mapping, options.repeats),
        "depth_head_codes_per_second": partial(heads, options.dim, options.repeats, device),
        "generation_tokens_per_second": partial(generation, options, device),
    }.items():
        figures[name] = measure()
        print(name, figures[name], flush=True)
    write_result(
        f"mllm_{device}",
        figures,
        protocol={
            **vars(options),
            "dtype": "float32",
            "load_average_before": round(load, 1),
            "what": "random weights; recomputed runs everything anew for each code or token, as without a cache; "
            "medians, interleaved; on a CPU seconds of the process, with one thread",
        },
    )


if __name__ == "__main__":
    main()
