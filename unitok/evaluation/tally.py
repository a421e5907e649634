"""What one pass over the photos adds up, and how the parts of all ranks become figures."""

from typing import Any

import torch
from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

from unitok.evaluation.judges import Judges
from unitok.evaluation.ranks import Ranks
from unitok.evaluation.rivals import bits_of
from unitok.metrics.codebook_usage import CodebookUsage
from unitok.metrics.frechet import FeatureStatistics, Gaussian, frechet_distance

PSNR_CAP = 100.0
"""An image that comes back exactly counts as 100 dB in the mean, not as infinity."""

SSIM_BORDER = 5
"""Half the 11 x 11 window: the border where it hangs over the edge does not count, as in the paper and scikit-image.

torchmetrics' own mean counts it, on reflected pixels, and differs by up to some hundredths on small images.
"""


class Tally:
    """The sums of one rank.

    Args:
        model: a Tokenizer or a rival.
        judges: the networks.
        count_originals: whether the originals' features are wanted too, or known already.
    """

    def __init__(self, model: Any, judges: Judges, count_originals: bool = True) -> None:
        self.model, self.judges = model, judges
        dim = judges.features.dim if judges.features else 0
        self._copies = FeatureStatistics(dim) if dim else None
        self._originals = FeatureStatistics(dim) if dim and count_originals else None
        self._indices: list[int] = []
        self._measures: list[Tensor] = []
        self._usage: CodebookUsage | None = None
        if hasattr(model, "codebook_size"):  # what it stores are codes (B, K, h, w) in [0, V)
            self._usage = CodebookUsage(getattr(model, "num_codebooks", 1), model.codebook_size)
        self._pixels = 0

    @torch.no_grad()
    def add(self, indices: list[int], images: Tensor) -> None:
        """Measure (B, 3, H, W) uint8 images.

        Raises:
            ValueError: a reconstruction that holds NaN or has another shape.
        """
        copies, stored = round_trip(self.model, images, indices[0])
        self._indices += indices
        self._pixels = images.shape[2] * images.shape[3]
        bits = torch.tensor(bits_of(self.model, stored), dtype=torch.float64)
        self._measures.append(torch.stack([bits, *self._measure(images.float() / 255, copies.float() / 255)], dim=1))
        if self._usage is not None:
            self._usage.to(images.device).update(stored)
        if self.judges.features is not None:
            for statistics, seen in ((self._copies, copies), (self._originals, images)):
                if statistics is not None:
                    statistics.to(images.device).update(self.judges.features.features(seen))

    def figures(
        self, ranks: Ranks, reference: Gaussian | None
    ) -> tuple[dict[str, Any], dict[int, float], Gaussian | None]:
        """All ranks' sums -> figures, the PSNR of each photo by index, and the originals' statistics."""
        mine = (self._indices, torch.cat(self._measures) if self._measures else None, self._pixels)
        parts = [part for part in ranks.gather(mine) if part[1] is not None]
        indices = [index for part in parts for index in part[0]]
        order = torch.tensor(indices).argsort()
        measures = torch.cat([part[1] for part in parts if part[1] is not None])[order]
        names = ["bits_per_image", "psnr", "ssim", "l1", "lpips"][: measures.shape[1]]
        figures: dict[str, Any] = dict(zip(names, measures.mean(0).tolist(), strict=True))
        figures["bits_per_pixel"] = figures["bits_per_image"] / parts[0][2]
        figures["compression_ratio"] = 24 / figures["bits_per_pixel"]
        if self._usage is not None:
            usage = self._usage.compute()
            figures["codebook_usage"] = float(usage.share.mean())
            figures["codebook_perplexity"] = float(usage.perplexity.mean())
            figures["codebook_usage_each"] = usage.share.reshape(-1).tolist()  # torchmetrics squeezes K = 1
            figures["codebook_perplexity_each"] = usage.perplexity.reshape(-1).tolist()
        if self._copies is not None and self.judges.features is not None:
            reference = reference or (self._originals.compute() if self._originals is not None else None)
            copies = self._copies.compute()
            assert reference is not None
            figures[self.judges.features.figure] = frechet_distance(reference, copies) if ranks.first else 0.0
        return figures, dict(zip(sorted(indices), measures[:, 1].tolist(), strict=True)), reference

    def _measure(self, images: Tensor, copies: Tensor) -> list[Tensor]:
        """(B, 3, H, W) floats in [0, 1], twice -> (B,) float64 of PSNR, SSIM, L1 and, where there is a judge, LPIPS."""
        psnr = peak_signal_noise_ratio(copies, images, data_range=1.0, reduction="none", dim=(1, 2, 3))
        _, ssim = structural_similarity_index_measure(
            copies, images, data_range=1.0, reduction="none", return_full_image=True
        )
        inside = ssim[..., SSIM_BORDER:-SSIM_BORDER, SSIM_BORDER:-SSIM_BORDER].mean((1, 2, 3))
        found = [psnr.clamp(max=PSNR_CAP), inside, (copies - images).abs().mean((1, 2, 3))]
        if self.judges.lpips is not None:
            found.append(self.judges.lpips(copies * 2 - 1, images * 2 - 1).flatten())
        return [values.double().cpu() for values in found]


@torch.no_grad()
def round_trip(model: Any, images: Tensor, seed: int = 0) -> tuple[Tensor, Any]:
    """(B, 3, H, W) uint8 images -> the same, encoded, decoded and rounded as if saved, and what was stored between.

    Args:
        model: a Tokenizer or a rival.
        images: the originals.
        seed: for a generative decoder's draws; its figures then depend on how photos fall into batches.

    Raises:
        ValueError: NaN or infinity in a reconstruction, or another shape.
    """
    stored = model.encode(images.float() / 255)
    if getattr(getattr(model, "decoder", None), "generative", False):
        copies = model.decode(stored, generator=torch.Generator(images.device).manual_seed(seed))
    else:
        copies = model.decode(stored)
    copies = copies.to(images.device)
    if copies.shape != images.shape:
        raise ValueError(f"images of shape {tuple(images.shape)} came back as {tuple(copies.shape)}")
    if not copies.isfinite().all():
        raise ValueError("the reconstructions hold NaN or infinity: no score is given for a broken tokenizer")
    return (copies.float().clamp(0, 1) * 255 + 0.5).to(torch.uint8), stored
