import pytest
import torch

from tests.mllm.small import ARCHITECTURES, byte_words, language_model
from unitok.mllm.expand import expand_vocabulary, fit_rows, words_of
from unitok.mllm.vocabulary import VisualVocabulary

IDS = torch.randint(257, (2, 9), generator=torch.Generator().manual_seed(0))


def vocabulary(**options):
    return VisualVocabulary(byte_words(), 1, 32, [(2, 2)], **options)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", ARCHITECTURES)
@torch.no_grad()
def test_old_logits_stay_to_the_last_bit(kind, dtype):
    model, visual = language_model(kind).to(dtype), vocabulary()
    before = model(IDS).logits
    expansion = expand_vocabulary(model, visual)
    after = model(IDS).logits
    assert torch.equal(after[..., :257], before)
    assert after.shape[-1] == visual.stop == model.config.vocab_size
    assert expansion.rows == (257, visual.stop)
    assert model.get_input_embeddings().weight.dtype == dtype
    tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert tied == (kind in ("qwen2", "gpt2"))


@pytest.mark.parametrize("kind", ["qwen2", "llama"])
def test_new_rows_are_the_mean(kind):
    model, visual = language_model(kind), vocabulary()
    old = [part.weight.detach().clone() for part in (model.get_input_embeddings(), model.get_output_embeddings())]
    assert expand_vocabulary(model, visual).codes == "mean"
    new = [part.weight for part in (model.get_input_embeddings(), model.get_output_embeddings())]
    for before, after in zip(old, new, strict=True):
        assert torch.equal(after[:257], before)
        torch.testing.assert_close(after[257:], before.mean(0).expand(visual.stop - 257, -1))


def test_rows_are_the_codebook_where_widths_agree():
    model, visual = language_model(), vocabulary()
    codebook = torch.nn.functional.normalize(torch.randn(32, 16), dim=-1)
    assert expand_vocabulary(model, visual, codebook).codes == "codebook"
    rows = model.get_input_embeddings().weight[visual.first_code : visual.first_code + 32]
    assert torch.equal(rows, codebook)


def test_rows_are_fitted_where_they_do_not():
    model, visual = language_model(), vocabulary()
    text = model.get_input_embeddings().weight.detach().clone()
    turn = torch.randn(16, 24)
    word_ids = torch.arange(40, 72)
    codebook = text[word_ids] @ turn + 0.3  # a codebook that is the model's words, seen from elsewhere
    word_ids[5] = -1
    expansion = expand_vocabulary(model, visual, codebook, word_ids)
    rows = model.get_input_embeddings().weight[visual.first_code : visual.first_code + 32]
    assert expansion.codes == "fitted"
    assert expansion.fit > 0.99
    torch.testing.assert_close(rows, text[40:72], atol=2e-3, rtol=0.05)


def test_a_fit_of_noise_explains_little():
    generator = torch.Generator().manual_seed(0)
    text, codebook = torch.randn(600, 4, generator=generator), torch.randn(500, 3, generator=generator)
    _, share = fit_rows(codebook, text, torch.arange(500))
    assert share < 0.1


def test_without_words_it_warns_and_takes_the_mean():
    model = language_model()
    with pytest.warns(UserWarning, match="24 wide and the model 16"):
        assert expand_vocabulary(model, vocabulary(), torch.randn(32, 24)).codes == "mean"


def test_twice_is_once(tmp_path):
    model, visual = language_model(), vocabulary()
    expand_vocabulary(model, visual)
    with torch.no_grad():
        model.get_input_embeddings().weight[visual.first_code] = 3.0  # as if trained
    model.save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path)
    expansion = expand_vocabulary(loaded, visual)
    assert expansion.codes == "kept"
    assert bool((loaded.get_input_embeddings().weight[visual.first_code] == 3.0).all())
    with pytest.raises(ValueError, match="was expanded for"):
        expand_vocabulary(loaded, vocabulary(max_side=8))


def test_spare_rows_are_used_and_nothing_shrinks():
    model, visual = language_model(rows=600), vocabulary(max_side=4)
    expansion = expand_vocabulary(model, visual)
    assert expansion.rows == (600, 600)
    table = model.get_input_embeddings().weight
    torch.testing.assert_close(table[visual.begin], table[:257].mean(0))


def test_what_does_not_match_is_refused():
    with pytest.raises(ValueError, match="model has 100 rows"):
        expand_vocabulary(language_model(rows=100), vocabulary())
    with pytest.raises(ValueError, match="has 32 codes"):
        expand_vocabulary(language_model(), vocabulary(), torch.randn(31, 16))
    with pytest.raises(ValueError, match="packed"):
        expand_vocabulary(language_model(), vocabulary(packed=True), torch.randn(32, 16))


def test_words_that_are_one_id():
    assert words_of(byte_words(), ["a", "ab", "<|endoftext|>"]).tolist() == [byte_words()("a")["input_ids"][0], -1, 256]
