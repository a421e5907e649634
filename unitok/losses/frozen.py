"""Trained networks that only look: timm networks by name and weights file, outside of checkpoints and optimizers."""

import os
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn


class Frozen(nn.Module):
    """A network in eval mode whose weights are fixed: it moves along, but is no part of the state dict.

    It is hidden from `parameters()` too, so that neither an optimizer nor a distributed strategy touches it.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self._hidden = [network.eval().requires_grad_(False)]

    @property
    def network(self) -> Any:
        """The network itself."""
        return self._hidden[0]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Frozen":
        super()._apply(fn, recurse)
        self._hidden[0]._apply(fn, recurse)
        return self

    def forward(self, *inputs: Any) -> Any:
        """Whatever the network answers."""
        return self.network(*inputs)


class TimmNetwork(Frozen):
    """A frozen timm network by name and weights file: images in [0, 1] -> feature maps.

    Args:
        name: timm's name of the network.
        weights: a file of its weights (.safetensors, or a .pth of weights alone); in timm's or the authors' layout.
        options: further arguments of the network, such as dynamic_img_size.
        mean: of the pixels it was trained on, where its weights differ from timm's own; None is timm's.
        deviation: likewise.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: timm knows no such network, or the file does not fit it.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(
        self,
        name: str,
        weights: str,
        options: dict[str, Any] | None = None,
        mean: float | None = None,
        deviation: float | None = None,
    ) -> None:
        import timm

        if not os.path.isfile(weights):
            raise FileNotFoundError(f"no weights of {name} at {weights}; download them, or give the term weight 0")
        try:
            network = timm.create_model(
                name, pretrained=True, pretrained_cfg_overlay={"file": weights}, **(options or {})
            )
        except (RuntimeError, KeyError) as error:
            raise ValueError(f"{weights} does not fit timm's {name!r}: {str(error).splitlines()[0]}") from error
        super().__init__(network)
        self.num_features = int(network.num_features)
        own = network.pretrained_cfg
        for key, value in (("mean", mean or own["mean"]), ("deviation", deviation or own["std"])):
            self.register_buffer(key, torch.as_tensor(value).expand(3).clone().view(3, 1, 1), persistent=False)

    def normalise(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> the same, with the mean and deviation the network was trained on."""
        return (images - self.mean) / self.deviation

    def intermediates(self, images: Tensor, layers: Sequence[int], **options: Any) -> list[Any]:
        """(B, 3, H, W) in [0, 1] -> a (B, D, h, w) map for each of `layers`, in timm's numbering."""
        return self.network.forward_intermediates(
            self.normalise(images), indices=list(layers), intermediates_only=True, **options
        )

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> (B, h, w, num_features): the last map."""
        maps = self.network.forward_features(self.normalise(images))
        if maps.ndim == 3:  # a ViT: (B, prefix + N, D) of a square grid
            tokens = maps[:, self.network.num_prefix_tokens :]
            stride = self.network.patch_embed.patch_size
            return tokens.unflatten(1, (images.shape[2] // stride[0], images.shape[3] // stride[1]))
        return maps.permute(0, 2, 3, 1)
