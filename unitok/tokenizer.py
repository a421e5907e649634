"""The tokenizer: one walk from image to codes, and one walk back.

image -> encoder -> project_in -> quantizer -> codes -> quantizer -> project_out -> decoder -> image

Letters used in every docstring: B images of H x W pixels; a grid of h x w tokens; D feature channels,
C latent channels, K codebooks of V entries, E joint image-text dimensions. Images are RGB floats in [0, 1].
"""

import math
from typing import Any

import torch
from torch import Tensor, nn

from unitok.outputs import Reconstruction
from unitok.text import ContrastiveHead


class Tokenizer(nn.Module):
    """Five rooms in a row; each published tokenizer is a choice of what stands in them.

    Args:
        encoder: (B, 3, H, W) images -> (B, h, w, D) features. Keeps its own pixel mean and deviation; its `stride`
            divides H and W (None: it takes any size), its `scales`, where it has them, can be asked of `encode`.
        project_in: (B, h, w, D) features -> (B, h, w, C) latents.
        quantizer: (B, h, w, C) latents <-> (B, K, h, w) codes.
        project_out: (B, h, w, C) latents -> (B, h, w, D) features.
        decoder: (B, h, w, D) features -> (B, 3, H, W) images: a pixel decoder or a de-tokenizer.
        contrast: the joint image-text space, where the tokenizer has one.
        image_size: the side of the images it was trained on, the default of readers; other sizes work too.

    A room that was not loaded is None; a walk that needs it says so. `config` names the catalogue's builder and its
    arguments where the tokenizer came from one, so that it can be saved.
    """

    config: dict[str, Any] | None = None
    decoder_advice = ""  # where a decoder is to be had, for tokenizers that come without one

    def __init__(
        self,
        encoder: nn.Module | None,
        project_in: nn.Module | None,
        quantizer: nn.Module,
        project_out: nn.Module,
        decoder: nn.Module | None,
        contrast: ContrastiveHead | None = None,
        image_size: int = 256,
    ) -> None:
        super().__init__()
        self.encoder, self.project_in = encoder, project_in
        self.quantizer: Any = quantizer
        self.project_out, self.decoder, self.contrast = project_out, decoder, contrast
        self.image_size = image_size

    @property
    def num_codebooks(self) -> int:
        """K, codes of one token."""
        return int(self.quantizer.num_codebooks)

    @property
    def codebook_size(self) -> int:
        """V, entries of one codebook."""
        return int(self.quantizer.codebook_size)

    @property
    def bits_per_token(self) -> float:
        """K log2 V."""
        return self.num_codebooks * math.log2(self.codebook_size)

    @torch.no_grad()
    def encode(self, images: Tensor, scale: int = 1, validate: bool | None = None) -> Tensor:
        """(B, 3, H, W) images -> (B, K, h, w) int64 codes, each in [0, V). Deterministic.

        Args:
            images: RGB floats in [0, 1]; H and W multiples of the encoder's stride.
            scale: coarseness of the grid, for encoders that have several (TA-Tok: 1, 2 or 3).
            validate: look at pixel values (NaN, range); None does so on CPU only, as a GPU would have to wait.

        Raises:
            ValueError: images of another shape, type or range, NaN, a size the encoder cannot divide, a wrong scale.
        """
        codes: Tensor = self.quantizer.quantize(self._latents(images, scale, validate))
        return codes

    @torch.no_grad()
    def decode(self, codes: Tensor, generator: torch.Generator | None = None, validate: bool | None = None) -> Tensor:
        """(B, K, h, w) codes -> (B, 3, H, W) float32 images in [0, 1].

        Args:
            codes: integers in [0, V).
            generator: source of randomness for a generative decoder; a pixel decoder has no use for one.
            validate: check the range of the codes; None does so on CPU only.

        Raises:
            ValueError: codes of another shape, type or range; a generator for a decoder that draws nothing.
        """
        decoder = _room(self.decoder, "decoder", "decode", self.decoder_advice)
        features = self.features(codes, validate)
        if getattr(decoder, "generative", False):
            images: Tensor = decoder(features, generator=generator)
        elif generator is not None:
            raise ValueError(f"{type(decoder).__name__} is deterministic and takes no generator")
        else:
            images = decoder(features)
        return images.float().clamp(0, 1)

    def features(self, codes: Tensor, validate: bool | None = None) -> Tensor:
        """(B, K, h, w) codes -> (B, h, w, D) features: what an understanding model reads. Same dtype as the weights."""
        return self._project_out(self.quantizer.dequantize(codes, validate))

    def encode_image(self, images: Tensor, normalize: bool = False) -> Tensor:
        """(B, 3, H, W) images -> (B, E) embeddings of their codes, as in open_clip; differentiable under gradients.

        Raises:
            ValueError: as `encode`; or this tokenizer has no joint image-text space.
        """
        contrast: ContrastiveHead = _room(self.contrast, "joint image-text space", "encode_image")
        latents = self._latents(images)
        if torch.is_grad_enabled():
            latents = self.quantizer(latents).latents
        else:
            latents = self.quantizer.dequantize(self.quantizer.quantize(latents), validate=False)
        return contrast.embed_image(self._project_out(latents), normalize)

    def encode_text(self, text_ids: Tensor, normalize: bool = False) -> Tensor:
        """(B, L) text ids of open_clip's tokenizer -> (B, E) embeddings, as in open_clip.

        Raises:
            ValueError: this tokenizer has no text tower, or was loaded without it.
        """
        contrast: ContrastiveHead = _room(self.contrast, "joint image-text space", "encode_text")
        return contrast.embed_text(text_ids, normalize)

    def forward(self, images: Tensor, decoded: int | None = None, scale: int = 1) -> Reconstruction:
        """(B, 3, H, W) images -> Reconstruction with gradients, for training; the first `decoded` are decoded.

        `scale` is that of `encode`. Projections and quantizer run in float32 with autocast off, always.
        """
        decoder = _room(self.decoder, "decoder", "forward", self.decoder_advice) if decoded != 0 else None
        quantized = self.quantizer(self._latents(images, scale, validate=False))
        features = self._project_out(quantized.latents)
        decoded_images = features.new_zeros(0, *images.shape[1:]) if decoder is None else decoder(features[:decoded])
        return Reconstruction(decoded_images, features, quantized.codes, quantized.loss, quantized.entropy_loss)

    def _latents(self, images: Tensor, scale: int = 1, validate: bool | None = None) -> Tensor:
        """(B, 3, H, W) images -> (B, h, w, C) latents."""
        encoder = _room(self.encoder, "encoder", "encode")
        check_images(images, getattr(encoder, "stride", None), validate)
        scales = getattr(encoder, "scales", (1,))
        if scale not in scales:
            raise ValueError(f"scale={scale} is not one of the scales {tuple(scales)} of this tokenizer")
        features = encoder(images) if scale == 1 else encoder(images, scale)
        project_in = _room(self.project_in, "project_in", "encode")
        with torch.autocast(images.device.type, enabled=False):
            latents: Tensor = project_in(_as_weights(features, project_in))
        return latents

    def _project_out(self, latents: Tensor) -> Tensor:
        """(B, h, w, C) latents -> (B, h, w, D) features."""
        with torch.autocast(latents.device.type, enabled=False):
            features: Tensor = self.project_out(_as_weights(latents, self.project_out))
        return features


def check_images(images: Tensor, stride: int | None = None, validate: bool | None = None) -> None:
    """Raise ValueError unless images are (B, 3, H, W) floats in [0, 1] with sides that are multiples of `stride`.

    Reading values makes a GPU wait, so they are looked at on CPU only, unless `validate` says True or False.
    """
    if images.ndim != 4 or images.shape[1] != 3:
        raise ValueError(f"images must have shape (B, 3, H, W), got {tuple(images.shape)}")
    if not images.is_floating_point():
        raise ValueError(f"images must be floats in [0, 1], not {images.dtype}; unitok.read_images converts them")
    height, width = images.shape[2:]
    if 0 in images.shape or (stride and (height % stride or width % stride)):
        raise ValueError(
            f"image height={height} and width={width} must be positive multiples of {stride or 1}; "
            f"resize or crop first (unitok.read_images does)"
        )
    if images.device.type == "cpu" if validate is None else validate:
        low, high = (float(v) for v in images.detach().aminmax())
        if math.isnan(low) or math.isnan(high):
            raise ValueError("images contain NaN")
        if low < -1e-3 or high > 1 + 1e-3:
            raise ValueError(f"images must lie in [0, 1], found values from {low:.4g} to {high:.4g}")


def _room(room: Any, name: str, walk: str, advice: str = "") -> Any:
    if room is None:
        raise ValueError(f"{walk} needs the {name}, which this tokenizer does not have or was not loaded with{advice}")
    return room


def _as_weights(tensor: Tensor, room: nn.Module) -> Tensor:
    weight = next(room.parameters(), None)
    return tensor if weight is None else tensor.to(weight.dtype)
