"""Training a text-aligned tokenizer: the features of its codes learn to be those of a frozen teacher."""

import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unitok.losses.alignment import cosine_loss, to_grid
from unitok.losses.frozen import Frozen
from unitok.metrics.codebook_usage import CodebookUsage
from unitok.models.siglip import load_siglip
from unitok.quantizers.words import read_codebook
from unitok.tokenizer import Tokenizer
from unitok.training.base_task import BaseTask, Losses, Optimization
from unitok.training.tokenizer_task import to_floats


class SiglipTeacher(Frozen):
    """A frozen SigLIP: (B, 3, H, W) images in [0, 1] -> (B, g, g, D), the output of its last block but one.

    Args:
        weights: model.safetensors of a SigLIP or SigLIP 2 model (see `load_siglip`).
        image_size: the side images are brought to.
        heads: attention heads, for a width that is not a SigLIP 2 size.
    """

    def __init__(self, weights: str, image_size: int | None = None, heads: int | None = None) -> None:
        super().__init__(load_siglip(weights, image_size, heads))
        self.num_features = int(self.network.dim)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) images in [0, 1] -> (B, g, g, D)."""
        features: Tensor = self.network.hidden(images)
        return features


class AlignmentTask(BaseTask):
    """A tokenizer whose decoded features match a frozen teacher's at every scale, over a codebook of words.

    Loss: 1 - cosine between teacher and decoded features, cell by cell, plus the quantizer's own (1.0 codebook and
    0.25 commitment), plus, with its weight, the entropy term that keeps the codebook in use. The teacher's map is
    brought to the encoder's grid, then pooled as the encoder's features are. The codebook's embedding is frozen, its
    projection learns. The training code of the paper was never released: what is not in it (pooling of a teacher of
    another grid, the linear head) is this project's choice.

    Args:
        tokenizer: TA-Tok, or any tokenizer; a pixel decoder or text tower that it has stays as it is.
        teacher: TimmNetwork or SiglipTeacher. It sees the images at the size the data gives them.
        optimization: how it learns.
        codebook: a file of `unitok codebook`, whose rows become the frozen embedding; None leaves the tokenizer's
            own, random unless it was trained.
        scales: one is drawn for each step (by each rank for itself); name one twice to draw it twice as often.
        from_teacher: the encoder starts as a copy of a SiglipTeacher of its sizes.
        entropy_weight: of the entropy term; the tokenizer must be built with use_entropy.
        window: steps over which the use of the codebook is counted and logged.

    Raises:
        ValueError: a scale that the tokenizer does not have; a codebook of other sizes, or for a tokenizer that has no
            frozen embedding; from_teacher with another teacher; entropy_weight without use_entropy.

    Where the tokenizer's features are not as wide as the teacher's, a linear head learns beside it and is not exported.

    Source: Tar (arXiv 2506.18898), "Text-Aligned Tokenizer"; "Scale-Adaptive Pooling and Decoding".
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        teacher: Frozen,
        optimization: Optimization = Optimization(),
        codebook: str | None = None,
        scales: Sequence[int] = (1, 2, 3),
        from_teacher: bool = False,
        entropy_weight: float = 0.0,
        window: int = 100,
    ) -> None:
        super().__init__(optimization, averaged="student")
        known = tuple(getattr(tokenizer.encoder, "scales", (1,)))
        if not scales or not set(scales) <= set(known):
            raise ValueError(f"scales={list(scales)} must be some of {list(known)}, the scales of this tokenizer")
        if entropy_weight and not getattr(tokenizer.quantizer, "use_entropy", False):
            raise ValueError(f"entropy_weight={entropy_weight} needs a tokenizer built with use_entropy=True")
        for room in (tokenizer.decoder, tokenizer.contrast):
            if room is not None:
                room.requires_grad_(False)
        if codebook is not None:
            _take_words(tokenizer.quantizer, codebook)
        if from_teacher:
            _copy_encoder(tokenizer.encoder, teacher)
        self.student, self.teacher = _Student(tokenizer, int(teacher.num_features)), teacher  # type: ignore[arg-type]
        self.scales, self.window, self.entropy_weight = tuple(scales), window, entropy_weight
        self.usage = self._counters()
        self.validation_usage = self._counters()

    @property
    def tokenizer(self) -> Tokenizer:
        """What is trained, without the head."""
        return self.student.tokenizer

    @property
    def evaluated(self) -> Tokenizer:
        """The tokenizer that is evaluated and exported: its moving average, where one is kept."""
        return super().evaluated.tokenizer

    def losses(self, batch: Any) -> Losses:
        """Distance to the teacher at a scale drawn at random, and the quantizer's loss."""
        images = to_floats(batch.images)
        self._log_usage_of_window()
        scale = self.scales[int(torch.randint(len(self.scales), ()))]
        aligned = self.student(images, scale)
        self.usage[str(scale)].update(aligned.codes)  # type: ignore[operator]
        distance = cosine_loss(aligned.features, self.wanted(images, scale))
        terms = {"distance": distance, "quantizer": aligned.quantizer_loss}
        backward = distance + aligned.quantizer_loss
        if self.entropy_weight:
            terms["entropy"] = aligned.entropy_loss
            backward = backward + self.entropy_weight * aligned.entropy_loss
        return Losses(backward, terms)

    @torch.no_grad()
    def wanted(self, images: Tensor, scale: int = 1) -> Tensor:
        """(B, 3, H, W) images -> (B, h, w, D) the teacher's features on the grid of `scale`."""
        return _pooled(self.teacher(images), self._grid(images), scale)

    @torch.no_grad()
    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Cosine between teacher and decoded features, for every scale."""
        images = to_floats(batch.images)
        student: Any = super().evaluated
        maps = self.teacher(images)
        shown = {}
        for scale in sorted(set(self.scales)):
            aligned = student(images, scale)
            self.validation_usage[str(scale)].update(aligned.codes)  # type: ignore[operator]
            wanted = _pooled(maps, self._grid(images), scale)
            shown[f"val/cosine_{scale}"] = 1 - cosine_loss(aligned.features, wanted)
        shown["val/cosine"] = torch.stack(list(shown.values())).mean()
        self.log_dict(shown, sync_dist=True, batch_size=len(images), add_dataloader_idx=False)

    def on_validation_epoch_end(self) -> None:
        """Use of the codebook at every scale, over all that was validated."""
        self._log_usage("val", self.validation_usage)

    test_step = validation_step
    on_test_epoch_end = on_validation_epoch_end

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the counts of the running window and the tokenizer's own description."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["task"]["counts"] = {scale: usage.counts for scale, usage in self.usage.items()}
        checkpoint["task"]["tokenizer"] = self.tokenizer.config

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take them back.

        Raises:
            ValueError: the checkpoint is of another task or architecture.
        """
        super().on_load_checkpoint(checkpoint)
        for scale, counts in checkpoint["task"]["counts"].items():
            if scale in self.usage:
                self.usage[scale].counts = counts.to(self.usage[scale].counts.device)

    def _grid(self, images: Tensor) -> tuple[int, int]:
        """The encoder's grid at scale 1."""
        encoder: Any = self.tokenizer.encoder
        if getattr(encoder, "grid", None):
            return encoder.grid, encoder.grid
        return images.shape[2] // encoder.stride, images.shape[3] // encoder.stride

    def _counters(self) -> nn.ModuleDict:
        sizes = self.tokenizer.num_codebooks, self.tokenizer.codebook_size
        return nn.ModuleDict({str(scale): CodebookUsage(*sizes) for scale in sorted(set(self.scales))})

    def _log_usage_of_window(self) -> None:
        if self.batches_seen and self.batches_seen % (self.window * self.optimization.accumulate) == 0:
            self._log_usage("train", self.usage)

    def _log_usage(self, stage: str, counters: nn.ModuleDict) -> None:
        for scale, counter in counters.items():
            usage: Any = counter
            use = usage.compute()
            usage.reset()
            self.log(f"{stage}/usage_{scale}", use.share.mean())
            self.log(f"{stage}/perplexity_{scale}", use.perplexity.mean())


class _Aligned(NamedTuple):
    features: Tensor
    codes: Tensor
    quantizer_loss: Tensor
    entropy_loss: Tensor


class _Student(nn.Module):
    """A tokenizer and the head that brings its features to the teacher's width; averaged together."""

    def __init__(self, tokenizer: Tokenizer, width: int) -> None:
        super().__init__()
        self.tokenizer = tokenizer
        dim = int(tokenizer.encoder.dim)  # type: ignore[union-attr,arg-type]
        self.head = nn.Identity() if dim == width else nn.Linear(dim, width)

    def forward(self, images: Tensor, scale: int) -> _Aligned:
        walk = self.tokenizer(images, 0, scale)
        return _Aligned(self.head(walk.features), walk.codes, walk.quantizer_loss, walk.entropy_loss)


def _pooled(maps: Tensor, grid: tuple[int, int], scale: int) -> Tensor:
    """(B, h', w', D) teacher's map -> (B, h // scale, w // scale, D): a remainder is dropped, as the encoder does."""
    return F.avg_pool2d(to_grid(maps, grid).permute(0, 3, 1, 2), scale).permute(0, 2, 3, 1)


@torch.no_grad()
def _take_words(quantizer: Any, path: str | os.PathLike[str]) -> None:
    rows = read_codebook(path).embedding
    own = getattr(quantizer, "embedding", None)
    if own is None:
        raise ValueError(f"{type(quantizer).__name__} has no frozen embedding: a codebook of words needs TA-Tok's")
    if own.shape != rows.shape:
        raise ValueError(
            f"{path} has {rows.shape[0]} words of {rows.shape[1]} channels, but the tokenizer was built with "
            f"codebook_size={own.shape[0]} and embedding_dim={own.shape[1]}; build it with the file's"
        )
    own.copy_(rows)


@torch.no_grad()
def _copy_encoder(encoder: Any, teacher: Frozen) -> None:
    if not isinstance(teacher, SiglipTeacher):
        raise ValueError(f"from_teacher=True needs a SiglipTeacher, not {type(teacher).__name__}")
    start = {name: value for name, value in teacher.network.state_dict().items() if not name.startswith("task.")}
    own = {name: value for name, value in encoder.state_dict().items() if name.startswith("task.")}
    try:
        encoder.load_state_dict(start | own)
    except RuntimeError as error:
        reason = str(error).splitlines()[1].strip()
        raise ValueError(
            f"from_teacher=True: the tokenizer's encoder is not of the teacher's sizes; {reason}"
        ) from None
