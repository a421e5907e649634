"""TA-Tok against the golden numbers of the reference, read through its published layout."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.parity.tar import fill, fixtures
from unitok.cli import main
from unitok.hub import load_tokenizer, save_tokenizer, weights_sha256
from unitok.models.ta_tok import read_published, ta_tok
from unitok.models.ta_tok import tiny as tiny_tokenizer
from unitok.tokenizer import Tokenizer

TINY = ["tatok_tiny", "tatok_tiny_l2dist", "tatok_tiny_learntemp"]
MARGIN = 1e-4


@pytest.fixture(scope="module", params=TINY)
def tiny(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Tokenizer]:
    path = tmp_path_factory.mktemp("published") / "ta_tok.pth"
    torch.save(fixtures.ta_tok_checkpoint(request.param), path)
    return request.param, load_tokenizer(path, encoder_heads=4)


@pytest.fixture(scope="module")
def so400m(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Tokenizer]]:
    path = tmp_path_factory.mktemp("published") / "ta_tok.pth"
    torch.save(fixtures.ta_tok_checkpoint("tatok_so400m"), path)
    yield "tatok_so400m", load_tokenizer(path)
    path.unlink()


def check(config: str, tokenizer: Tokenizer, images: Tensor) -> None:
    golden = fixtures.goldens(config)
    rows, exact = golden["rows"].long(), 1e-3 if config == "tatok_so400m" else 1e-4
    with torch.no_grad():
        hidden = tokenizer.encoder.hidden(images).flatten(1, 2)[:, rows]
    torch.testing.assert_close(hidden, golden["hidden_m2"], atol=exact, rtol=1e-4)
    size = tokenizer.codebook_size
    places = torch.tensor([0, 1, size // 3, size // 2, size - 2, size - 1])
    close(tokenizer.quantizer.codebook[places], golden["codebook_rows"], 1e-5)
    for scale in (1, 2, 3):
        check_scale(tokenizer, images, scale, {k[3:]: v for k, v in golden.items() if k.startswith(f"s{scale}.")})
    check_wide(config, tokenizer, golden["wide.indices"])


@torch.no_grad()
def check_scale(tokenizer: Tokenizer, images: Tensor, scale: int, golden: dict[str, Tensor]) -> None:
    features = tokenizer.encoder(images, scale)
    latents = tokenizer.project_in(features)
    side = features.shape[1]
    rows = golden["rows"].long()
    close(features.flatten(1, 2)[:, rows], golden["vq_feats"])
    close(latents.flatten(1, 2)[:, rows], golden["projected_z"])

    codes = tokenizer.encode(images, scale=scale)
    assert codes.shape == (len(images), 1, side, side)
    assert codes.dtype == torch.int64
    clear = golden["margin"] >= MARGIN
    assert torch.equal(codes.flatten(1)[clear], golden["indices"].long()[clear])
    if tokenizer.quantizer.normalize:
        tokenizer.quantizer.search = "scan"
        scanned = tokenizer.quantizer.quantize(latents)
        tokenizer.quantizer.search = "exact"
        assert torch.equal(scanned, codes)  # all of them, near ties too

    stored = golden["indices"].long().view(-1, 1, side, side)
    close(tokenizer.quantizer.dequantize(stored).flatten(1, 2)[:, rows], golden["regularized_z"], 1e-5)
    decoded = tokenizer.features(stored).flatten(1, 2)
    close(decoded[:, rows], golden["decode_from_bottleneck"])
    close(decoded.mean(-1), golden["decode_token_mean"], 1e-5)
    close(decoded[:, rows], golden["rec"])

    fixed = (7919 * torch.arange(side * side) % tokenizer.codebook_size).view(1, 1, side, side)
    close(tokenizer.features(fixed).flatten(1, 2)[:, rows], golden["decode_fixed_indices"])


def check_wide(config: str, tokenizer: Tokenizer, expected: Tensor) -> None:
    size = tokenizer.image_size
    wide = fill.image(f"{config}.wide", 1, size + 40)[:, :, : size + 16] / 255
    codes = tokenizer.encode(wide)
    flips = codes.flatten() != expected.flatten()
    if flips.any():  # allowed where the two candidates are near ties
        with torch.no_grad():
            latents = tokenizer.project_in(tokenizer.encoder(wide)).flatten(0, 2)[flips]
        table = tokenizer.quantizer.codebook
        unit = torch.nn.functional.normalize(latents, dim=-1)
        ours, theirs = ((unit * table[c.flatten()[flips].long()]).sum(-1) for c in (codes, expected))
        assert (ours - theirs).abs().max() < MARGIN


def close(actual: Tensor, expected: Tensor, tolerance: float = 1e-4) -> None:
    torch.testing.assert_close(actual, expected, atol=tolerance, rtol=0)


def test_goldens_of_the_tiny_configurations(tiny: tuple[str, Tokenizer]) -> None:
    config, tokenizer = tiny
    check(config, tokenizer, fixtures.goldens(config)["image_u8"] / 255)


def test_a_video_is_its_frames(tiny: tuple[str, Tokenizer]) -> None:
    config, tokenizer = tiny
    golden = fixtures.goldens(config)
    video = (golden["image_u8"] / 255)[:, None].expand(-1, 2, -1, -1, -1)
    codes = tokenizer.encode(video.flatten(0, 1))
    assert torch.equal(codes.flatten(1), golden["video.indices"].long())


@pytest.mark.slow
def test_goldens_of_the_published_size(so400m: tuple[str, Tokenizer]) -> None:
    config, tokenizer = so400m
    check(config, tokenizer, fill.image(f"{config}.image", 1, 384) / 255)


def published(**changes: object) -> dict[str, Any]:
    """A checkpoint of the tiny size in the published layout; `changes` go into its arguments."""
    checkpoint = fixtures.ta_tok_checkpoint("tatok_tiny")
    checkpoint["model"]["args"].update(changes)
    return checkpoint


def load(checkpoint: dict[str, Any], folder: Path, **options: Any) -> Tokenizer:
    path = folder / f"ta_tok_{len(list(folder.iterdir()))}.pth"  # weights stay mapped from the file they came from
    torch.save(checkpoint, path)
    return load_tokenizer(path, **{"encoder_heads": 4, **options})


def regularizer(checkpoint: dict[str, Any]) -> dict[str, Any]:
    return checkpoint["model"]["args"]["bottleneck"]["args"]["regularizer"]


def test_teacher_keys_are_dropped_and_both_decoder_layouts_are_read(tmp_path: Path) -> None:
    checkpoint = published()
    plain = load(checkpoint, tmp_path)
    weights = checkpoint["model"]["sd"]
    renamed = {name.replace("decoder.vision_model.", "decoder."): tensor for name, tensor in weights.items()}
    checkpoint["model"]["sd"] = {**renamed, "teacher.encoder.layers.0.weight": torch.zeros(3)}
    other = load(checkpoint, tmp_path)
    assert weights_sha256(plain) == weights_sha256(other)


def test_what_no_feature_needs_is_not_loaded(tmp_path: Path) -> None:
    tokenizer = load(published(), tmp_path)
    assert len(tokenizer.encoder.blocks) == 3
    unused = sum(p.numel() for p in tokenizer.encoder.blocks[0].parameters())
    in_file = sum(t.numel() for n, t in fixtures.weights("tatok_tiny").items() if not n.startswith("scale_layer"))
    heads = sum(t.numel() for n, t in fixtures.weights("tatok_tiny").items() if ".head." in n)
    final_norm = 2 * 96
    assert sum(p.numel() for p in tokenizer.parameters()) == in_file - unused - heads - final_norm


def test_a_selected_layer_is_honoured(tmp_path: Path) -> None:
    assert len(load(published(select_layer_id=-1), tmp_path).encoder.blocks) == 4
    assert len(load(published(select_layer_id=2), tmp_path).encoder.blocks) == 2
    with pytest.raises(ValueError, match="select_layer_id=-9 is no block of an encoder with 4 layers"):
        load(published(select_layer_id=-9), tmp_path)


def test_the_distance_rule_without_normalisation_is_read(tmp_path: Path) -> None:
    checkpoint = published()
    regularizer(checkpoint)["args"].update(l2_normalized=False, stochastic=False)
    tokenizer = load(checkpoint, tmp_path)
    images = torch.rand(1, 3, 84, 84)
    with torch.no_grad():
        latents = tokenizer.project_in(tokenizer.encoder(images)).flatten(0, 2)
        rows = tokenizer.quantizer.projection(tokenizer.quantizer.embedding)
    assert torch.equal(tokenizer.encode(images).flatten(), torch.cdist(latents, rows).argmin(-1))


def test_a_saved_folder_gives_the_same_codes_and_features(tmp_path: Path) -> None:
    tokenizer = load(published(), tmp_path)
    again = load_tokenizer(save_tokenizer(tokenizer, tmp_path / "folder"))
    images = torch.rand(2, 3, 60, 100)
    for scale in (1, 2, 3):
        codes = tokenizer.encode(images, scale=scale)
        assert torch.equal(again.encode(images, scale=scale), codes)
        assert torch.equal(again.features(codes), tokenizer.features(codes))


def test_the_command_line_converts_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(published(), tmp_path / "ta_tok.pth")
    words = ["convert", str(tmp_path / "ta_tok.pth"), str(tmp_path / "folder")]
    assert main(words) == 2
    assert "pass encoder_heads=" in capsys.readouterr().err
    assert main([*words, "--encoder-heads", "4"]) == 0
    images = torch.rand(1, 3, 84, 84)
    codes = load(published(), tmp_path).encode(images)
    assert torch.equal(load_tokenizer(tmp_path / "folder").encode(images), codes)


def test_halves_load_alone(tmp_path: Path) -> None:
    whole, images = load(published(), tmp_path), torch.rand(1, 3, 84, 84)
    codes = load(published(), tmp_path, parts="encode").encode(images)
    assert torch.equal(codes, whole.encode(images))
    assert torch.equal(load(published(), tmp_path, parts="decode").features(codes), whole.features(codes))


def test_decoding_says_which_detokenizer_to_pass(tmp_path: Path) -> None:
    tokenizer = load(published(), tmp_path)
    with pytest.raises(ValueError, match="detokenizer="):
        tokenizer.decode(torch.zeros(1, 1, 6, 6, dtype=torch.int64))


def test_a_wrong_scale(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"scale=4 is not one of the scales \(1, 2, 3\)"):
        load(published(), tmp_path).encode(torch.rand(1, 3, 84, 84), scale=4)


def test_heads_of_an_unknown_encoder_must_be_given_and_fit(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="pass encoder_heads="):
        load(published(), tmp_path, encoder_heads=None)
    with pytest.raises(ValueError, match="dim=96 must be a multiple of num_heads=7"):
        load(published(), tmp_path, encoder_heads=7)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"encoder_head": 4}, r"\['encoder_head'\] have no meaning"),
        ({"pixels": "vq.pt"}, "give detokenizer= too"),
        ({"detokenizer": "nowhere.pth"}, "nowhere.pth"),
    ],
)
def test_options_that_cannot_be_honoured(tmp_path: Path, options: dict[str, Any], words: str) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=words):
        load(published(), tmp_path, **options)


def test_an_unknown_regularizer_is_refused(tmp_path: Path) -> None:
    checkpoint = published()
    regularizer(checkpoint)["name"] = "fsq"
    with pytest.raises(ValueError, match="'fsq' is unknown"):
        load(checkpoint, tmp_path)


def test_another_scaling_of_images_is_refused(tmp_path: Path) -> None:
    checkpoint = published()
    checkpoint["model"]["sd"]["scale_layer.shift"] = torch.tensor([0.48, 0.46, 0.41]).view(1, 3, 1, 1)
    with pytest.raises(ValueError, match=r"scale_layer\.shift"):
        load(checkpoint, tmp_path)


def test_a_table_of_positions_that_does_not_fit(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="64 patches, but the table of positions has 36 rows"):
        load(published(input_size=112), tmp_path)


def test_keys_are_strict(tmp_path: Path) -> None:
    checkpoint = published()
    weights = checkpoint["model"]["sd"]
    weights["bottleneck.regularizer.stochastic_temperature_inv"] = torch.tensor(10.0)
    with pytest.raises(ValueError, match=r"1 unknown \(quantizer.inverse_temperature\)"):
        load(checkpoint, tmp_path)
    del weights["bottleneck.regularizer.stochastic_temperature_inv"], weights["encode_task_layer.0.bias"]
    with pytest.raises(ValueError, match=r"1 missing \(encoder.task.0.bias\)"):
        load(checkpoint, tmp_path)


def test_latents_as_wide_as_features_need_no_linear_layers() -> None:
    options: dict[str, Any] = {"encoder_depth": 1, "encoder_heads": 2, "encoder_mlp": 32, "codebook_size": 20}
    tokenizer = ta_tok(48, 8, 24, **options, latent_dim=24, decoder_depth=1, decoder_mlp=32, linear=False)
    codes = tokenizer.eval().encode(torch.rand(1, 3, 48, 48))
    assert tokenizer.features(codes).shape == (1, 6, 6, 24)
    with pytest.raises(ValueError, match="latent_dim=16 must equal encoder_dim=24"):
        ta_tok(48, 8, 24, **options, latent_dim=16, decoder_depth=1, decoder_mlp=32, linear=False)


def test_every_parameter_that_learns_is_reached() -> None:
    tokenizer = tiny_tokenizer().train()
    out = tokenizer(torch.rand(2, 3, 48, 48), decoded=0)
    (out.features.square().mean() + out.quantizer_loss).backward()
    idle = [name for name, p in tokenizer.named_parameters() if p.requires_grad and p.grad is None]
    assert idle == []


def test_the_defaults_are_those_of_the_published_file() -> None:
    keys = json.loads((Path(fixtures.__file__).parent / "tatok_so400m" / "keys.json").read_text())
    weights = {name: torch.empty(shape, device="meta") for name, (shape, *_) in keys.items()}
    weights |= {name: torch.full(shape, 0.5) for name, (shape, *_) in keys.items() if name.startswith("scale_layer")}
    found = read_published({"model": {"args": fixtures.meta("tatok_so400m")["args"], "sd": weights}})
    assert found is not None
    with torch.device("meta"):
        expected = ta_tok().state_dict()
    assert {name: tensor.shape for name, tensor in found.state.items()} == {n: t.shape for n, t in expected.items()}
