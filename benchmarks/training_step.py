"""The training step: sub-pixel against plain decoder, one-pass against two-pass adaptive weight.

python benchmarks/training_step.py [--repeats 5] [--batch 4] [--size 128]

The tiny size under L1, L2, a MobileNetV2 distance (random weights: the time is the same) and a PatchGAN; Large with
VGG-16 and DINOv2 ViT-S beside it, one image, forward and backward without an optimizer's step, and its FLOPs. Where
CUDA is, Large's whole step too: images/s, share of the peak and peak memory at the largest batch that fits, with and
without checkpointing of the blocks.
"""

import argparse
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest import mock

import timm
import torch
import torchvision
from safetensors.torch import save_file
from timing import interleave, peak_bytes, write_result
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from unitok.layers import Blocks, UpsampleConv
from unitok.losses.adversarial import adaptive_weight, generator_loss
from unitok.losses.discriminators import PatchDiscriminator
from unitok.losses.perceptual import FeatureDistance
from unitok.models.unitok import unitok, unitok_tiny
from unitok.tokenizer import Tokenizer
from unitok.training.adversary import Adversary, Moment, pull

MOMENT, STILL = Moment(True, 1.0, 0.0), Adversary(augmentation=-1.0)
PEAK_FLOPS = {"H200": 989e12, "H100": 989e12, "A100": 312e12}  # dense bfloat16, from the vendor's data sheets


def one_pass(tokenizer: Tokenizer, images: Tensor, distance: Any, judge: Any) -> None:
    """The library's form: each network is gone through once."""
    made = tokenizer(images).images
    leaf = made.detach().requires_grad_()
    last = tokenizer.decoder.last_layer
    pulled = pull(pixels(leaf, images, distance), leaf, made, judge, last, STILL, MOMENT, 0.4, lambda tensor: tensor)
    (made * pulled.gradient).sum().backward()


def two_pass(tokenizer: Tokenizer, images: Tensor, distance: Any, judge: Any) -> None:
    """The usual form: autograd asked for the last layer's gradient of either loss, and then for everything."""
    made = tokenizer(images).images
    near, fool = pixels(made, images, distance), generator_loss(judge(2 * made - 1))
    last = tokenizer.decoder.last_layer
    norms = [torch.autograd.grad(loss, last, retain_graph=True)[0] for loss in (near, fool)]
    (near + 0.4 * adaptive_weight(norms[0], norms[1], 0.015, 1e4) * fool).backward()


def pixels(made: Tensor, images: Tensor, distance: Any) -> Tensor:
    difference = 2 * (made - images)
    return 0.2 * difference.abs().mean() + difference.square().mean() + distance(made, images)


def variants(tokenizer: Tokenizer, images: Tensor, distance: Any, judge: Any) -> dict[str, Any]:
    def run(step: Any, sub_pixel: bool) -> None:
        UpsampleConv.sub_pixel = sub_pixel
        tokenizer.zero_grad()
        step(tokenizer, images, distance, judge)
        UpsampleConv.sub_pixel = True

    return {
        "one_pass_sub_pixel": lambda: run(one_pass, True),
        "one_pass_plain": lambda: run(one_pass, False),
        "two_pass_sub_pixel": lambda: run(two_pass, True),
        "two_pass_plain": lambda: run(two_pass, False),
    }


def kept_bytes(run: Any) -> int:
    """Bytes of all tensors that autograd kept for the backward pass, each storage once."""
    storages: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        run()
    return sum(storages.values())


def count_flops(run: Any) -> int:
    with Counting() as counter:
        run()
    return counter.total


class Counting(TorchDispatchMode):
    """FLOPs by torch's formulas; torch's own counter cannot follow `autograd.grad` to a leaf."""

    total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        formula = flop_registry.get(func._overloadpacket)
        if formula is not None:
            self.total += formula(*args, **(kwargs or {}), out_val=result)
        return result


class Vgg(nn.Module):
    """The cost of LPIPS: VGG-16 of both images, the real one without gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.features = torchvision.models.vgg16().features.requires_grad_(False)

    def forward(self, made: Tensor, images: Tensor) -> Tensor:
        return (self.features(made) - self.features(images)).square().mean()


class Dino(nn.Module):
    """The cost of the frozen trunk of the discriminator."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = timm.create_model("vit_small_patch14_dinov2", img_size=252).requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        return self.trunk(images[:, :, :252, :252])


def large_flops() -> dict[str, float]:
    """TFLOP of forward and backward for one image of 256 x 256, with VGG-16 and DINOv2 ViT-S beside the tokenizer."""
    with torch.device("meta"):
        tokenizer, distance, judge = unitok("large"), Vgg(), Dino()
        images = torch.empty(1, 3, 256, 256)
    tokenizer.contrast = None
    runs = variants(tokenizer, images, distance, judge)
    with mock.patch.object(torch, "autocast", return_value=nullcontext()):  # autocast knows no meta device
        return {name: count_flops(run) / 1e12 for name, run in runs.items()}


def large() -> dict[str, dict[str, float]]:
    """Seconds and peak GiB of new tensors, gradients among them, for one image of 256 x 256."""
    torch.manual_seed(0)
    tokenizer = unitok("large")
    tokenizer.contrast = None
    runs = variants(tokenizer, torch.rand(1, 3, 256, 256), Vgg(), Dino())
    seconds = interleave(runs, repeats=3)
    tokenizer.zero_grad()
    return {"seconds": seconds, "peak_gib": {name: peak_bytes(run) / 2**30 for name, run in runs.items()}}


def tiny(batch: int, size: int, repeats: int) -> dict[str, Any]:
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mobilenet.safetensors"
        save_file(timm.create_model("mobilenetv2_100").state_dict(), path)
        distance = FeatureDistance("mobilenetv2_100", str(path), (0, 1, 2, 3))
    runs = variants(unitok_tiny(), torch.rand(batch, 3, size, size), distance, PatchDiscriminator(32, 2))
    kept = {name: kept_bytes(run) / 2**20 for name, run in runs.items()}
    return {"seconds": interleave(runs, repeats), "kept_activations_mib": kept}


def ratios(values: dict[str, float]) -> dict[str, float]:
    """How many times as much the other forms take as the library's."""
    return {name: round(value / values["one_pass_sub_pixel"], 3) for name, value in values.items()}


def large_on_gpu(seconds: float = 10.0) -> list[dict[str, Any]]:
    """Images/s, share of the peak and memory of a bf16-autocast step of Large at the largest batch that fits."""
    name = torch.cuda.get_device_name()
    peak = next((flops for key, flops in PEAK_FLOPS.items() if key in name), None)
    per_image = large_flops()["one_pass_sub_pixel"] * 1e12
    tokenizer, distance, judge = unitok("large").cuda(), Vgg().cuda(), Dino().cuda()
    optimizer = torch.optim.AdamW(tokenizer.parameters(), fused=True)
    found = []
    for checkpointing in (False, True):
        for module in tokenizer.modules():
            if isinstance(module, Blocks):
                module.checkpointing = checkpointing
        batch, fitted = 8, None
        while (result := _try(batch, tokenizer, distance, judge, optimizer, seconds)) is not None:
            fitted, batch = result, batch * 2
        if fitted is not None:
            share = fitted["images_per_second"] * per_image / peak if peak else None
            found.append({"checkpointing": checkpointing, "model_flop_utilisation": share, **fitted})
    return found


def _try(
    batch: int, tokenizer: Any, distance: Any, judge: Any, optimizer: Any, seconds: float
) -> dict[str, Any] | None:
    images = torch.rand(batch, 3, 256, 256, device="cuda")
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    try:
        steps, start = -2, 0.0
        while steps < 3 or time.perf_counter() - start < seconds:
            if steps == 0:
                torch.cuda.synchronize()
                start = time.perf_counter()
            with torch.autocast("cuda", torch.bfloat16):
                one_pass(tokenizer, images, distance, judge)
            optimizer.step()
            optimizer.zero_grad()
            torch.cuda.synchronize()
            steps += 1
    except torch.cuda.OutOfMemoryError:
        return None
    rate = batch * steps / (time.perf_counter() - start)
    return {"batch": batch, "images_per_second": rate, "peak_gib": torch.cuda.max_memory_allocated() / 2**30}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--size", type=int, default=128)
    words = parser.parse_args()
    flops, small, whole = large_flops(), tiny(words.batch, words.size, words.repeats), large()
    figures = {
        "tiny": {
            **small,
            "times_as_slow": ratios(small["seconds"]),
            "times_as_much_memory": ratios(small["kept_activations_mib"]),
        },
        "large": {
            **whole,
            "times_as_slow": ratios(whole["seconds"]),
            "times_as_much_memory": ratios(whole["peak_gib"]),
            "tflop_per_image": flops,
            "times_as_many_flops": ratios(flops),
        },
    }
    if torch.cuda.is_available():
        figures["large_on_gpu"] = large_on_gpu()
    protocol = (
        f"forward and backward, interleaved; tiny: batch {words.batch} at {words.size} px, median of {words.repeats}; "
        f"large: one image of 256 px, median of 3"
    )
    write_result("training_step", figures, protocol=protocol, data="random images")


if __name__ == "__main__":
    main()
