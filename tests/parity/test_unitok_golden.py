"""The published architecture, number by number, against files that an independent implementation wrote."""

from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from unitok_weights import filled, golden, load_json, published, sha256

from unitok.models.unitok import rename
from unitok.tokenizer import Tokenizer

MARGIN = 1e-4


class Case(NamedTuple):
    tokenizer: Tokenizer
    numbers: dict[str, Tensor]
    meta: dict[str, Any]
    images: Tensor

    @property
    def codes(self) -> Tensor:
        return self.numbers["codes"].long().unflatten(-1, (16, 16))


@pytest.fixture(scope="module", params=["base4", pytest.param("large", marks=pytest.mark.slow)])
def case(request: pytest.FixtureRequest) -> Case:
    numbers = golden(request.param, "golden.safetensors")
    images = numbers["image_u8"].permute(0, 3, 1, 2).float() / 255
    tokenizer = filled(request.param, use_entropy=True)
    return Case(tokenizer, numbers, load_json(request.param, "meta.json"), images)


@pytest.fixture(scope="module")
def walked(case: Case) -> tuple[Tensor, Tensor, Tensor]:
    """Features, latents and codes of the two images."""
    with torch.no_grad():
        features = case.tokenizer.encoder(case.images)
        latents = case.tokenizer.project_in(features)
        return features, latents, case.tokenizer.quantizer.quantize(latents)


def close(ours: Tensor, theirs: Tensor, atol: float) -> None:
    torch.testing.assert_close(ours, theirs.reshape(ours.shape), atol=atol, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("config", ["base4", "large"])
def test_the_weights_are_those_of_the_golden_run(config: str) -> None:
    assert sha256(published(config)["trainer"]["unitok"]) == load_json(config, "meta.json")["weights_sha256"]


def test_features_and_latents(case: Case, walked: tuple[Tensor, Tensor, Tensor]) -> None:
    features, latents, _ = walked
    close(features[:1], case.numbers["encoder_out_0"], 1e-4)
    close(latents, case.numbers["quant_proj_out"], 1e-4)


def test_codes(case: Case, walked: tuple[Tensor, Tensor, Tensor]) -> None:
    equal = walked[2] == case.codes
    clear = (case.numbers["code_margin"] >= MARGIN).view_as(equal)
    assert clear.float().mean() > 0.99
    assert equal[clear].all()
    assert equal.float().mean() >= 0.999


def test_decoding_the_stored_codes(case: Case) -> None:
    with torch.no_grad():
        latents = case.tokenizer.quantizer.dequantize(case.codes)
        close(latents, case.numbers["quantized"], 1e-6)
        features = case.tokenizer.features(case.codes)
        close(features[:1], case.numbers["post_quant_0"], 1e-4)
        raw = case.tokenizer.decoder(features) * 2 - 1
    close(raw.clamp(-1, 1), case.numbers["rec"], 1e-4)
    close(torch.stack([raw.min(), raw.max()]), case.numbers["rec_raw_minmax"], 1e-4)


def test_image_and_text_features(case: Case, walked: tuple[Tensor, Tensor, Tensor]) -> None:
    ids = case.numbers["text_tokens"].long()
    with torch.no_grad():
        features = case.tokenizer.features(walked[2])
        image = case.tokenizer.contrast.embed_image(features)
        text = case.tokenizer.encode_text(ids)
        close(image, case.numbers["image_features"], 1e-4)
        close(F.normalize(image, dim=-1), case.numbers["image_features_norm"], 1e-5)
        close(text, case.numbers["text_features"], 1e-4)
        close(case.tokenizer.encode_text(ids, normalize=True), case.numbers["text_features_norm"], 1e-5)


def test_one_image_alone_has_the_codes_it_has_in_a_batch(case: Case, walked: tuple[Tensor, Tensor, Tensor]) -> None:
    alone = case.tokenizer.encode(case.images[1:])
    clear = (case.numbers["code_margin"][1:] >= MARGIN).view_as(alone)
    assert torch.equal(alone[clear], walked[2][1:][clear])
    close(case.tokenizer.encode_image(case.images[1:], normalize=True), case.numbers["image_features_norm"][1:], 1e-5)


def test_training_losses_and_every_gradient(case: Case) -> None:
    tokenizer, expected = case.tokenizer, case.meta["train"]
    for room in (tokenizer.encoder, tokenizer.decoder):
        room.blocks.checkpointing = len(room.blocks) > 14  # the large one would need too much memory
    tokenizer.train().zero_grad()
    out = tokenizer(case.images, decoded=1)
    image = tokenizer.contrast.embed_image(out.features, normalize=True)
    text = tokenizer.encode_text(case.numbers["text_tokens"][:2].long(), normalize=True)
    scale = tokenizer.contrast.logit_scale.exp()
    logits, labels = scale * image @ text.T, torch.arange(2)
    rec, target = out.images * 2 - 1, case.images[:1] * 2 - 1
    losses = {
        "l1": F.l1_loss(rec, target),
        "l2": F.mse_loss(rec, target),
        "vq_loss": out.quantizer_loss,
        "entropy_loss": out.entropy_loss,
        "logit_scale": scale,
        "clip_loss": (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2,
    }
    weights = {"l1": 0.2, "l2": 1.0, "vq_loss": 1.0, "entropy_loss": expected["le"], "clip_loss": 1.0}
    losses["total"] = sum(weight * losses[name] for name, weight in weights.items())
    losses["total"].backward()
    tokenizer.eval()

    for name, loss in losses.items():
        assert loss.item() == pytest.approx(expected[name], rel=1e-4), name
    close(rec.detach()[:, :, ::2, ::2], case.numbers["train_img_rec"], 1e-4)
    close(image.detach(), case.numbers["train_clip_image"], 1e-5)
    close(text.detach(), case.numbers["train_clip_text"], 1e-5)
    norms = case.meta["train_grad_norm"]
    ours = {name: None if p.grad is None else p.grad.norm().item() for name, p in tokenizer.named_parameters()}
    for k, book in enumerate(tokenizer.quantizer.codebooks.grad):
        ours[f"quantizer.codebooks.{k}.codebook.weight"] = book.norm().item()
    del ours["quantizer.codebooks"]
    assert {rename(name) for name in norms} == ours.keys()
    for name, norm in norms.items():
        assert ours[rename(name)] == (None if norm is None else pytest.approx(norm, rel=1e-3, abs=1e-7)), name
