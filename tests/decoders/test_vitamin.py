import pytest
import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode
from unitok_weights import load_json

from unitok.decoders.vitamin import InvertedBottleneck, ViTaminDecoder
from unitok.layers import UpsampleConv
from unitok.models.unitok import SIZES


def large() -> ViTaminDecoder:
    widths, depth, heads = SIZES["large"]
    with torch.device("meta"):
        return ViTaminDecoder(widths, (2, 4), depth, heads).eval()


def gigaflops(decoder: ViTaminDecoder, sub_pixel: bool) -> float:
    for module in decoder.modules():
        if isinstance(module, UpsampleConv):
            module.sub_pixel = sub_pixel
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        decoder(torch.empty(1, 16, 16, 1024, device="meta"))
    return counter.get_total_flops() / 1e9


def test_the_sub_pixel_form_removes_166_9_of_512_6_gigaflops() -> None:
    decoder = large()
    expected = load_json("flops_large.json")["gflops_2xMAC_batch1"]["decoder_total"]
    assert gigaflops(decoder, sub_pixel=False) == pytest.approx(expected, rel=1e-3)
    assert gigaflops(decoder, sub_pixel=True) == pytest.approx(expected - 166.9, rel=1e-3)


def test_parameter_counts_of_the_large_decoder() -> None:
    decoder, expected = large(), load_json("flops_large.json")["params"]
    ours = {
        "blocks": decoder.blocks,
        "norm": decoder.norm,
        "up_conv1": decoder.up1,
        "up_conv2": decoder.up2,
        "up_conv3": decoder.up3,
    }
    for name, module in ours.items():
        assert sum(p.numel() for p in module.parameters()) == expected[name], name
    last = [*decoder.up4.parameters(), *decoder.out_norm.parameters(), *decoder.out_conv.parameters()]
    assert sum(p.numel() for p in last) == expected["up_conv4"]


@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 5), (4, 1)])
def test_images_are_16_times_the_grid(height: int, width: int) -> None:
    decoder = ViTaminDecoder((8, 16, 32), (1, 1), depth=1, num_heads=2)
    assert decoder(torch.randn(2, height, width, 32)).shape == (2, 3, 16 * height, 16 * width)


def test_channels_stay_last_in_memory_all_the_way_up() -> None:
    decoder = ViTaminDecoder((8, 16, 32), (2, 2), depth=1, num_heads=2).eval()
    layouts = []
    for module in (decoder.up1, *decoder.up2, *decoder.up3, decoder.up4, decoder.out_norm):
        module.register_forward_hook(
            lambda module, args, out: layouts.append(out.is_contiguous(memory_format=torch.channels_last))
        )
    with torch.no_grad():
        decoder(torch.randn(2, 3, 2, 32))
    assert layouts == [True] * 7


def test_an_upsampling_bottleneck_is_its_formula() -> None:
    torch.manual_seed(0)
    block, maps = InvertedBottleneck(8, 4, upsample=True), torch.randn(1, 8, 3, 5)
    mean, variance = maps.mean(1, keepdim=True), maps.var(1, keepdim=True, unbiased=False)
    wide = F.gelu(block.conv1_1x1((maps - mean) / (variance + 1e-6).sqrt()))
    wide = F.conv2d(F.interpolate(wide, scale_factor=2), block.up.weight, block.up.bias, padding=1)
    out = block.conv3_1x1(F.gelu(block.conv2_kxk(wide)))
    short = F.conv2d(F.interpolate(maps, scale_factor=2), block.shortcut.weight, block.shortcut.bias, padding=1)
    torch.testing.assert_close(block(maps), out + short, atol=1e-5, rtol=1e-4)


def test_the_last_layer_is_the_last_convolution() -> None:
    decoder = ViTaminDecoder((8, 16, 32), (1, 1), depth=1, num_heads=2)
    assert decoder.last_layer.shape == (3, 8, 3, 3)
