import pytest
import torch

from tests.mllm.small import byte_words, language_model
from unitok.mllm import build
from unitok.models import ta_tok
from unitok.models.unitok import tiny


@pytest.fixture
def language(tmp_path):
    language_model().save_pretrained(tmp_path)
    byte_words().save_pretrained(tmp_path)
    return str(tmp_path)


def test_a_text_aligned_codebook_becomes_rows(language, monkeypatch):
    visual = ta_tok.tiny().eval()
    monkeypatch.setattr(build, "load_tokenizer", lambda source: visual)
    made = build.pretrained(language, "ta_tok", dtype="float32")
    vocabulary = made.model.vocabulary
    assert vocabulary.grids == ((6, 6), (3, 3), (2, 2))
    rows = made.model.model.get_input_embeddings().weight[vocabulary.first_code : vocabulary.first_code + 64]
    assert torch.equal(rows, visual.quantizer.codebook)


def test_from_scratch_code_words_are_alike_where_codes_are(tmp_path, monkeypatch):
    visual = ta_tok.tiny().eval()
    monkeypatch.setattr(build, "load_tokenizer", lambda source: visual)
    (tmp_path / "captions.jsonl").write_text('{"captions": ["a dog", "a cat"]}\n')
    made = build.from_scratch(str(tmp_path / "captions.jsonl"), packed=False, num_words=300, dim=1024, depth=1)
    vocabulary, table = made.model.vocabulary, made.model.model.get_input_embeddings().weight
    rows = table[vocabulary.first_code : vocabulary.first_code + 64]
    torch.testing.assert_close(rows.std(), table[: vocabulary.first].std(), rtol=0.05, atol=0)
    codebook = visual.quantizer.codebook - visual.quantizer.codebook.mean(0)
    distances = [torch.cdist(part, part).flatten() for part in (rows, codebook)]
    assert torch.corrcoef(torch.stack(distances))[0, 1] > 0.9
    assert made.generate_codes("a dog").shape == (1, 1, 6, 6)


@pytest.mark.filterwarnings("ignore")  # peft's on tied weights
def test_packed_under_adapters(language, monkeypatch):
    monkeypatch.setattr(build, "load_tokenizer", lambda source: tiny().eval())
    sizes = {"head_dim": 16, "head_depth": 1, "head_heads": 2}
    made = build.pretrained(language, packed=True, size=32, dtype="float32", lora_rank=2, **sizes)
    assert made.model.vocabulary.grids == ((2, 2),)
    learned = {name for name, p in made.model.named_parameters() if p.requires_grad}
    assert any("lora" in name for name in learned)
    assert any(name.startswith("depth_head") for name in learned)
    assert not any(name.endswith("layernorm.weight") for name in learned)
    assert made.generate_codes("a dog").shape == (1, 2, 2, 2)


def test_wrong_dtype_is_refused(language):
    with pytest.raises(ValueError, match="float16"):
        build.pretrained(language, dtype="float16")


def test_a_missing_extra_names_its_command(monkeypatch):
    monkeypatch.setattr(build, "find_spec", lambda package: None)
    with pytest.raises(ImportError, match=r"transformers and peft: pip install \"unitok-vision\[mllm\]\""):
        build.pretrained("nowhere", lora_rank=1)
