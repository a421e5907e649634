"""A worked example of an adapter: the small real VQ-VAE of ../shared/data/weights/vqvae, f4, 512 codes.

unitok eval reconstruction --tokenizer benchmarks/adapters/vqvae.py@../shared/data/weights/vqvae --data PHOTOS
"""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unitok.evaluation.rivals import code_bits
from unitok.quantizers import nearest


class Stack(nn.Module):
    """Two residual blocks whose skip path carries relu(maps), and a ReLU: (B, 128, h, w) -> (B, 128, h, w)."""

    def __init__(self) -> None:
        super().__init__()
        self.residual_blocks = nn.ModuleDict({f"residual_{i}": nn.Module() for i in range(2)})
        for block in self.residual_blocks.values():
            convolutions = {
                "conv_1": nn.Conv2d(128, 64, 3, padding=1, bias=False),
                "conv_2": nn.Conv2d(64, 128, 1, bias=False),
            }
            block._block = nn.ModuleDict(convolutions)

    def forward(self, maps: Tensor) -> Tensor:
        for block in self.residual_blocks.values():
            maps = F.relu(maps)
            maps = maps + block._block["conv_2"](F.relu(block._block["conv_1"](maps)))
        return F.relu(maps)


class Half(nn.Module):
    """Named layers where the published weights expect them."""

    def __init__(self, **layers: nn.Module) -> None:
        super().__init__()
        self._blocks = nn.ModuleDict(layers)


class VQVAE(nn.Module):
    """(B, 3, H, W) images in [0, 1] <-> (B, 1, H / 4, W / 4) codes in [0, 512)."""

    image_size, codebook_size = 256, 512

    def __init__(self) -> None:
        super().__init__()
        self.encoder = Half(
            conv_1=nn.Conv2d(3, 64, 4, 2, 1),
            conv_2=nn.Conv2d(64, 128, 4, 2, 1),
            conv_3=nn.Conv2d(128, 128, 3, 1, 1),
            residual=Stack(),
        )
        self.pre_vq_conv = nn.Conv2d(128, 128, 1)
        self.vq_vae = nn.ModuleDict({"codebook": nn.Embedding(512, 128)})
        self.decoder = Half(
            conv_1=nn.Conv2d(128, 128, 3, 1, 1),
            residual=Stack(),
            conv_t_1=nn.ConvTranspose2d(128, 64, 4, 2, 1),
            conv_t_2=nn.ConvTranspose2d(64, 3, 4, 2, 1),
        )

    def encode(self, images: Tensor) -> Tensor:
        rooms = self.encoder._blocks
        maps = F.relu(rooms["conv_2"](F.relu(rooms["conv_1"](images - 0.5))))
        latents = self.pre_vq_conv(rooms["residual"](rooms["conv_3"](maps)))
        table = self.vq_vae["codebook"].weight
        rows = latents.permute(0, 2, 3, 1).flatten(0, 2)
        codes = nearest(rows, table, offset=-table.square().sum(1) / 2)  # the largest z.e - |e|^2 / 2 is the nearest
        return codes.view(len(images), 1, *latents.shape[2:])

    def decode(self, stored: Tensor) -> Tensor:
        rooms = self.decoder._blocks
        maps = self.vq_vae["codebook"](stored[:, 0]).permute(0, 3, 1, 2)
        maps = F.relu(rooms["conv_t_1"](rooms["residual"](rooms["conv_1"](maps))))
        return (rooms["conv_t_2"](maps) + 0.5).clamp(0, 1)

    def bits(self, stored: Tensor) -> list[float]:
        return code_bits(stored, self.codebook_size)


def load(argument: str) -> VQVAE:
    """The folder with vqvae.pt -> the rival."""
    model = VQVAE()
    model.load_state_dict(torch.load(Path(argument) / "vqvae.pt", map_location="cpu", weights_only=True))
    return model
