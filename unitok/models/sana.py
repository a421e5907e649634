"""Dif-DTok: the SANA pipeline as a de-tokenizer, from its published folder or from plain values."""

from pathlib import Path
from typing import Any

import torch

from unitok.decoders.diffusion import NEGATIVE, SanaDecoder, import_diffusers
from unitok.models.catalogue import Published


def sana_dtok(
    transformer: dict[str, Any],
    autoencoder: dict[str, Any],
    scheduler: dict[str, Any],
    negative_length: int = 729,
    image_size: int = 512,
    steps: int = 28,
    guidance: float = 1.0,
) -> SanaDecoder:
    """A de-tokenizer from the configurations of its parts, with random weights.

    Args:
        transformer: configuration of diffusers' SanaTransformer2DModel.
        autoencoder: configuration of diffusers' AutoencoderDC.
        scheduler: configuration of a scheduler of diffusers, which its `_class_name` names.
        negative_length: tokens of the negative embeddings.
        image_size: as `SanaDecoder`.
        steps: as there.
        guidance: as there.

    Raises:
        ImportError: diffusers is missing.
        ValueError: a scheduler that diffusers does not have.
    """
    diffusers = import_diffusers()
    name = str(scheduler.get("_class_name"))
    kind = getattr(diffusers, name, None)
    if not (name.endswith("Scheduler") and isinstance(kind, type) and issubclass(kind, diffusers.SchedulerMixin)):
        raise ValueError(f"scheduler={name!r} is no scheduler of diffusers")
    return SanaDecoder(
        diffusers.SanaTransformer2DModel.from_config(transformer),
        diffusers.AutoencoderDC.from_config(autoencoder),
        kind.from_config(scheduler),  # type: ignore[attr-defined]
        torch.zeros(negative_length, transformer["caption_channels"]),
        image_size,
        steps,
        guidance,
    )


def describe(decoder: SanaDecoder) -> dict[str, Any]:
    """The arguments of `sana_dtok` that build a decoder of this shape."""
    return {
        "transformer": _plain(decoder.transformer.config),
        "autoencoder": _plain(decoder.autoencoder.config),
        "scheduler": {**_plain(decoder.scheduler.config), "_class_name": type(decoder.scheduler).__name__},
        "negative_length": decoder.negative.shape[1],
        "image_size": decoder.image_size,
        "steps": decoder.steps,
        "guidance": decoder.guidance,
    }


def load_sana(folder: str, image_size: int = 512, steps: int = 28, guidance: float = 1.0) -> SanaDecoder:
    """`SanaDecoder.from_folder` under a name that a recipe can write."""
    return SanaDecoder.from_folder(folder, image_size, steps, guidance)


def read_published(folder: Path) -> Published | None:
    """The folder of a SANA pipeline with negative_prompt_embeds.pth; None where it is another folder."""
    if not (folder / "model_index.json").is_file() or not (folder / NEGATIVE).is_file():
        return None
    decoder = SanaDecoder.from_folder(folder)
    return Published("sana", describe(decoder), dict(decoder.state_dict()))


def _plain(config: Any) -> dict[str, Any]:
    """What shapes a part, without what diffusers notes about versions and paths."""
    return {name: value for name, value in dict(config).items() if not name.startswith("_")}
