"""Parts that several rooms share: transformer blocks, the sub-pixel up-convolution, and derived tensors."""

import weakref
from collections.abc import Callable
from functools import partial

import torch
from timm.layers import GELUTanh, LayerNorm
from timm.models.vision_transformer import Block
from timm.models.vitamin import GeGluMlp
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint


class Blocks(nn.Sequential):
    """A stack of transformer blocks: (B, N, D) -> (B, N, D). `checkpointing` trades compute for memory in training."""

    checkpointing = False

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, N, D) tokens -> (B, N, D) tokens."""
        for block in self:
            if self.checkpointing and self.training and torch.is_grad_enabled():
                tokens = checkpoint(block, tokens, use_reentrant=False)
            else:
                tokens = block(tokens)
        return tokens


def vitamin_blocks(dim: int, depth: int, num_heads: int, drop_path: float = 0.0) -> Blocks:
    """The ViT blocks of ViTamin: pre-norm attention and GeGLU (tanh GELU, its own LayerNorm), all eps 1e-6.

    Source: ViTamin (arXiv 2404.02132), "Meta Architecture"; drop-path grows linearly from 0 over the depth.
    """
    return Blocks(
        *(
            Block(
                dim,
                num_heads,
                mlp_ratio=2.0,
                qkv_bias=True,
                drop_path=drop_path * index / max(depth - 1, 1),
                act_layer="gelu_tanh",
                norm_layer=partial(LayerNorm, eps=1e-6),
                mlp_layer=GeGluMlp,
            )
            for index in range(depth)
        )
    )


def siglip_blocks(dim: int, depth: int, num_heads: int, mlp_dim: int) -> Blocks:
    """The blocks of SigLIP's vision transformer: pre-norm, biases everywhere, tanh GELU, LayerNorm eps 1e-6.

    Raises:
        ValueError: dim is not a multiple of num_heads.

    Source: SigLIP 2 (arXiv 2502.14786).
    """
    if dim % num_heads:
        raise ValueError(f"dim={dim} must be a multiple of num_heads={num_heads}")
    ratio = (mlp_dim + 0.5) / dim  # timm floors dim * ratio
    norm = partial(LayerNorm, eps=1e-6)
    return Blocks(
        *(Block(dim, num_heads, ratio, qkv_bias=True, act_layer=GELUTanh, norm_layer=norm) for _ in range(depth))
    )


class ConvResBlock(nn.Module):
    """GroupNorm, swish, 3x3, twice, plus a shortcut (1x1 where the width changes): (B, Ci, H, W) -> (B, Co, H, W).

    Source: VQGAN (arXiv 2012.09841).
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(32, in_channels, eps=1e-6)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.norm2 = nn.GroupNorm(32, out_channels, eps=1e-6)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        same = in_channels == out_channels
        self.shortcut = nn.Identity() if same else nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, maps: Tensor) -> Tensor:
        """(B, Ci, H, W) -> (B, Co, H, W)."""
        inner = self.conv1(F.silu(self.norm1(maps)))
        return self.conv2(F.silu(self.norm2(inner))) + self.shortcut(maps)


class ConvAttention(nn.Module):
    """One head of attention over all places of a map, plus the map: (B, C, H, W) -> (B, C, H, W).

    Source: VQGAN (arXiv 2012.09841).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(32, channels, eps=1e-6)
        self.q, self.k, self.v = (nn.Linear(channels, channels) for _ in range(3))
        self.proj = nn.Linear(channels, channels)

    def forward(self, maps: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        places = self.norm(maps).flatten(2).transpose(1, 2).unsqueeze(1)
        mixed = F.scaled_dot_product_attention(self.q(places), self.k(places), self.v(places)).squeeze(1)
        return maps + self.proj(mixed).transpose(1, 2).view_as(maps)


def initialise(module: nn.Module) -> None:
    """UniTok's rule for decoder and projectors, for `Module.apply`: linear 0.02, convolutions Xavier 0.5, biases 0.

    Source: UniTok (arXiv 2502.20321), the authors' training code as described in its release.
    """
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
    elif isinstance(module, nn.Conv2d):
        nn.init.xavier_normal_(module.weight, gain=0.5)
    if isinstance(module, nn.Linear | nn.Conv2d) and module.bias is not None:
        nn.init.zeros_(module.bias)


class Derived:
    """A tensor computed from parameters and kept until one of them changes.

    It is kept only while gradients are off; otherwise it is computed anew, in the graph.
    Parameters are recognised by their storage and version counter, so loading, in-place updates, moves to another
    device and changes of dtype are all seen. A write through `parameter.data` or to a NumPy view is not.
    """

    def __init__(self, compute: Callable[..., Tensor]) -> None:
        self._compute = compute
        self._kept: tuple[list[_Version], Tensor] | None = None

    def __call__(self, *parameters: Tensor) -> Tensor:
        """compute(*parameters), from the last call where nothing changed since."""
        if torch.is_grad_enabled() or torch.compiler.is_compiling() or any(p.is_inference() for p in parameters):
            self._kept = None
            return self._compute(*parameters)
        kept = self._kept
        if kept is None or not all(version.is_of(p) for version, p in zip(kept[0], parameters, strict=True)):
            self._kept = kept = [_Version(p) for p in parameters], self._compute(*parameters)
        return kept[1]

    def __deepcopy__(self, memo: dict[int, object]) -> "Derived":
        """An empty copy: a copied module has parameters of its own."""
        return Derived(self._compute)

    def __getstate__(self) -> dict[str, object]:
        """Pickled without the kept tensor."""
        return {"_compute": self._compute, "_kept": None}


class _Version:
    """What a parameter held at one moment; the storage is referred to weakly, so it can be freed but not mistaken."""

    def __init__(self, parameter: Tensor) -> None:
        self._storage, self._counter = weakref.ref(parameter.untyped_storage()), parameter._version

    def is_of(self, parameter: Tensor) -> bool:
        return self._storage() is parameter.untyped_storage() and self._counter == parameter._version


class UpsampleConv(nn.Conv2d):
    """Nearest-neighbour x2, then a dense 3x3 convolution: (B, Ci, H, W) -> (B, Co, 2H, 2W).

    Computed exactly from the small map, never from one of four times the size. On a CPU without gradients that is
    9 instead of 36 multiply-adds per source pixel, by differences of neighbours; else 16, by one transposed
    convolution, which keeps nothing but the map for its gradient. The parameters stay those of the 3x3 convolution,
    and gradients reach them through the linear map. `sub_pixel = False` selects the plain form.
    """

    sub_pixel = True

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 3, padding=1)
        self._transposed, self._products = Derived(_transposed_kernel), Derived(_product_kernels)

    def forward(self, maps: Tensor) -> Tensor:
        """(B, Ci, H, W) -> (B, Co, 2H, 2W), channels last in memory."""
        if not self.sub_pixel:
            return super().forward(F.interpolate(maps, scale_factor=2, mode="nearest"))
        if torch.is_grad_enabled() or torch.compiler.is_compiling() or maps.device.type != "cpu":
            return F.conv_transpose2d(maps, self._transposed(self.weight), self.bias, stride=2, padding=1)
        return _up_by_differences(maps, self._products(self.weight), self.bias)


def _transposed_kernel(weight: Tensor) -> Tensor:
    """(Co, Ci, 3, 3) -> (Ci, Co, 4, 4): how much of a source pixel each of the 4 x 4 output pixels around it takes."""
    wide = weight.to(torch.promote_types(weight.dtype, torch.float32))  # taps are summed first and rounded last
    kernel = _spread(_spread(wide, 2), 3).to(weight.dtype)
    return kernel.transpose(0, 1).contiguous(memory_format=torch.channels_last)


def _spread(taps: Tensor, dim: int) -> Tensor:
    """3 -> 4 along `dim`: an output pixel sums the taps that meet the same source pixel."""
    first, middle, last = taps.unbind(dim)
    return torch.stack([last, middle + last, first + middle, first], dim)


def _product_kernels(weight: Tensor) -> Tensor:
    """(Co, Ci, 3, 3) -> (9 Co, Ci, 1, 1): one for a pixel, two for each of its two differences, four for both at once.

    Along one axis the two outputs over source pixel i are, with taps a, b, c and s = a + b + c,
        y[2i]     = a x[i-1] + (b + c) x[i] = s x[i] - a (x[i] - x[i-1])
        y[2i + 1] = (a + b) x[i] + c x[i+1] = s x[i] + c (x[i+1] - x[i]):
    three products for two outputs, since the difference of two neighbours serves both outputs between them.
    """
    wide = weight.to(torch.promote_types(weight.dtype, torch.float32))
    (after_after, after, after_before), (right, pixel, left), (before_after, before, before_before) = (
        _factors(row, 2) for row in _factors(wide, 2)
    )
    kernels = [pixel, right, left, after, before, after_after, after_before, before_after, before_before]
    return torch.cat(kernels)[:, :, None, None].to(weight.dtype).contiguous(memory_format=torch.channels_last)


def _factors(taps: Tensor, dim: int) -> tuple[Tensor, Tensor, Tensor]:
    """c, s and -a along `dim`."""
    first, _, last = taps.unbind(dim)
    return last, taps.sum(dim), -first


def _up_by_differences(maps: Tensor, kernels: Tensor, bias: Tensor | None) -> Tensor:
    """(B, Ci, H, W) -> (B, Co, 2H, 2W) in bands of rows whose products stay in a CPU's cache."""
    batch, _, height, width = maps.shape
    channels = len(kernels) // 9
    padded = F.pad(maps, (1, 1, 1, 1))
    made = maps.new_empty(batch, height, 2, width, 2, channels)
    rows = max(1, _BAND // (9 * channels * maps.element_size() * batch * width))
    for top in range(0, height, rows):
        band = padded[:, :, top : top + rows + 2]
        _band_by_differences(band, kernels.split([channels, *[2 * channels] * 4]), bias, made[:, top : top + rows])
    return made.view(batch, 2 * height, 2 * width, channels).permute(0, 3, 1, 2)


_BAND = 16 * 2**20  # bytes of products


def _band_by_differences(band: Tensor, kernels: tuple[Tensor, ...], bias: Tensor | None, made: Tensor) -> None:
    """(B, Ci, r + 2, W + 2) with its border -> writes `made`, (B, r, 2, W, 2, Co)."""
    pixel, sides, rows, *corners = kernels
    down = band[:, :, 1:] - band[:, :, :-1]
    across = band[:, :, 1:-1, 1:] - band[:, :, 1:-1, :-1]
    both = down[:, :, :, 1:] - down[:, :, :, :-1]
    middle = _last(F.conv2d(band[:, :, 1:-1, 1:-1], pixel, bias))
    beside = _last(F.conv2d(across, sides))
    after, before = _last(F.conv2d(down[:, :, :, 1:-1], rows)).chunk(2, -1)
    below, above = (_last(F.conv2d(both, corner)) for corner in corners)
    for row, (centre, edges) in enumerate(
        [(middle + before[:, :-1], beside + above[:, :-1]), (middle + after[:, 1:], beside + below[:, 1:])]
    ):
        right, left = edges.chunk(2, -1)
        torch.add(centre, left[:, :, :-1], out=made[:, :, row, :, 0])
        torch.add(centre, right[:, :, 1:], out=made[:, :, row, :, 1])


def _last(maps: Tensor) -> Tensor:
    return maps.permute(0, 2, 3, 1)
