"""Training a tokenizer: the whole UniTok objective, with a weight for every term."""

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from unitok.layers import Blocks
from unitok.losses.alignment import cosine_loss, to_grid
from unitok.losses.contrastive import contrastive_loss
from unitok.losses.frozen import TimmNetwork
from unitok.losses.reconstruction import l1, l2, psnr
from unitok.metrics.codebook_usage import CodebookUsage
from unitok.tokenizer import Tokenizer
from unitok.training.adversary import Adversary, Moment, judge, pull
from unitok.training.base_task import BaseTask, Losses, Optimization, adamw
from unitok.training.codebooks import replace_entries, sample_entries
from unitok.training.schedules import warmup_cosine

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Weights:
    """Weight of every term; 0 leaves its network unbuilt and its data unread. Pixel losses see images in [-1, 1].

    Args:
        l1: mean absolute error.
        l2: mean squared error.
        perceptual: distance in the features of a frozen network.
        adversarial: times the adaptive weight and the warm-up.
        consistency: of the discriminator under strong augmentation.
        quantizer: codebook and commitment loss.
        entropy: of the soft assignment; the tokenizer must be built with use_entropy.
        contrastive: between images and texts.
        alignment: cosine between the mean token and a frozen teacher's mean feature.
        spatial_alignment: the same, cell by cell.
    """

    l1: float = 0.2
    l2: float = 1.0
    perceptual: float = 1.0
    adversarial: float = 0.4
    consistency: float = 4.0
    quantizer: float = 1.0
    entropy: float = 0.0
    contrastive: float = 1.0
    alignment: float = 0.0
    spatial_alignment: float = 0.0

    @property
    def decodes(self) -> bool:
        """Whether any term looks at a reconstructed image."""
        return any((self.l1, self.l2, self.perceptual, self.adversarial))


@dataclass(frozen=True)
class Codebooks:
    """How codebooks are kept alive and watched.

    Args:
        from_data: draw the entries from the latents of the first batch, at unit length.
        restart: after every window, entries that died are drawn anew from the latents of the batch.
        window: steps over which use is counted, logged and judged.
        alarm: a codebook whose use falls under this share is reported.
    """

    from_data: bool = False
    restart: bool = False
    window: int = 100
    alarm: float = 0.1


class TokenizerTask(BaseTask):
    """A tokenizer under reconstruction, perceptual, adversarial, contrastive and alignment losses.

    L = l1 + l2 + perceptual + w adversarial + quantizer + entropy + contrastive + alignment, each times its weight,
    w the adaptive weight. All of the batch meets the contrastive and alignment losses, its first part is decoded.
    Over ranks, loss and gradients are those of one process with the whole batch, except for the entropy term (which
    sees each rank's own mean assignment) and for what is drawn at random.

    Args:
        tokenizer: what is trained.
        weights: of every term.
        optimization: how the tokenizer learns.
        adversary: how the discriminator learns.
        codebooks: how the codebooks are kept alive.
        perceptual: builds the perceptual distance, two images in [0, 1] -> ().
        discriminator: builds the discriminator, images in [-1, 1] -> logits.
        teacher: builds the teacher of the alignment terms, images in [0, 1] -> (B, h, w, D) features.
        trained: rooms that learn, such as decoder or contrast.text; None is all that a loss reaches.
        decoded_fraction: share of the batch, from its start, that is decoded.
        checkpointing: recompute transformer blocks in the backward pass, for memory.

    Raises:
        ValueError: a weight whose network is not given, a tokenizer without the room a term needs.

    Source: UniTok (arXiv 2502.20321), "Unified Supervision" and "Implementation Details".
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        weights: Weights = Weights(),
        optimization: Optimization = Optimization(),
        adversary: Adversary = Adversary(),
        codebooks: Codebooks = Codebooks(),
        perceptual: Callable[[], nn.Module] | None = None,
        discriminator: Callable[[], nn.Module] | None = None,
        teacher: Callable[[], TimmNetwork] | None = None,
        trained: list[str] | None = None,
        decoded_fraction: float = 1.0,
        checkpointing: bool = False,
    ) -> None:
        super().__init__(optimization)
        if not 0 < decoded_fraction <= 1:
            raise ValueError(f"decoded_fraction={decoded_fraction} must be in (0, 1]")
        self.tokenizer = tokenizer.train()  # one that was loaded comes in eval mode, and Lightning leaves it there
        self.weights, self.adversary, self.codebooks = weights, adversary, codebooks
        self.decoded_fraction = decoded_fraction
        aligned = weights.alignment or weights.spatial_alignment
        self.perceptual = _built(perceptual, weights.perceptual, "perceptual")
        self.discriminator = _built(discriminator, weights.adversarial, "adversarial", "discriminator")
        self.teacher = _built(teacher, aligned, "alignment", "teacher")
        _check_rooms(tokenizer, weights)
        self.align = _alignment_heads(tokenizer, self.teacher, weights)
        self.usage = CodebookUsage(tokenizer.num_codebooks, tokenizer.codebook_size)
        self.validation_usage = CodebookUsage(tokenizer.num_codebooks, tokenizer.codebook_size)
        _choose_trained(tokenizer, weights, trained)
        for module in tokenizer.modules():
            if isinstance(module, Blocks):
                module.checkpointing = checkpointing

    def configure_optimizers(self) -> Any:
        """The tokenizer's optimizer with its schedule, then the discriminator's with its own."""
        optimizers, schedulers = super().configure_optimizers()
        if self.discriminator is not None:
            how, total = self.adversary, self.total_steps
            named = [(name, p) for name, p in self.discriminator.named_parameters() if p.requires_grad]
            optimizers.append(adamw(named, how.lr, how.betas, how.weight_decay))
            start = int(how.start * total)
            schedulers.append(
                LambdaLR(
                    optimizers[-1],
                    lambda step: warmup_cosine(
                        max(0, step - start), max(1, total - start), how.warmup * total, how.final
                    ),
                )
            )
        return optimizers, schedulers

    def trained_parameters(self) -> list[tuple[str, nn.Parameter]]:
        """All that learns but the discriminator."""
        return [(n, p) for n, p in self.named_parameters() if p.requires_grad and not n.startswith("discriminator.")]

    def losses(self, batch: Any) -> Losses:
        """The whole objective of one batch; see the class."""
        images = to_floats(batch.images)
        self._tend_codebooks(images)
        decoded = max(1, round(len(images) * self.decoded_fraction)) if self.weights.decodes else 0
        walk = self.tokenizer(images, decoded)
        self.usage.update(walk.codes)
        terms = {"quantizer": walk.quantizer_loss}
        backward = self.weights.quantizer * walk.quantizer_loss
        if self.weights.entropy:
            terms["entropy"] = walk.entropy_loss
            backward = backward + self.weights.entropy * walk.entropy_loss
        parts = [self._contrast(walk.features, batch.text_ids), self._alignment(walk.features, images)]
        if decoded:
            parts.append(self._pixels(walk.images, images[:decoded]))
        for part in parts:
            backward, terms = backward + part.backward, {**terms, **part.terms}
        return Losses(backward, terms)

    def _pixels(self, reconstructed: Tensor, images: Tensor) -> Losses:
        """All that looks at reconstructed images; the gradient at them is computed once and then sent back."""
        leaf = reconstructed.detach().requires_grad_()
        pixels, terms = self._distances(leaf, images)
        moment = self._moment()
        if self.discriminator is None:
            gradient = torch.autograd.grad(pixels, leaf)[0]
            return Losses((reconstructed * gradient).sum(), terms)
        if not moment.playing:  # every parameter takes part in every backward pass, as distributed strategies expect
            gradient = torch.autograd.grad(pixels, leaf)[0]
            idle = sum(p.sum() for p in self.discriminator.parameters() if p.requires_grad)
            return Losses((reconstructed * gradient).sum() + 0.0 * idle, terms)
        pulled = pull(
            pixels,
            leaf,
            reconstructed,
            self.discriminator,
            self.tokenizer.decoder.last_layer,  # type: ignore[union-attr,arg-type]
            self.adversary,
            moment,
            self.weights.adversarial,
            self.mean_over_ranks,
        )
        real, fake = 2 * images - 1, 2 * leaf.detach() - 1
        loss, consistency = judge(real, fake, self.discriminator, self.adversary, moment, self.weights.consistency)
        backward = (reconstructed * pulled.gradient).sum() + loss + self.weights.consistency * consistency
        terms |= {"adversarial": pulled.adversarial, "adversarial_weight": pulled.weight}
        return Losses(backward, terms | {"discriminator": loss, "consistency": consistency})

    def _distances(self, reconstructed: Tensor, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """() weighted pixel and perceptual losses, and each by name."""
        a, b, weights = 2 * reconstructed - 1, 2 * images - 1, self.weights
        terms = {"l1": l1(a, b), "l2": l2(a, b)}
        total = weights.l1 * terms["l1"] + weights.l2 * terms["l2"]
        if self.perceptual is not None:
            terms["perceptual"] = self.perceptual(reconstructed, images)
            total = total + weights.perceptual * terms["perceptual"]
        return total, terms

    def _contrast(self, features: Tensor, text_ids: Tensor | None) -> Losses:
        if not self.weights.contrastive:
            return Losses(features.new_zeros(()), {})
        if text_ids is None:
            raise ValueError(
                f"weights.contrastive={self.weights.contrastive} needs texts, and these data have none: "
                f"give data with captions, or set weights.contrastive to 0"
            )
        contrast: Any = self.tokenizer.contrast
        image = contrast.embed_image(features, normalize=True)
        text = self.tokenizer.encode_text(text_ids, normalize=True)
        rank, ranks = (self.global_rank, self.trainer.world_size) if self._trainer is not None else (0, 1)
        loss = contrastive_loss(image, text, contrast.logit_scale, rank, ranks)
        return Losses(self.weights.contrastive * loss, {"contrastive": loss})

    def _alignment(self, features: Tensor, images: Tensor) -> Losses:
        backward, terms = features.new_zeros(()), {}
        if self.teacher is not None:
            with torch.no_grad():
                wanted = self.teacher(images)
            if self.weights.alignment:
                terms["alignment"] = cosine_loss(self.align["pooled"](features.mean((1, 2))), wanted.mean((1, 2)))
                backward = backward + self.weights.alignment * terms["alignment"]
            if self.weights.spatial_alignment:
                cells = to_grid(wanted, (features.shape[1], features.shape[2]))
                terms["spatial_alignment"] = cosine_loss(self.align["spatial"](features), cells)
                backward = backward + self.weights.spatial_alignment * terms["spatial_alignment"]
        return Losses(backward, terms)

    def _moment(self) -> Moment:
        total = self.total_steps if self._trainer is not None else 1
        return Moment.at(self.global_step, total, self.adversary)

    @torch.no_grad()
    def _tend_codebooks(self, images: Tensor) -> None:
        """Before the first batch draw entries from data; after every window log use, and draw dead entries anew."""
        how, window = self.codebooks, self.codebooks.window * self.optimization.accumulate
        if self.batches_seen == 0:
            if how.from_data:
                self._draw(images, torch.ones(1, 1, dtype=torch.bool, device=images.device), length=1.0)
            return
        if self.batches_seen % window:
            return
        use = self.usage.compute()
        self.usage.reset()
        self._report("train", use)
        if how.restart:
            self._draw(images, ~use.alive)

    def _draw(self, images: Tensor, where: Tensor, length: float | None = None) -> None:
        latents = self.tokenizer.project_in(self.tokenizer.encoder(images))  # type: ignore[misc]
        entries = sample_entries(latents, self.tokenizer.quantizer)
        if self._trainer is not None:
            entries = self.trainer.strategy.broadcast(entries)
        for tokenizer in (self.tokenizer, self.average):
            if tokenizer is not None:
                replace_entries(tokenizer.quantizer.codebooks, entries, where, length)  # type: ignore[union-attr,arg-type]

    def _report(self, stage: str, use: Any) -> None:
        shares, perplexities = use.share.reshape(-1), use.perplexity.reshape(-1)
        for book, (share, perplexity) in enumerate(zip(shares, perplexities, strict=True)):
            self.log(f"{stage}/usage_{book}", share)
            self.log(f"{stage}/perplexity_{book}", perplexity)
        self.log(f"{stage}/usage", shares.mean(), prog_bar=True)
        if stage == "train" and float(shares.min()) < self.codebooks.alarm:
            logger.warning(
                "step %d: codebook use %s falls under alarm=%g; codebooks.from_data and codebooks.restart help",
                self.global_step,
                ", ".join(f"{float(share):.1%}" for share in shares),
                self.codebooks.alarm,
            )

    @torch.no_grad()
    def after_step(self) -> None:
        """Keep the temperature of the contrastive loss between 1 and 1/100."""
        if self.weights.contrastive:
            self.tokenizer.contrast.logit_scale.clamp_(0, math.log(100))  # type: ignore[union-attr]

    @torch.no_grad()
    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Reconstruct with the evaluated tokenizer: pixel losses, PSNR, and the use of its codebooks."""
        images = to_floats(batch.images)
        walk = self.evaluated(images, len(images) if self.weights.decodes else 0)
        self.validation_usage.update(walk.codes)
        shown = {"val/quantizer": walk.quantizer_loss}
        if self.weights.decodes:
            _, terms = self._distances(walk.images, images)
            shown |= {f"val/{name}": value for name, value in terms.items()}
            shown["val/psnr"] = psnr(walk.images, images)
        self.log_dict(shown, sync_dist=True, batch_size=len(images), add_dataloader_idx=False)

    def on_validation_epoch_end(self) -> None:
        """Use of the codebooks over all that was validated."""
        self._report("val", self.validation_usage.compute())
        self.validation_usage.reset()

    test_step = validation_step
    on_test_epoch_end = on_validation_epoch_end

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the counts of the running window and the tokenizer's own description, by which it can be loaded."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["task"]["counts"] = self.usage.counts
        checkpoint["task"]["tokenizer"] = self.tokenizer.config

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take them back."""
        super().on_load_checkpoint(checkpoint)
        self.usage.counts = checkpoint["task"]["counts"].to(self.usage.counts.device)


def to_floats(images: Tensor) -> Tensor:
    """(B, 3, H, W) uint8 -> floats in [0, 1], on the device they are on; floats stay what they are."""
    return images if images.is_floating_point() else images.float() / 255


def _built(build: Callable[[], Any] | None, weight: float, term: str, argument: str | None = None) -> Any:
    if not weight:
        return None
    if build is None:
        raise ValueError(
            f"weights.{term}={weight} needs {argument or term} to be given; set the weight to 0 without it"
        )
    return build()


def _check_rooms(tokenizer: Tokenizer, weights: Weights) -> None:
    if weights.decodes and tokenizer.decoder is None:
        raise ValueError("this tokenizer has no decoder: set the weights l1, l2, perceptual and adversarial to 0")
    if weights.contrastive and (tokenizer.contrast is None or tokenizer.contrast.text is None):
        raise ValueError(f"weights.contrastive={weights.contrastive} needs a tokenizer with a text tower")
    if weights.adversarial and not hasattr(tokenizer.decoder, "last_layer"):
        raise ValueError(f"weights.adversarial={weights.adversarial} needs a decoder that names its last_layer")
    if weights.entropy and not getattr(tokenizer.quantizer, "use_entropy", False):
        raise ValueError(f"weights.entropy={weights.entropy} needs a tokenizer built with use_entropy=True")


def _alignment_heads(tokenizer: Tokenizer, teacher: Any, weights: Weights) -> nn.ModuleDict:
    if teacher is None:
        return nn.ModuleDict()
    dim = int(tokenizer.encoder.dim)  # type: ignore[union-attr,arg-type]
    wanted = {"pooled": weights.alignment, "spatial": weights.spatial_alignment}
    return nn.ModuleDict(
        {n: nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, teacher.num_features)) for n, w in wanted.items() if w}
    )


def _choose_trained(tokenizer: Tokenizer, weights: Weights, trained: list[str] | None) -> None:
    """Freeze what no loss reaches, and all but the named rooms."""
    if not weights.decodes and tokenizer.decoder is not None:
        tokenizer.decoder.requires_grad_(False)
    if not weights.contrastive and tokenizer.contrast is not None:
        tokenizer.contrast.requires_grad_(False)
    if trained is None:
        return
    for room in trained:
        if not any(name.startswith(room + ".") for name, _ in tokenizer.named_parameters()):
            raise ValueError(f"trained={trained}: this tokenizer has no room {room!r}")
    for name, parameter in tokenizer.named_parameters():
        if not name.startswith(tuple(room + "." for room in trained)):
            parameter.requires_grad_(False)
