"""Which tokenizer made codes, whichever of its parts were loaded."""

from typing import Any

from torch import nn

from unitok.hub import weights_sha256
from unitok.tokenizer import Tokenizer


def codes_sha256(tokenizer: Tokenizer) -> str:
    """The sha256 of the weights that decide the codes: encoder, project_in and quantizer, names included."""
    return weights_sha256(Tokenizer(tokenizer.encoder, tokenizer.project_in, tokenizer.quantizer, nn.Identity(), None))


def codebooks_sha256(tokenizer: Tokenizer) -> str:
    """The sha256 of the quantizer's weights, which every half of a tokenizer has."""
    nothing = nn.Identity()
    return weights_sha256(Tokenizer(None, None, tokenizer.quantizer, nothing, None))


def check_tokenizer(tokenizer: Tokenizer, manifest: dict[str, Any], where: str) -> None:
    """Raise ValueError unless this tokenizer has the codebooks that a manifest's codes point into."""
    made, given = manifest["tokenizer"], codebooks_sha256(tokenizer)
    if made["codebooks_sha256"] != given:
        raise ValueError(
            f"the tokens in {where} were made by {made['name']!r} with codebooks {made['codebooks_sha256'][:12]}..., "
            f"this tokenizer has {given[:12]}...: give the one that made them"
        )
