"""Training a de-tokenizer over a frozen tokenizer: autoregressive or diffusion, any tokenizer as the condition."""

from collections.abc import Sequence
from copy import deepcopy
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unitok.losses.reconstruction import psnr
from unitok.models.detokenizers import describe
from unitok.tokenizer import Tokenizer
from unitok.training.base_task import BaseTask, Losses, Optimization
from unitok.training.tokenizer_task import to_floats


class DetokenizerTask(BaseTask):
    """A generative decoder learns to make images from a frozen tokenizer's features.

    Loss: cross-entropy of the pixel codes (AutoregressiveDecoder) or squared error of the velocity (FlowDecoder,
    SanaDecoder). Neither paper nor code published this training; the terms and the drop rate are the paper's.
    Validation generates images and logs their PSNR: a guide to progress, not a measure of quality, as a good
    de-tokenizer may paint a texture that was not there.

    Args:
        tokenizer: gives the condition; its encode half is used and stays as it is.
        decoder: what is trained; its pixel tokenizer or autoencoder stays as it is.
        optimization: how it learns.
        condition_dropout: share of images trained without condition, which guidance needs.
        scales: one is drawn for each step, for tokenizers that have several (TA-Tok: 1, 2 and 3).
        condition_size: side to which images are resized before the tokenizer; None shows them as they come.
        sampled: images of the first validation batch that are generated, for the PSNR.

    Raises:
        ValueError: a rate outside [0, 1), a scale that the tokenizer does not have, a decoder of other features.

    Source: Tar (arXiv 2506.18898), "Generative De-Tokenizer".
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        decoder: nn.Module,
        optimization: Optimization = Optimization(),
        condition_dropout: float = 0.1,
        scales: Sequence[int] = (1,),
        condition_size: int | None = None,
        sampled: int = 8,
    ) -> None:
        super().__init__(optimization, averaged="decoder")
        if not 0 <= condition_dropout < 1:
            raise ValueError(f"condition_dropout={condition_dropout} must lie in [0, 1)")
        known = tuple(getattr(tokenizer.encoder, "scales", (1,)))
        if not scales or not set(scales) <= set(known):
            raise ValueError(f"scales={list(scales)} must be some of {list(known)}, the scales of this tokenizer")
        if not getattr(decoder, "generative", False):
            raise ValueError(f"{type(decoder).__name__} is no de-tokenizer; train it with TokenizerTask")
        self.tokenizer = tokenizer.requires_grad_(False).eval()
        self.tokenizer.decoder = None
        self.decoder = cast(Any, decoder)
        for name in self.decoder.frozen:
            getattr(decoder, name).requires_grad_(False).eval()
        self.condition_dropout, self.scales = condition_dropout, tuple(scales)
        self.condition_size, self.sampled = condition_size, sampled

    def train(self, mode: bool = True) -> "DetokenizerTask":
        """Training mode for what is trained; the rest stays in eval mode."""
        super().train(mode)
        for part in (self.tokenizer, *(getattr(self.decoder, name) for name in self.decoder.frozen)):
            part.eval()
        return self

    def configure_model(self) -> None:
        """Make the moving average's copy, once; frozen parts are shared, not copied."""
        if self.optimization.ema and self.average is None:
            frozen = [getattr(self.decoder, name) for name in self.decoder.frozen]
            self.average = deepcopy(self.decoder, {id(part): part for part in frozen}).requires_grad_(False).eval()

    @property
    def evaluated(self) -> Tokenizer:
        """The whole walk: the frozen tokenizer, and at its end the trained decoder or its moving average."""
        decoder: nn.Module = self.average if self.average is not None else self.decoder
        rooms = self.tokenizer
        walk = Tokenizer(rooms.encoder, rooms.project_in, rooms.quantizer, rooms.project_out, decoder, rooms.contrast)
        walk.image_size, walk.training = rooms.image_size, False
        described = describe(decoder)
        if rooms.config is not None and described is not None:
            walk.config = {
                "tokenizer": "detokenized",
                "arguments": {"tokenizer": rooms.config, "detokenizer": described},
            }
        return walk

    def losses(self, batch: Any) -> Losses:
        """Cross-entropy or velocity error of one batch, some of it without condition."""
        if not self.decoder.training:  # pictures and samples leave it in eval mode
            self.train()
        images = to_floats(batch.images)
        scale = self.scales[int(torch.randint(len(self.scales), ()))]
        dropped = torch.rand(len(images), device=images.device) < self.condition_dropout
        loss = self.decoder.loss(self.condition(images, scale), self._target(images), dropped)
        return Losses(loss, {"detokenizer": loss})

    @torch.no_grad()
    def condition(self, images: Tensor, scale: int = 1) -> Tensor:
        """(B, 3, H, W) images -> (B, h, w, D) features of their codes, which the decoder reads."""
        codes = self.tokenizer.encode(_resized(images, self.condition_size), scale)
        return self.tokenizer.features(codes, validate=False)

    @torch.no_grad()
    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """The loss with equal noise at every validation, and the PSNR of a few generated images."""
        images = to_floats(batch.images)
        decoder: Any = self.evaluated.decoder.eval()  # type: ignore[union-attr]
        features, target = self.condition(images, self.scales[0]), self._target(images)
        generator = torch.Generator().manual_seed(batch_idx)
        shown = {"val/detokenizer": decoder.loss(features, target, generator=generator)}
        if batch_idx == 0 and self.sampled:
            shown["val/psnr"] = psnr(decoder(features[: self.sampled], generator), target[: self.sampled])
        self.log_dict(shown, sync_dist=True, batch_size=len(images), add_dataloader_idx=False)

    test_step = validation_step

    def _target(self, images: Tensor) -> Tensor:
        return _resized(images, self.decoder.image_size)


def _resized(images: Tensor, size: int | None) -> Tensor:
    """(B, 3, H, W) -> (B, 3, size, size), antialiased and within [0, 1]; unchanged where it is that already."""
    if size is None or images.shape[2:] == (size, size):
        return images
    return F.interpolate(images, (size, size), mode="bilinear", antialias=True).clamp(0, 1)
