"""Which tokenizer made codes, whichever of its parts were loaded."""

from typing import Any

from torch import nn

from unitok.hub import weights_sha256
from unitok.tokenizer import Tokenizer


def codes_sha256(tokenizer: Tokenizer) -> str:
    """The sha256 of the weights that decide the codes: encoder, project_in and quantizer, names included."""
    return weights_sha256(Tokenizer(tokenizer.encoder, tokenizer.project_in, tokenizer.quantizer, nn.Identity(), None))


def check_tokenizer(tokenizer: Tokenizer, manifest: dict[str, Any], where: str) -> None:
    """Raise ValueError unless a manifest's codes were made by this tokenizer."""
    made, given = manifest["tokenizer"], codes_sha256(tokenizer)
    if made["weights_sha256"] != given:
        raise ValueError(
            f"the tokens in {where} were made by {made['name']!r} with weights {made['weights_sha256'][:12]}..., "
            f"this tokenizer has {given[:12]}...: give the one that made them"
        )
