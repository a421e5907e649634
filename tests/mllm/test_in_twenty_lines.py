"""The README's section on language models, run as it stands, over small models instead of downloads."""

import re
from pathlib import Path

import torch
import transformers
from PIL import Image

import unitok
from tests.mllm.small import byte_words, language_model
from unitok.models.unitok import tiny

README = Path(__file__).parents[2] / "README.md"


def test_the_readmes_lines_run(tmp_path, monkeypatch):
    section = README.read_text().split("## Into your own language model")[1]
    code = re.search(r"```python\n(.*?)```", section, re.S).group(1)
    assert len(code.splitlines()) <= 22
    torch.manual_seed(0)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", lambda name: byte_words())
    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", lambda name: language_model())
    monkeypatch.setattr(unitok, "load_tokenizer", lambda: tiny().eval(), raising=False)
    Image.effect_noise((70, 80), 50).convert("RGB").save("photo.jpg")
    names: dict[str, object] = {}
    exec(compile(code, str(README), "exec"), names)
    assert names["logits"].shape[1] == names["data"]["input_ids"].shape[1]
    assert names["found"][0].codes.shape == (2, 4, 4)
    with Image.open("boat.png") as boat:
        assert boat.size == (64, 64)
