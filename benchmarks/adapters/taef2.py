"""A worked example of a continuous adapter: TAEF2 of ../shared/data/weights/taef2, f8, 32 channels.

unitok eval reconstruction --tokenizer benchmarks/adapters/taef2.py@../shared/data/weights/taef2 --data PHOTOS
"""

from pathlib import Path

import torch
from torch import Tensor, nn


class Block(nn.Module):
    """Three 3x3 convolutions around a skip; at the lowest resolution also a branch that sees the whole image."""

    def __init__(self, pool: bool = False, width: int = 64) -> None:
        super().__init__()
        layers: list[nn.Module] = [_conv(width, width), nn.ReLU(), _conv(width, width), nn.ReLU(), _conv(width, width)]
        self.conv = nn.Sequential(*layers)
        self.pool = None
        if pool:
            widen, narrow = nn.Conv2d(width, 4 * width, 1, bias=False), nn.Conv2d(4 * width, width, 1, bias=False)
            self.pool = nn.Sequential(widen, nn.GroupNorm(4, 4 * width), nn.ReLU(), narrow)

    def forward(self, maps: Tensor) -> Tensor:
        if self.pool is not None:
            maps = maps + self.pool(maps)
        return torch.relu(self.conv(maps) + maps)


class SoftClamp(nn.Module):
    """Latents beyond 3 are bent back."""

    def forward(self, maps: Tensor) -> Tensor:
        return torch.tanh(maps / 3) * 3


class TAEF2(nn.Module):
    """(B, 3, H, W) images in [0, 1] <-> (B, 32, H / 8, W / 8) latents, kept in float16."""

    image_size = 256

    def __init__(self) -> None:
        super().__init__()
        down = [_conv(64, 64, stride=2, bias=False), Block(), Block(), Block()]
        down += [_conv(64, 64, stride=2, bias=False), Block(), Block(), Block()]
        down += [_conv(64, 64, stride=2, bias=False), *(Block(pool=True) for _ in range(3))]
        self.encoder = nn.Sequential(_conv(3, 64), Block(), *down, _conv(64, 32))
        up: list[nn.Module] = [*(Block(pool=True) for _ in range(3))]
        for blocks in (3, 3, 1):
            up += [nn.Upsample(scale_factor=2), _conv(64, 64, bias=False), *(Block() for _ in range(blocks))]
        self.decoder = nn.Sequential(SoftClamp(), _conv(32, 64), nn.ReLU(), *up, _conv(64, 3))

    def encode(self, images: Tensor) -> Tensor:
        return self.encoder(images).half()

    def decode(self, stored: Tensor) -> Tensor:
        return self.decoder(stored.to(next(self.parameters()).dtype)).clamp(0, 1)

    def bits(self, stored: Tensor) -> list[float]:
        return [16.0 * stored[0].numel()] * len(stored)


def load(argument: str) -> TAEF2:
    """The folder with taef2_encoder.pth and taef2_decoder.pth -> the rival."""
    model = TAEF2()
    for name in ("encoder", "decoder"):
        path = Path(argument) / f"taef2_{name}.pth"
        getattr(model, name).load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return model


def _conv(inputs: int, outputs: int, stride: int = 1, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1, stride=stride, bias=bias)
