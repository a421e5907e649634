"""The adversary of a decoder: when it plays, how it is shown images, and its weight against the pixel losses."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from unitok.losses.adversarial import Criterion, adaptive_weight, consistency_loss, discriminator_loss, generator_loss
from unitok.losses.augmentation import augment
from unitok.training.schedules import ramp


@dataclass(frozen=True)
class Adversary:
    """How the discriminator learns. Times are shares of the run.

    Args:
        start: when it begins; before, it neither learns nor is asked.
        warmup: time over which its learning rate, and its weight in the tokenizer's loss, grow from 0.
        blur: time over which the blur before it fades.
        lr: learning rate after the warm-up.
        betas: of its AdamW.
        weight_decay: of its weights with two axes or more.
        final: last learning rate over `lr`.
        criterion: its loss.
        low: least adaptive weight.
        high: largest adaptive weight.
        augmentation: probability of each of translation, colour and cutout.
        cutout: side of the hole of the strong augmentation, as a share.
    """

    start: float = 0.375
    warmup: float = 0.03
    blur: float = 0.06
    lr: float = 2e-5
    betas: tuple[float, float] = (0.5, 0.9)
    weight_decay: float = 0.2
    final: float = 0.1
    criterion: Criterion = "hinge"
    low: float = 0.015
    high: float = 1e4
    augmentation: float = 1.0
    cutout: float = 0.2


class Moment(NamedTuple):
    """Where the adversary stands at a step.

    Attributes:
        playing: it has started.
        strength: factor on its weight, 0 to 1.
        blur: 1 is the full blur, 0 none.
    """

    playing: bool
    strength: float
    blur: float

    @classmethod
    def at(cls, step: int, total: int, adversary: Adversary) -> "Moment":
        """The moment of step `step` in a run of `total`."""
        past = step - int(adversary.start * total)
        return cls(past >= 0, ramp(past, adversary.warmup * total), 1 - ramp(past, adversary.blur * total))


class Pulled(NamedTuple):
    """Gradient at the reconstructed image, each network passed once.

    Attributes:
        gradient: (b, 3, H, W) of the pixel losses and the weighted adversarial loss together.
        adversarial: () generator loss.
        weight: () its whole weight.
    """

    gradient: Tensor
    adversarial: Tensor
    weight: Tensor


def pull(
    pixels: Tensor,
    leaf: Tensor,
    reconstructed: Tensor,
    discriminator: Any,
    last_layer: Tensor,
    adversary: Adversary,
    moment: Moment,
    strength: float,
    mean_over_ranks: Any,
) -> Pulled:
    """Gradients of the pixel and the adversarial loss at `leaf`, weighed against each other at the last layer.

    The usual form asks autograd for the last layer's gradient of either loss and then goes through both networks
    again for the real gradient. Here the networks are gone through once, down to the image; from there to the last
    layer is one layer, and the sum is then sent through the decoder in one backward pass.

    Args:
        pixels: () reconstruction loss, a function of `leaf`.
        leaf: (b, 3, H, W) in [0, 1], a detached copy of `reconstructed`.
        reconstructed: (b, 3, H, W) with its graph.
        discriminator: images in [-1, 1] -> logits.
        last_layer: weight at which norms are compared.
        adversary: its settings.
        moment: its clock.
        strength: the adversarial term's weight in the objective.
        mean_over_ranks: tensor -> its mean over ranks.
    """
    of_pixels = torch.autograd.grad(pixels, leaf)[0]
    shown = augment(2 * leaf - 1, moment.blur, adversary.augmentation)
    loss = generator_loss(discriminator(shown))
    of_adversary = torch.autograd.grad(loss, leaf)[0]
    there = [
        mean_over_ranks(torch.autograd.grad(reconstructed, last_layer, gradient, retain_graph=True)[0])
        for gradient in (of_pixels, of_adversary)
    ]
    weight = adaptive_weight(there[0], there[1], adversary.low, adversary.high) * moment.strength * strength
    return Pulled(of_pixels + weight * of_adversary, loss.detach(), weight)


def judge(
    real: Tensor, fake: Tensor, discriminator: Any, adversary: Adversary, moment: Moment, consistency: float
) -> tuple[Tensor, Tensor]:
    """(b, 3, H, W) real and reconstructed images in [-1, 1], no gradient to them -> () loss, () consistency loss."""
    both = torch.cat([real, fake])
    logits = discriminator(augment(both, moment.blur, adversary.augmentation))
    logits_real, logits_fake = logits.chunk(2)
    loss = discriminator_loss(logits_real, logits_fake, adversary.criterion)
    if not consistency:
        return loss, loss.new_zeros(())
    strong_real, strong_fake = discriminator(augment(both, 0.0, 1.0, adversary.cutout)).chunk(2)
    return loss, consistency_loss(strong_real, logits_real) + consistency_loss(strong_fake, logits_fake)
