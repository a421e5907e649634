import torch
from safetensors import safe_open

from unitok import hub
from unitok.cli import main
from unitok.files import sha256
from unitok.models.catalogue import Published


def test_list_names_the_catalogue(capsys):
    assert main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == hub.list_tokenizers()


def test_info_counts(tiny_folder, capsys):
    assert main(["info", str(tiny_folder)]) == 0
    out = capsys.readouterr().out
    tokenizer = hub.load_tokenizer(tiny_folder)
    assert f"{sum(parameter.numel() for parameter in tokenizer.parameters()):,}" in out
    assert "K = 2 codebooks of V = 32, 10 bits per token" in out
    assert "16 x 16 px, 0.03906 bits per pixel" in out
    assert hub.weights_sha256(tokenizer) in out


def test_convert_names_its_source(tiny_folder, tmp_path, monkeypatch, capsys):
    state = {f"old.{name}": tensor for name, tensor in hub.load_tokenizer(tiny_folder).state_dict().items()}
    torch.save({"tiny": state}, tmp_path / "released.pth")

    def reader(checkpoint):
        weights = {name.removeprefix("old."): tensor for name, tensor in checkpoint["tiny"].items()}
        return Published("tiny", {}, weights)

    monkeypatch.setattr(hub, "READERS", (reader,))
    assert main(["convert", str(tmp_path / "released.pth"), str(tmp_path / "folder")]) == 0
    assert f"wrote {tmp_path / 'folder'}: config.json and model.safetensors" in capsys.readouterr().out
    with safe_open(tmp_path / "folder" / "model.safetensors", "pt") as file:
        metadata = file.metadata()
    assert metadata["source"] == "released.pth"
    assert metadata["source_sha256"] == sha256(tmp_path / "released.pth")
    ours = hub.weights_sha256(hub.load_tokenizer(tmp_path / "folder"))
    assert ours == hub.weights_sha256(hub.load_tokenizer(tiny_folder))
    assert main(["convert", str(tmp_path / "none.pth"), str(tmp_path / "folder")]) == 2
