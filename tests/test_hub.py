import json
import pickle
import shutil
import zipfile
from pathlib import Path

import huggingface_hub
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from unitok import hub
from unitok.hub import load_tokenizer, save_tokenizer
from unitok.models import ta_tok
from unitok.models.unitok import tiny, unitok_tiny


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(2, 3, 48, 64, generator=torch.Generator().manual_seed(0))


def test_new_codebooks_leave_every_other_weight(images, tmp_path):
    old = load_tokenizer()
    new = hub.with_new_codebooks(num_codebooks=1, codebook_size=7)
    codes = new.encode(images)
    assert codes.shape[1] == 1
    assert codes.max() < 7
    before, after = old.state_dict(), new.state_dict()
    assert {key for key in before if not before[key].equal(after[key])} == {"quantizer.codebooks"}
    assert torch.equal(load_tokenizer(save_tokenizer(new, tmp_path / "new")).encode(images), codes)
    with pytest.raises(ValueError, match="num_codebooks=3"):
        hub.with_new_codebooks(num_codebooks=3, codebook_size=7)


def test_codebooks_of_words_are_not_replaced(tmp_path):
    words = save_tokenizer(ta_tok.tiny(), tmp_path / "words")
    with pytest.raises(ValueError, match="no codebooks that could be"):
        hub.with_new_codebooks(words, num_codebooks=1, codebook_size=7)


def test_saved_and_loaded_are_alike(tiny_folder, tmp_path, images):
    first = load_tokenizer(tiny_folder)
    again = load_tokenizer(save_tokenizer(first, tmp_path / "deep" / "copy", metadata={"source": "here"}))
    codes = first.encode(images)
    assert torch.equal(again.encode(images), codes)
    assert torch.equal(again.decode(codes), first.decode(codes))
    assert hub.weights_sha256(again) == hub.weights_sha256(first)
    assert not again.training
    assert again.config == first.config
    with safe_open(tmp_path / "deep" / "copy" / "model.safetensors", "pt") as file:
        assert file.metadata()["source"] == "here"
    first.quantizer.codebooks.data[0, 0, 0] += 1
    assert hub.weights_sha256(again) != hub.weights_sha256(first)


def test_half_a_tokenizer_walks_half_the_way(tiny_folder, images, tmp_path):
    whole = load_tokenizer(tiny_folder)
    codes = whole.encode(images)
    front, back = load_tokenizer(tiny_folder, parts="encode"), load_tokenizer(tiny_folder, parts="decode")
    assert torch.equal(front.encode(images), codes)
    assert torch.equal(front.encode_image(images), whole.encode_image(images))
    assert torch.equal(front.features(codes), whole.features(codes))
    assert torch.equal(back.decode(codes), whole.decode(codes))
    assert front.decoder is None
    assert front.contrast.text is None
    assert back.encoder is None
    assert back.project_in is None
    assert back.contrast is None
    with pytest.raises(ValueError, match=r"decode needs the decoder, which .* was not loaded with"):
        front.decode(codes)
    with pytest.raises(ValueError, match='text tower was not loaded; load the tokenizer with parts="all"'):
        front.encode_text(torch.zeros(1, 77, dtype=torch.int64))
    with pytest.raises(ValueError, match="encode needs the encoder"):
        back.encode(images)
    with pytest.raises(ValueError, match=r'weights are missing.*parts="all" to save it'):
        save_tokenizer(front, tmp_path / "half")
    with pytest.raises(ValueError, match="parts='both' is not one of"):
        load_tokenizer(tiny_folder, parts="both")


def test_bfloat16_weights_and_plausible_codes(tiny_folder, images, monkeypatch):
    monkeypatch.setattr(hub, "_multiplies_bfloat16", lambda: True)
    exact, fast = load_tokenizer(tiny_folder), load_tokenizer(tiny_folder, dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in fast.parameters()} == {torch.bfloat16}
    codes = fast.encode(images)
    assert codes.dtype == torch.int64
    assert (codes == exact.encode(images)).float().mean() > 0.5  # chance would be 1 / 32
    assert fast.decode(codes).dtype == torch.float32


def test_a_cpu_that_is_slow_in_bfloat16_is_told_of(tiny_folder, monkeypatch):
    monkeypatch.setattr(hub, "_multiplies_bfloat16", lambda: False)
    with pytest.warns(RuntimeWarning, match="no instructions for bfloat16"):
        load_tokenizer(tiny_folder, dtype=torch.bfloat16)
    load_tokenizer(tiny_folder)  # a warning is an error in these tests


def test_building_draws_no_random_weights(tiny_folder):
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    load_tokenizer(tiny_folder)
    assert torch.equal(torch.rand(1), expected)


def test_push_to_hub_uploads_the_folder(tiny_folder, tmp_path, monkeypatch):
    calls = []

    class Api:
        def create_repo(self, name, exist_ok):
            calls.append(("create", name, exist_ok))

        def upload_folder(self, repo_id, folder_path):
            calls.append(("upload", repo_id, sorted(path.name for path in folder_path.iterdir())))

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    save_tokenizer(load_tokenizer(tiny_folder), tmp_path / "out", push_to_hub="owner/name")
    assert calls == [
        ("create", "owner/name", True),
        ("upload", "owner/name", ["config.json", "model.safetensors"]),
    ]


def test_a_hub_name_is_fetched(tiny_folder, monkeypatch, images):
    asked = []

    def snapshot_download(name, revision, allow_patterns):
        asked.append((name, revision, sorted(allow_patterns)))
        return str(tiny_folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    fetched = load_tokenizer("owner/name", revision="v1")
    assert asked == [("owner/name", "v1", ["config.json", "model.safetensors"])]
    assert torch.equal(fetched.encode(images), load_tokenizer(tiny_folder).encode(images))

    def offline(*args, **kwargs):
        raise huggingface_hub.errors.LocalEntryNotFoundError("no connection\nand nothing cached")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    with pytest.raises(
        OSError, match=r"'owner/name' is no local file or folder, and the Hub.*no connection and nothing"
    ):
        load_tokenizer("owner/name")


def test_names(tmp_path, monkeypatch):
    assert {"unitok", "unitok_tiny"} <= set(hub.list_tokenizers())
    monkeypatch.setattr(hub, "ASSETS", tmp_path)
    with pytest.raises(FileNotFoundError, match="no trained weights of 'unitok_tiny' come with this package"):
        load_tokenizer()
    with pytest.raises(FileNotFoundError, match=r"no tokenizer 'unitok_tinny'.*'unitok_tiny'"):
        load_tokenizer("unitok_tinny")
    with pytest.raises(FileNotFoundError, match="no checkpoint file"):
        hub.convert(tmp_path / "none.pth", tmp_path / "out")
    save_tokenizer(unitok_tiny(num_codebooks=2, codebook_size=16), tmp_path / "unitok_tiny")
    assert load_tokenizer("unitok_tiny").codebook_size == 16


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("{", "is not JSON"),
        ("[1]", "found list"),
        ('{"tokenizer": "tiny"}', r"exactly the keys 'tokenizer' and 'arguments', found \['tokenizer'\]"),
        ('{"tokenizer": "tiny", "arguments": {}, "auto_map": "x.py"}', "'auto_map'"),
        ('{"tokenizer": "os.system", "arguments": {}}', r"'os\.system' is not one of"),
        ('{"tokenizer": ["tiny"], "arguments": {}}', "is not one of"),
        ('{"tokenizer": "tiny", "arguments": [1]}', "'arguments' must be a table"),
        ('{"tokenizer": "unitok_tiny", "arguments": {"codebooks": 3}}', r"no arguments \['codebooks'\]; it takes"),
        (
            '{"tokenizer": "unitok_tiny", "arguments": {"num_codebooks": "8"}}',
            "num_codebooks='8' is not of the type int",
        ),
        ('{"tokenizer": "unitok_tiny", "arguments": {"num_codebooks": true}}', "num_codebooks=True"),
        ('{"tokenizer": "unitok_tiny", "arguments": {"num_codebooks": 3}}', "latent_dim=64 must be a multiple of"),
        ('{"tokenizer": "unitok_tiny", "arguments": {"num_codebooks": 0}}', "do not make a unitok_tiny"),
        ('{"tokenizer": "unitok_tiny", "arguments": {"codebook_size": -4}}', "do not make a unitok_tiny"),
        ('{"tokenizer": "unitok", "arguments": {"size": "huge"}}', "size='huge'"),
    ],
)
def test_bad_configs(tiny_folder, tmp_path, config, message):
    shutil.copy(tiny_folder / "model.safetensors", tmp_path)
    (tmp_path / "config.json").write_text(config)
    with pytest.raises(ValueError, match=message):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: {k: v for k, v in s.items() if "norm" not in k}, r"missing \(encoder\.\S+, \S+, \S+, \S+, \.\.\.\)"),
        (lambda s: {**s, "virus": torch.zeros(1)}, r"1 unknown \(virus\)"),
        (
            lambda s: {**s, "quantizer.codebooks": torch.zeros(2, 31, 8)},
            r"quantizer\.codebooks \(2, 31, 8\) instead of \(2, 32, 8\)",
        ),
        (
            lambda s: {**s, "quantizer.codebooks": torch.zeros(2, 32, 8, dtype=torch.int64)},
            r"of another type \(quantizer\.codebooks torch\.int64\)",
        ),
    ],
)
def test_weights_that_do_not_fit(tiny_folder, tmp_path, change, message):
    shutil.copy(tiny_folder / "config.json", tmp_path)
    save_file(change(load_file(tiny_folder / "model.safetensors")), tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=f"weights of .* do not fit: .*{message}"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize("keep", [0, 4, 100, -1])
def test_truncated_weights(tiny_folder, tmp_path, keep):
    shutil.copy(tiny_folder / "config.json", tmp_path)
    content = (tiny_folder / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(content[:keep])
    with pytest.raises(ValueError, match=r"model\.safetensors is not a whole safetensors file"):
        load_tokenizer(tmp_path)


def test_incomplete_folders(tiny_folder, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"it has no config\.json"):
        load_tokenizer(tmp_path)
    shutil.copy(tiny_folder / "config.json", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"it has no model\.safetensors"):
        load_tokenizer(tmp_path)
    with pytest.raises(ValueError, match="for published checkpoint files only"):
        load_tokenizer(tiny_folder, decoder="x")
    with pytest.raises(ValueError, match="put together by hand"):
        save_tokenizer(tiny(), tmp_path)


class Touch:
    """A pickle that makes a file when it is opened carelessly."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def test_a_malicious_pickle_is_refused_and_not_run(tmp_path):
    torch.save({"args": {}, "trainer": {"unitok": Touch(tmp_path / "harm")}}, tmp_path / "new.pth")
    (tmp_path / "old.pth").write_bytes(pickle.dumps({"args": Touch(tmp_path / "harm")}, protocol=2))
    for name in ("new.pth", "old.pth"):
        with pytest.raises(ValueError, match=rf"{name} is refused: it holds more than weights and plain values"):
            load_tokenizer(tmp_path / name)
    assert not (tmp_path / "harm").exists()


def test_files_that_are_no_checkpoint(tmp_path):
    path = tmp_path / "file.pth"
    for content in (b"", b"hello", b"PK\x03\x04 not a zip", bytes(1000)):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"file\.pth"):
            load_tokenizer(path)
    torch.save({"weights": torch.zeros(1000)}, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"file\.pth"):
        load_tokenizer(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "no weights here")
    with pytest.raises(ValueError, match="not a readable checkpoint"):
        load_tokenizer(path)
    torch.save(torch.zeros(3), path)
    with pytest.raises(ValueError, match="holds a Tensor, not a checkpoint"):
        load_tokenizer(path)


@pytest.mark.parametrize(
    ("checkpoint", "message"),
    [
        ({"state_dict": {}, "epoch": 1}, "no tokenizer this library knows; its top-level keys are state_dict, epoch"),
        ({"args": [1], "trainer": {"unitok": {}}}, "must be tables"),
        ({"args": {"num_query": 4}, "trainer": {"unitok": {}}}, "num_query=4: register tokens have no place"),
        ({"args": {"model": "vitamin_xl"}, "trainer": {"unitok": {}}}, "'vitamin_xl' is not one of"),
        ({"args": {"quant_proj": "mlp"}, "trainer": {"unitok": {}}}, "quant_proj='mlp'"),
        ({"args": {"num_codebooks": 3}, "trainer": {"unitok": {}}}, "vocab_size=32768 must be a multiple of"),
        ({"args": {"num_codebooks": 0}, "trainer": {"unitok": {}}}, "whole numbers above 0: num_codebooks=0"),
        ({"args": {"embed_dim": "768"}, "trainer": {"unitok": {}}}, "embed_dim='768'"),
        ({"args": {"text_heads": 5}, "trainer": {"unitok": {}}}, "do not make a unitok"),
        ({"args": {"text_layers": 1, "model": "vitamin_base"}, "trainer": {"unitok": {}}}, "missing"),
        ({"args": {"text_layers": 1, "model": "vitamin_base"}, "trainer": {"unitok": {"a": 3}}}, "not tensors.*: a"),
    ],
)
def test_published_files_of_another_kind(tmp_path, checkpoint, message):
    torch.save(checkpoint, tmp_path / "published.pth")
    with pytest.raises(ValueError, match=message):
        load_tokenizer(tmp_path / "published.pth")


def test_the_config_is_plain_json(tiny_folder):
    assert json.loads((tiny_folder / "config.json").read_text()) == {"tokenizer": "tiny", "arguments": {}}
