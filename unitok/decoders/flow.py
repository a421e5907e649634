"""A small rectified-flow de-tokenizer in pixel space: noise -> image patches, steered by aligned token features.

Sources: flow matching and its straight paths, Liu et al. (arXiv 2209.03003); adaLN-zero blocks, DiT (arXiv 2212.09748);
the network answers with the clean image, Li and He, "Back to Basics" (arXiv 2511.13720); features resized to the grid
that is denoised, Tar's second diffusion de-tokenizer (arXiv 2506.18898).
"""

from collections.abc import Callable
from typing import Any

import torch
from timm.layers import Mlp
from timm.models.vision_transformer import Attention
from torch import Tensor, nn
from torch.nn import functional as F

from unitok.decoders.prefix_transformer import sin_cos_positions
from unitok.decoders.sampling import check_guidance, guide


class FlowDecoder(nn.Module):
    """(B, h, w, D) features -> (B, 3, S, S) images in [0, 1], by Euler steps from seeded noise.

    The grid of features is resized to the grid of patches, so any tokenizer, scale and image size fit together.

    Args:
        cond_dim: D.
        image_size: S, the side of the images it makes; the weights do not depend on it.
        patch_size: side of a patch in pixels.
        dim: channels of the transformer, a multiple of 4.
        depth: its blocks.
        num_heads: its heads.
        steps: Euler steps; each costs one forward, two with guidance.
        guidance: strength of classifier-free guidance against all-zero features; 1 is none.

    Raises:
        ValueError: sizes that do not divide, settings out of range.
    """

    generative = True
    frozen: tuple[str, ...] = ()

    def __init__(
        self,
        cond_dim: int,
        image_size: int = 64,
        patch_size: int = 8,
        dim: int = 256,
        depth: int = 6,
        num_heads: int = 4,
        steps: int = 20,
        guidance: float = 1.0,
    ) -> None:
        super().__init__()
        if image_size % patch_size or dim % num_heads or dim % 4:
            raise ValueError(
                f"image_size={image_size} must be a multiple of patch_size={patch_size}, "
                f"dim={dim} of num_heads={num_heads} and of 4"
            )
        if steps < 1:
            raise ValueError(f"steps={steps} must be at least 1")
        check_guidance(guidance)
        self.cond_dim, self.image_size, self.patch_size, self.dim = cond_dim, image_size, patch_size, dim
        self.num_heads, self.steps, self.guidance = num_heads, steps, guidance
        self.patches = nn.Linear(3 * patch_size**2, dim)
        self.condition = nn.Sequential(nn.LayerNorm(cond_dim), nn.Linear(cond_dim, dim))
        self.time = nn.Sequential(nn.Linear(dim, dim), nn.SiLU(), nn.Linear(dim, dim))
        self.blocks = nn.ModuleList(_Block(dim, num_heads) for _ in range(depth))
        self.norm = nn.LayerNorm(dim, elementwise_affine=False)
        self.head = nn.Linear(dim, 3 * patch_size**2)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    @property
    def arguments(self) -> dict[str, Any]:
        """Plain arguments that build a decoder of this shape."""
        names = ("cond_dim", "image_size", "patch_size", "dim", "num_heads", "steps", "guidance")
        return {"depth": len(self.blocks), **{name: getattr(self, name) for name in names}}

    @torch.no_grad()
    def forward(self, features: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """(B, h, w, D) features -> (B, 3, S, S) float32 images in [0, 1]; equal generators give equal images.

        Raises:
            ValueError: features of another width.
        """
        self._check(features)
        shape = (len(features), 3, self.image_size, self.image_size)
        null = torch.zeros_like(features)

        def clean(noisy: Tensor, time: Tensor) -> Tensor:
            conditional = self.denoise(noisy, time, features)
            if self.guidance == 1:
                return conditional
            return guide(conditional, self.denoise(noisy, time, null), self.guidance)

        return euler(clean, draw_noise(shape, features.device, generator), self.steps).clamp(-1, 1) / 2 + 0.5

    def loss(
        self,
        features: Tensor,
        images: Tensor,
        dropped: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """(B, h, w, D) features, (B, 3, H, W) images in [0, 1] -> () mean squared error of the velocity.

        Args:
            features: of a condition tokenizer.
            images: of any size that patch_size divides.
            dropped: (B,) bool, rows trained without condition.
            generator: source of times and noise.
        """
        self._check(features)
        if dropped is not None:
            features = features.masked_fill(dropped[:, None, None, None], 0)
        target = images.float() * 2 - 1
        time = draw_times(len(images), images.device, generator)
        noise = draw_noise(images.shape, images.device, generator)
        at = time[:, None, None, None]
        noisy = at * target + (1 - at) * noise
        error = (self.denoise(noisy, time, features) - target) / (1 - at).clamp(min=SLOWEST)
        return error.square().mean()

    def denoise(self, noisy: Tensor, time: Tensor, features: Tensor) -> Tensor:
        """(B, 3, H, W) noisy images in [-1, 1] at (B,) times in [0, 1] (1 is clean) -> (B, 3, H, W) clean images."""
        size, dtype = self.patch_size, self.head.weight.dtype
        height, width = (side // size for side in noisy.shape[2:])
        tokens = self.patches(F.pixel_unshuffle(noisy, size).flatten(2).transpose(1, 2).to(dtype))
        tokens = tokens + _grid_positions(height, width, self.dim).to(tokens)
        maps = features.permute(0, 3, 1, 2).float()
        if maps.shape[2:] != (height, width):
            maps = F.interpolate(maps, (height, width), mode="bilinear", antialias=True)
        tokens = tokens + self.condition(maps.flatten(2).transpose(1, 2).to(dtype))
        moment = self.time(_wave(time, self.dim).to(dtype))[:, None]
        for block in self.blocks:
            tokens = block(tokens, moment)
        patches = self.head(self.norm(tokens)).float().transpose(1, 2).unflatten(2, (height, width))
        return F.pixel_shuffle(patches, size)

    def _check(self, features: Tensor) -> None:
        if features.ndim != 4 or features.shape[-1] != self.cond_dim:
            raise ValueError(
                f"features must have shape (B, h, w, cond_dim={self.cond_dim}) for this de-tokenizer, "
                f"got {tuple(features.shape)}"
            )


class _Block(nn.Module):
    """Attention and MLP, each scaled, shifted and gated by the time: (B, N, dim), (B, 1, dim) -> (B, N, dim)."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, elementwise_affine=False)
        self.attention = Attention(dim, num_heads, qkv_bias=True)
        self.norm2 = nn.LayerNorm(dim, elementwise_affine=False)
        self.mlp = Mlp(dim, 4 * dim)
        self.modulation = nn.Linear(dim, 6 * dim)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, tokens: Tensor, moment: Tensor) -> Tensor:
        """(B, N, dim) tokens, (B, 1, dim) time -> (B, N, dim)."""
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(F.silu(moment)).chunk(6, dim=-1)
        tokens = tokens + gate1 * self.attention(self.norm1(tokens) * (1 + scale1) + shift1)
        return tokens + gate2 * self.mlp(self.norm2(tokens) * (1 + scale2) + shift2)


SLOWEST = 0.05
"""The least 1 - t a training error is divided by: near the image it would weigh without bound."""


def euler(clean: Callable[[Tensor, Tensor], Tensor], noise: Tensor, steps: int) -> Tensor:
    """Noise at t = 0 -> the image at t = 1, in equal steps along velocity (clean - now) / (1 - t)."""
    now = noise
    for index in range(steps):
        time = torch.full((len(noise),), index / steps, device=noise.device)
        now = now + (clean(now, time) - now) / (steps - index)  # velocity times 1 / steps
    return now


def draw_times(count: int, device: torch.device, generator: torch.Generator | None = None) -> Tensor:
    """(count,) times in (0, 1), logit-normal around 0.31: most work lies where noise is strong."""
    return torch.sigmoid(draw_noise((count,), device, generator) * 0.8 - 0.8)


def draw_noise(shape: tuple[int, ...], device: torch.device, generator: torch.Generator | None = None) -> Tensor:
    """Standard normal noise, drawn where the generator lives: a CPU generator gives equal noise on every device."""
    return torch.randn(shape, generator=generator, device=generator.device if generator else device).to(device)


def _wave(time: Tensor, dim: int) -> Tensor:
    """(B,) times in [0, 1] -> (B, dim) cosines and sines of geometric frequencies."""
    rates = 10000 ** -(torch.arange(dim // 2, device=time.device) / (dim // 2))
    angles = 1000 * time.float()[:, None] * rates
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


def _grid_positions(height: int, width: int, dim: int) -> Tensor:
    """(1, height * width, dim) fixed sin-cos positions, half of the channels for the row, half for the column."""
    rows = sin_cos_positions(height, dim // 2)[:, :, None].expand(1, height, width, -1)
    columns = sin_cos_positions(width, dim // 2)[:, None].expand(1, height, width, -1)
    return torch.cat([rows, columns], dim=-1).flatten(1, 2)
