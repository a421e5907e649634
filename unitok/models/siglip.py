"""SigLIP's vision tower as published by its authors, read into the encoder of the text-aligned tokenizer."""

import os
import re
from pathlib import Path

from safetensors import SafetensorError, safe_open

from unitok.encoders.siglip import SiglipEncoder
from unitok.models.ta_tok import encoder_arguments, rename


def load_siglip(
    weights: str | os.PathLike[str], image_size: int | None = None, heads: int | None = None
) -> SiglipEncoder:
    """The safetensors file of a SigLIP or SigLIP 2 model -> its encoder, read one block before the end.

    What the file does not hold, the tokenizer's own task layer, is left at random: `hidden` does not use it. Files of
    the NaFlex variants, whose patches are a linear layer, are not read.

    Args:
        weights: model.safetensors in the layout of transformers; its text tower and pooling head are not read.
        image_size: the side images are brought to; None is what the table of positions and the patches give
            (378 for so400m-patch14-384, whose last 6 pixels no patch covers: give 384 there).
        heads: attention heads, for a width that is not a SigLIP 2 size.

    Raises:
        FileNotFoundError: no such file.
        ValueError: another kind of file, or sizes that are not to be known from it.
    """
    if not Path(weights).is_file():
        raise FileNotFoundError(f"no SigLIP weights at {weights}; download model.safetensors of a SigLIP 2 model")
    try:
        with safe_open(weights, framework="pt") as file:
            names = [name for name in file.keys() if re.match(_VISION, name)]  # noqa: SIM118
            published = {"encoder." + name.removeprefix("vision_model."): file.get_tensor(name) for name in names}
    except SafetensorError as error:
        raise ValueError(f"{weights} is not a whole safetensors file: {error}") from error
    positions = published.get("encoder.embeddings.position_embedding.weight")
    patches = published.get("encoder.embeddings.patch_embedding.weight")
    if positions is None or patches is None or patches.ndim != 4:
        raise ValueError(f"{weights} holds no SigLIP vision tower with square patches and a table of positions")
    size = image_size or round(len(positions) ** 0.5) * patches.shape[-1]
    sizes = encoder_arguments({"input_size": size}, published, heads)
    encoder = SiglipEncoder(size, sizes["patch_size"], *(sizes[f"encoder_{name}"] for name in _SIZES))
    state = {name.removeprefix("encoder."): value for name, value in rename(published, sizes["encoder_depth"]).items()}
    own = {f"task.{name}": value for name, value in encoder.task.state_dict().items()}
    encoder.load_state_dict(state | own)
    return encoder


_VISION = r"^(vision_model\.)?(embeddings\.(patch|position)|encoder\.layers\.)"
_SIZES = ("dim", "depth", "heads", "mlp")
