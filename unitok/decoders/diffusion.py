"""The SANA de-tokenizer: token features stand where a text-to-image diffusion model reads its text.

Sources: Tar (arXiv 2506.18898), "Generative De-Tokenizer"; SANA (arXiv 2410.10629). Needs the extra `diffusion`.
"""

import os
import pickle
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unitok.decoders.flow import draw_noise
from unitok.decoders.sampling import check_guidance

NEGATIVE = "negative_prompt_embeds.pth"


class SanaDecoder(nn.Module):
    """(B, h, w, D) features -> (B, 3, H, W) images in [0, 1], by diffusers' SANA pipeline without its text encoder.

    Prompts of any length go together: features and the negative embeddings are padded to one length and masked.

    Args:
        transformer: diffusers' SanaTransformer2DModel; its caption_channels are D.
        autoencoder: diffusers' AutoencoderDC, images <-> the latents that are denoised.
        scheduler: of diffusers, for example FlowMatchEulerDiscreteScheduler.
        negative: (n, D) or (1, n, D) embeddings of "no condition".
        image_size: side of the images it makes, a multiple of 32.
        steps: denoising steps.
        guidance: strength of classifier-free guidance against `negative`; 1 is none, and half the work.

    Raises:
        ImportError: diffusers is missing.
        ValueError: a setting out of range, negative embeddings of another width.
    """

    generative = True
    frozen: tuple[str, ...] = ("autoencoder",)

    def __init__(
        self,
        transformer: Any,
        autoencoder: Any,
        scheduler: Any,
        negative: Tensor,
        image_size: int = 512,
        steps: int = 28,
        guidance: float = 1.0,
    ) -> None:
        super().__init__()
        check_guidance(guidance)
        if steps < 1:
            raise ValueError(f"steps={steps} must be at least 1")
        self.transformer = transformer
        self.autoencoder = autoencoder
        self.scheduler = scheduler
        self.image_size, self.steps, self.guidance = image_size, steps, guidance
        self.stride = 2 ** (len(self.autoencoder.config.encoder_block_out_channels) - 1)
        if image_size < 1 or image_size % 32 or image_size % self.stride:
            raise ValueError(f"image_size={image_size} must be a positive multiple of {max(32, self.stride)}")
        if negative.ndim == 2:
            negative = negative[None]
        if negative.ndim != 3 or len(negative) != 1 or negative.shape[-1] != self.cond_dim:
            raise ValueError(
                f"negative embeddings must have shape (n, D) with D={self.cond_dim}, got {tuple(negative.shape)}"
            )
        self.register_buffer("negative", negative.float())
        self.negative: Tensor

    @classmethod
    def from_folder(
        cls,
        folder: str | os.PathLike[str],
        image_size: int = 512,
        steps: int = 28,
        guidance: float = 1.0,
        dtype: torch.dtype = torch.float32,
    ) -> "SanaDecoder":
        """A folder of diffusers' SANA pipeline with negative_prompt_embeds.pth beside it; its text encoder stays shut.

        Args:
            folder: holds model_index.json, transformer/, vae/, scheduler/ and the negative embeddings.
            image_size: as the class; 512 and 1024 were published.
            steps: as the class.
            guidance: as the class.
            dtype: of the denoising transformer; the autoencoder stays in float32.

        Raises:
            ImportError: diffusers is missing.
            FileNotFoundError: a part of the folder is missing.
            ValueError: as the class, or the negative embeddings are more than a tensor.
        """
        pipelines = import_diffusers()
        folder = Path(folder)
        for name in ("model_index.json", NEGATIVE):
            if not (folder / name).is_file():
                raise FileNotFoundError(f"{folder} is no SANA de-tokenizer: it has no {name}")
        pipeline = pipelines.SanaPipeline.from_pretrained(
            folder, text_encoder=None, tokenizer=None, local_files_only=True
        )
        negative = _read_tensor(folder / NEGATIVE)
        transformer, vae = pipeline.transformer.to(dtype).eval(), pipeline.vae.float().eval()
        return cls(transformer, vae, pipeline.scheduler, negative, image_size, steps, guidance).eval()

    @property
    def cond_dim(self) -> int:
        """D, the channels of the features it reads."""
        return int(self.transformer.config.caption_channels)

    @torch.no_grad()
    def forward(self, features: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """(B, h, w, D) features -> (B, 3, H, W) float32 images in [0, 1]; equal generators give equal images.

        Raises:
            ValueError: features of another width.
        """
        prompt, mask, negative, negative_mask = self._prompts(features)
        pipeline = import_diffusers().SanaPipeline(None, None, self.autoencoder, self.transformer, self.scheduler)
        pipeline.set_progress_bar_config(disable=True)
        side = self.image_size // self.stride
        shape = (len(features), self.transformer.config.in_channels, side, side)
        images: Tensor = pipeline(
            negative_prompt=None,
            num_inference_steps=self.steps,
            guidance_scale=self.guidance,
            height=self.image_size,
            width=self.image_size,
            latents=draw_noise(shape, features.device, generator),
            prompt_embeds=prompt,
            prompt_attention_mask=mask,
            negative_prompt_embeds=negative,
            negative_prompt_attention_mask=negative_mask,
            output_type="pt",
            use_resolution_binning=False,
        ).images
        return images.float().clamp(0, 1)

    def loss(
        self,
        features: Tensor,
        images: Tensor,
        dropped: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """(B, h, w, D) features, (B, 3, H, W) images in [0, 1] -> () mean squared error of the velocity of latents.

        Args:
            features: of a condition tokenizer.
            images: sides are multiples of the autoencoder's stride; the autoencoder gets no gradient.
            dropped: (B,) bool, rows trained without condition, on the negative embeddings.
            generator: source of times and noise.
        """
        prompt, mask, negative, negative_mask = self._prompts(features)
        if dropped is not None:
            prompt = torch.where(dropped[:, None, None], negative, prompt)
            mask = torch.where(dropped[:, None], negative_mask, mask)
        with torch.no_grad():
            latents = self.autoencoder.encode((images * 2 - 1).to(self.autoencoder.dtype)).latent.float()
            latents = latents * self.autoencoder.config.scaling_factor
        config = self.scheduler.config
        shift = config.get("flow_shift") or config.get("shift") or 1.0
        level = torch.sigmoid(draw_noise((len(images),), images.device, generator))
        level = shift * level / (1 + (shift - 1) * level)  # share of noise, shifted as the scheduler does
        noise = draw_noise(tuple(latents.shape), images.device, generator)
        at = level[:, None, None, None]
        velocity = self.transformer(
            ((1 - at) * latents + at * noise).to(self.transformer.dtype),
            encoder_hidden_states=prompt.to(self.transformer.dtype),
            encoder_attention_mask=mask,
            timestep=level * config.num_train_timesteps * self.transformer.config.timestep_scale,
        ).sample
        return F.mse_loss(velocity.float(), noise - latents)

    def _prompts(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Features and negative embeddings as (B, n, D) of one length, each with its (B, n) mask."""
        if features.ndim != 4 or features.shape[-1] != self.cond_dim:
            raise ValueError(
                f"features must have shape (B, h, w, D) with D={self.cond_dim}, the caption channels of this "
                f"de-tokenizer, got {tuple(features.shape)}"
            )
        prompt = features.flatten(1, 2).float()
        negative = self.negative.expand(len(prompt), -1, -1)
        length = max(prompt.shape[1], negative.shape[1])
        return *_padded(prompt, length), *_padded(negative, length)


def _padded(embeddings: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """(B, n, D) -> (B, length, D) with zeros behind, and the (B, length) mask of what is real."""
    missing = length - embeddings.shape[1]
    mask = F.pad(torch.ones_like(embeddings[..., 0]), (0, missing))
    return F.pad(embeddings, (0, 0, 0, missing)), mask


def _read_tensor(path: Path) -> Tensor:
    try:
        tensor = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ValueError(f"{path} is not a readable tensor: {str(error).splitlines()[0]}") from error
    if not isinstance(tensor, Tensor):
        raise ValueError(f"{path} holds a {type(tensor).__name__}, not a tensor")
    return tensor


def import_diffusers() -> Any:
    """The package diffusers, imported when first needed.

    Raises:
        ImportError: it is missing.
    """
    try:
        import diffusers
    except ImportError as error:
        raise ImportError('SANA needs diffusers: pip install "unitok-vision[diffusion]"') from error
    return diffusers
