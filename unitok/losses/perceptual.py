"""Perceptual distances: LPIPS, or the features of any timm network."""

import os
import warnings
from collections.abc import Sequence

import torch
from torch import Tensor

from unitok.losses.frozen import Frozen, TimmNetwork


class Lpips(Frozen):
    """(B, 3, H, W) twice, in [0, 1] -> (): LPIPS v0.1 with VGG-16, by the `lpips` package.

    Args:
        weights: torchvision's ImageNet VGG-16 file; None looks where torchvision keeps its downloads.

    Raises:
        FileNotFoundError: the backbone is not there. The `lpips` package holds the linear heads only.

    Source: "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric" (arXiv 1801.03924).
    """

    def __init__(self, weights: str | None = None) -> None:
        import lpips

        path = weights or os.path.join(torch.hub.get_dir(), "checkpoints", "vgg16-397923af.pth")
        if not os.path.isfile(path):
            raise FileNotFoundError(
                f"no VGG-16 weights at {path}: download torchvision's vgg16-397923af.pth, take FeatureDistance with a "
                f"network you have, or set the weight of the perceptual term to 0"
            )
        with warnings.catch_warnings():  # the package still uses torchvision's old argument names
            warnings.simplefilter("ignore")
            network = lpips.LPIPS(net="vgg", pnet_rand=True, verbose=False)
        backbone = torch.load(path, map_location="cpu", weights_only=True)
        layers = {name.partition(".")[2]: name for name in network.net.state_dict()}  # "0.weight" -> "slice1.0.weight"
        network.net.load_state_dict({own: backbone[f"features.{layer}"] for layer, own in layers.items()})
        super().__init__(network)

    def forward(self, reconstructed: Tensor, images: Tensor) -> Tensor:
        """(B, 3, H, W) twice, in [0, 1] -> ()."""
        return self.network(2 * reconstructed - 1, 2 * images - 1).mean()


class FeatureDistance(TimmNetwork):
    """(B, 3, H, W) twice, in [0, 1] -> (): as LPIPS without learned heads, on the maps of any timm network.

    Features are brought to unit length at each place; squared differences are summed over channels, averaged over
    places, images and layers. Unlike LPIPS this was never fitted to people's judgement.

    Args:
        name: timm's name of the network.
        weights: its weights file.
        layers: which maps, in timm's numbering of intermediates.
    """

    def __init__(self, name: str, weights: str, layers: Sequence[int] = (0, 1, 2, 3, 4)) -> None:
        super().__init__(name, weights)
        self.layers = tuple(layers)

    def forward(self, reconstructed: Tensor, images: Tensor) -> Tensor:  # type: ignore[override]
        """(B, 3, H, W) twice, in [0, 1] -> ()."""
        with torch.no_grad():
            wanted = self.intermediates(images, self.layers)
        found = self.intermediates(reconstructed, self.layers)
        terms = [(_unit(a) - _unit(b)).square().sum(1).mean() for a, b in zip(found, wanted, strict=True)]
        return torch.stack(terms).mean()


def _unit(maps: Tensor) -> Tensor:
    maps = maps.float()
    return maps / (maps.square().sum(1, keepdim=True) + 1e-9).sqrt()
