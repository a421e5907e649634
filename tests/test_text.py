import open_clip
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from unitok.models.unitok import tiny
from unitok.text import ContrastiveHead, TextTower


def test_open_clip_builds_a_zero_shot_classifier_of_a_tokenizer() -> None:
    torch.manual_seed(0)
    tokenizer, words = tiny().eval(), open_clip.get_tokenizer("ViT-B-32")
    names, templates = ["cat", "dog", "tench"], (lambda c: f"a photo of a {c}.", lambda c: f"a drawing of a {c}.")
    classifier = open_clip.build_zero_shot_classifier(
        tokenizer, words, names, templates, num_classes_per_batch=2, device="cpu", use_tqdm=False
    )
    assert classifier.shape == (16, 3)
    with torch.no_grad():
        for column, name in zip(classifier.T, names, strict=True):
            prompts = tokenizer.encode_text(words([template(name) for template in templates]), normalize=True)
            torch.testing.assert_close(column, F.normalize(prompts.mean(0), dim=0))
        assert (tokenizer.encode_image(torch.rand(2, 3, 64, 64), normalize=True) @ classifier).shape == (2, 3)


def test_words_after_the_end_of_text_change_nothing_and_those_before_do() -> None:
    torch.manual_seed(0)
    tower = TextTower(embed_dim=8, width=16, heads=2, layers=2, vocab_size=50, context_length=6).eval()
    ids = torch.tensor([[48, 5, 9, 49, 0, 0], [48, 5, 9, 49, 7, 3], [48, 6, 9, 49, 0, 0]])
    first, other_padding, other_word = tower(ids)
    torch.testing.assert_close(first, other_padding)
    assert (first - other_word).abs().max() > 1e-3


def test_a_narrow_word_table_is_widened() -> None:
    tower = TextTower(embed_dim=8, width=16, heads=2, layers=1, vocab_size=50, context_length=6, word_dim=4)
    assert tower.token_embedding[0].weight.shape == (50, 4)
    assert tower(torch.randint(50, (3, 6))).shape == (3, 8)


def test_a_tower_built_without_memory_has_its_mask() -> None:
    with torch.device("meta"):
        tower = TextTower(embed_dim=8, width=16, heads=2, layers=1, vocab_size=50, context_length=6)
    assert tower.attn_mask.device.type == "cpu"
    assert torch.equal(tower.attn_mask, torch.full((6, 6), float("-inf")).triu(1))


def test_image_embedding_is_its_formula() -> None:
    head, features = ContrastiveHead(4, 3, None), torch.randn(2, 3, 5, 4)
    nn.init.normal_(head.image_norm.weight)
    mean = features.flatten(1, 2).mean(1)
    normalised = (mean - mean.mean(1, keepdim=True)) / (mean.var(1, unbiased=False, keepdim=True) + 1e-6).sqrt()
    expected = head.image_projection(normalised * head.image_norm.weight + head.image_norm.bias)
    torch.testing.assert_close(head.embed_image(features), expected)
    torch.testing.assert_close(
        head.embed_image(features, normalize=True), expected / expected.norm(dim=1, keepdim=True)
    )
    assert head.logit_scale.exp().item() == pytest.approx(1 / 0.07)


def test_a_missing_text_tower_is_told() -> None:
    with pytest.raises(ValueError, match='parts="all"'):
        ContrastiveHead(4, 3, None).embed_text(torch.zeros(1, 6, dtype=torch.int64))
