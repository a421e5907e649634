"""Speed of UniTok-Large's walk on this machine: up-convolutions against their plain form, bfloat16 against float32.

Weights follow the fixtures' fill rule: speed does not depend on them, shares of equal codes do (random weights are
the worst case, so `unitok_tiny` is asked too). CPU seconds of this process, so that other work on the machine does not
count; for the same reason threads must not spin while they wait: `OMP_WAIT_POLICY=passive python benchmarks/walk.py`.
"""

import copy
import sys
import time
import warnings
from pathlib import Path

import skimage.data
import torch
from timing import interleave, write_result
from torch import Tensor

import unitok
from unitok.layers import UpsampleConv
from unitok.losses.reconstruction import psnr
from unitok.tokenizer import Tokenizer

sys.path.append(str(Path(__file__).parents[1] / "tests" / "parity"))
from unitok_weights import filled, golden

DATA = "one 256 x 256 image, UniTok-Large with weights of the fill rule"
PROTOCOL = "process CPU seconds, OMP_WAIT_POLICY=passive, batch 1, interleaved"
PHOTOS = ("astronaut", "chelsea", "coffee", "rocket", "immunohistochemistry")
CPU = Path("/proc/cpuinfo").read_text()


def plain_form(tokenizer: Tokenizer) -> Tokenizer:
    """The same weights, up-convolutions computed as they are written down."""
    tokenizer = copy.copy(tokenizer)
    tokenizer._modules = {**tokenizer._modules, "decoder": copy.deepcopy(tokenizer.decoder)}
    for module in tokenizer.decoder.modules():
        if isinstance(module, UpsampleConv):
            module.sub_pixel = False
    return tokenizer


def main() -> None:
    torch.set_num_threads(2)  # with one, torch computes 1x1 convolutions of a single image without oneDNN
    images = golden("large", "golden.safetensors")["image_u8"][:1].permute(0, 3, 1, 2).float() / 255
    exact = filled("large")
    exact.contrast = None
    float32(exact, images)
    if "bf16" in CPU:
        bfloat16(exact, images)
    else:
        print("bfloat16: not measured, this CPU has no instructions for it")


def float32(exact: Tokenizer, images: Tensor) -> None:
    """results/walk.json: the plain up-convolutions against ours."""
    plain, codes = plain_form(exact), exact.encode(images)
    tokens, blocks = exact.features(codes).detach().flatten(1, 2), torch.no_grad()(exact.decoder.blocks)
    kept: dict[str, Tensor] = {}
    seconds = interleave(
        {
            "encode": lambda: exact.encode(images),
            "decoder blocks": lambda: blocks(tokens),
            "decode plain": lambda: kept.update(plain=plain.decode(codes)),
            "decode": lambda: kept.update(ours=exact.decode(codes)),
        },
        repeats=9,
        clock=time.process_time,
    )
    stack = seconds["decoder blocks"]
    figures = {
        "seconds": {name: round(value, 3) for name, value in seconds.items()},
        "decode, plain / ours": seconds["decode plain"] / seconds["decode"],
        "up-path alone (without the blocks), plain / ours": (seconds["decode plain"] - stack)
        / (seconds["decode"] - stack),
        "largest pixel difference, plain and ours": (kept["plain"] - kept["ours"]).abs().max().item(),
        "unitok_tiny in bfloat16, on five photos of scikit-image": trained(),
    }
    write_result("walk", figures, data=DATA, protocol=f"{PROTOCOL}, median of 9 after a warm-up")


def trained() -> dict[str, float]:
    """What bfloat16 does to codes and photos of trained weights; any CPU can tell, fast or not."""
    photos = [getattr(skimage.data, name)() for name in PHOTOS]
    images = unitok.read_images(photos, size=256)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of a CPU that is slow in it
        exact, half = unitok.load_tokenizer(), unitok.load_tokenizer(dtype=torch.bfloat16)
    codes, codes16 = exact.encode(images), half.encode(images)
    return {
        "codes equal": (codes == codes16).float().mean().item(),
        "PSNR in float32, dB": psnr(exact.decode(codes), images).item(),
        "PSNR in bfloat16, dB": psnr(half.decode(codes16), images).item(),
    }


def bfloat16(exact: Tokenizer, images: Tensor) -> None:
    """results/walk_bfloat16.json: half the bits against float32."""
    half = copy.deepcopy(exact).bfloat16()
    plain, plain_half, codes = plain_form(exact), plain_form(half), exact.encode(images)
    kept: dict[str, Tensor] = {}
    seconds = interleave(
        {
            "encode float32": lambda: kept.update(codes=exact.encode(images)),
            "encode bfloat16": lambda: kept.update(codes16=half.encode(images)),
            "decode float32 plain": lambda: plain.decode(codes),
            "decode float32": lambda: kept.update(rec=exact.decode(codes)),
            "decode bfloat16 plain": lambda: plain_half.decode(codes),
            "decode bfloat16": lambda: kept.update(rec16=half.decode(codes)),
        },
        repeats=9,
        clock=time.process_time,
    )
    figures = {
        "this CPU has matrix units for bfloat16": "amx_bf16" in CPU,
        "seconds": {name: round(value, 3) for name, value in seconds.items()},
        "encode, float32 / bfloat16": seconds["encode float32"] / seconds["encode bfloat16"],
        "decode, float32 / bfloat16": seconds["decode float32"] / seconds["decode bfloat16"],
        "decode, float32 plain / bfloat16": seconds["decode float32 plain"] / seconds["decode bfloat16"],
        "decode in bfloat16, plain / ours": seconds["decode bfloat16 plain"] / seconds["decode bfloat16"],
        "codes equal in bfloat16": (kept["codes16"] == kept["codes"]).float().mean().item(),
        "pixel difference of bfloat16, mean": (kept["rec"] - kept["rec16"]).abs().mean().item(),
        "bfloat16 / float32 matrix product of 2048^3": product_ratio(),
    }
    write_result("walk_bfloat16", figures, data=DATA, protocol=f"{PROTOCOL}, median of 9 after a warm-up")


def product_ratio() -> float:
    """How much faster this CPU multiplies bfloat16 matrices: the ceiling of the ratios above."""
    a = torch.randn(2048, 2048)
    b = a.bfloat16()
    seconds = interleave({"float32": lambda: a @ a, "bfloat16": lambda: b @ b}, clock=time.process_time)
    return seconds["float32"] / seconds["bfloat16"]


if __name__ == "__main__":
    main()
