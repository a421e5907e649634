import copy
import pickle

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from unitok import layers
from unitok.layers import Derived, UpsampleConv, vitamin_blocks


def plain(conv: UpsampleConv, maps: torch.Tensor) -> torch.Tensor:
    return F.conv2d(F.interpolate(maps, scale_factor=2, mode="nearest"), conv.weight, conv.bias, padding=1)


@pytest.mark.parametrize("shape", [(2, 5, 4, 7), (1, 5, 1, 1), (1, 5, 3, 2)])
def test_upsample_conv_equals_upsampling_and_convolution_with_gradients(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    conv = UpsampleConv(5, 6).double()
    inputs = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    inputs[1].data = inputs[0].data.clone()
    outputs = [conv(inputs[0]), plain(conv, inputs[1])]
    torch.testing.assert_close(*outputs, atol=1e-12, rtol=0)
    cotangent = torch.randn_like(outputs[0])
    gradients = [
        torch.autograd.grad(y, [x, conv.weight, conv.bias], cotangent) for y, x in zip(outputs, inputs, strict=True)
    ]
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=0)


@pytest.mark.parametrize("shape", [(2, 5, 4, 7), (1, 5, 1, 1), (3, 5, 9, 2)])
@pytest.mark.parametrize("band", [1, 2500, 10**9], ids=["a row", "some rows", "all rows"])
@torch.no_grad()
def test_upsample_conv_by_differences_equals_upsampling_and_convolution(
    monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...], band: int
) -> None:
    torch.manual_seed(0)
    monkeypatch.setattr(layers, "_BAND", band)
    conv, maps = UpsampleConv(5, 6).double(), torch.randn(shape, dtype=torch.float64)
    for laid_out in (maps, maps.contiguous(memory_format=torch.channels_last)):
        torch.testing.assert_close(conv(laid_out), plain(conv, maps), atol=1e-12, rtol=0)
    assert conv(maps).is_contiguous(memory_format=torch.channels_last)
    conv.bias = None
    torch.testing.assert_close(conv(maps), plain(conv, maps), atol=1e-12, rtol=0)


@torch.no_grad()
def test_upsample_conv_multiplies_a_fourth_without_gradients_and_four_ninths_with_them() -> None:
    conv, maps, multiplied = UpsampleConv(8, 8), torch.randn(1, 8, 32, 32), {}
    for form, grad, sub_pixel in (("plain", False, False), ("differences", False, True), ("transposed", True, True)):
        conv.sub_pixel = sub_pixel
        with torch.set_grad_enabled(grad), FlopCounterMode(display=False) as counter:
            conv(maps)
        multiplied[form] = counter.get_total_flops()
    assert multiplied["transposed"] * 9 == multiplied["plain"] * 4
    border = 33 * 33 / (32 * 32)  # there is one difference more than there are pixels
    assert multiplied["plain"] < multiplied["differences"] * 4 < multiplied["plain"] * border


def test_the_switch_selects_the_plain_form() -> None:
    conv, maps = UpsampleConv(3, 4), torch.randn(1, 3, 5, 5)
    conv.sub_pixel = False
    assert torch.equal(conv(maps), plain(conv, maps))


@pytest.mark.parametrize("grad", [False, True])
def test_merged_taps_are_rounded_once_in_bfloat16(grad: bool) -> None:
    torch.manual_seed(0)
    conv, maps = UpsampleConv(16, 16).bfloat16(), torch.randn(1, 16, 8, 8, dtype=torch.bfloat16)
    exact = plain(copy.deepcopy(conv).double(), maps.double())
    with torch.set_grad_enabled(grad):
        made = conv(maps)
    assert (made.double() - exact).abs().max() < 0.02 * exact.abs().max()


@torch.no_grad()
def test_the_kept_kernel_follows_every_change_of_the_weights() -> None:
    conv, maps = UpsampleConv(3, 4), torch.randn(1, 3, 5, 5)

    def check() -> None:
        torch.testing.assert_close(conv(maps), plain(conv, maps))

    check()
    conv.load_state_dict({name: tensor * 2 for name, tensor in conv.state_dict().items()})
    check()
    conv.load_state_dict({name: tensor * 2 for name, tensor in conv.state_dict().items()}, assign=True)
    check()
    conv.weight.mul_(0.5)
    check()
    conv.bfloat16().float()  # may come back to the very address it had
    check()
    conv.weight.data = torch.randn_like(conv.weight)
    check()
    twin = copy.deepcopy(conv)
    twin.weight.zero_()
    check()
    assert twin(maps).var(dim=(2, 3)).max() < 1e-12


def test_the_kept_kernel_follows_an_optimizer() -> None:
    conv, maps = UpsampleConv(3, 4), torch.randn(1, 3, 5, 5)
    optimizer = torch.optim.AdamW(conv.parameters(), lr=0.1)
    for _ in range(2):
        conv(maps).square().mean().backward()
        optimizer.step()
        with torch.no_grad():
            torch.testing.assert_close(conv(maps), plain(conv, maps))


def test_derived_computes_once_while_nothing_changes_and_never_keeps_a_graph() -> None:
    calls = []

    def double(weight: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        return weight * 2

    derived, weight = Derived(double), nn.Parameter(torch.ones(3))
    with torch.no_grad():
        assert derived(weight) is derived(weight)
    assert len(calls) == 1
    assert derived(weight).requires_grad
    with torch.no_grad():
        assert not derived(weight).requires_grad


def test_a_module_with_a_kept_kernel_can_be_pickled() -> None:
    conv, maps = UpsampleConv(3, 4), torch.randn(1, 3, 5, 5)
    with torch.no_grad():
        expected = conv(maps)
        assert torch.equal(pickle.loads(pickle.dumps(conv))(maps), expected)


def test_blocks_give_equal_gradients_with_checkpointing() -> None:
    torch.manual_seed(0)
    blocks, tokens = vitamin_blocks(16, 2, 2).train(), torch.randn(2, 5, 16)
    gradients = []
    for blocks.checkpointing in (False, True):
        blocks.zero_grad()
        blocks(tokens).square().sum().backward()
        gradients.append([p.grad for p in blocks.parameters()])
    torch.testing.assert_close(*gradients)


def test_drop_path_grows_linearly_from_zero() -> None:
    rates = [getattr(block.drop_path1, "drop_prob", 0.0) for block in vitamin_blocks(16, 5, 2, drop_path=0.2)]
    assert rates == pytest.approx([0, 0.05, 0.1, 0.15, 0.2])
