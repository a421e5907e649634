import json

import pytest
import torch

from unitok.evaluation.protocol import Pipeline
from unitok.evaluation.retrieval import read_pairs, recalls, retrieve


def brute_force(scores, owners, k):
    images, captions = scores.shape
    first = [sorted(range(images), key=scores[:, c].neg().tolist().__getitem__)[:k] for c in range(captions)]
    last = [sorted(range(captions), key=scores[i].neg().tolist().__getitem__)[:k] for i in range(images)]
    right = sum(int(owners[c]) in first[c] for c in range(captions))
    left = sum(any(int(owners[c]) == i for c in last[i]) for i in range(images))
    return right / captions, left / images


def test_recall_equals_a_brute_force_search():
    scores = torch.randn(12, 36, generator=torch.Generator().manual_seed(0))
    owners = torch.arange(12).repeat_interleave(3)
    found = recalls(scores, owners)
    for k in (1, 5, 10):
        expected = brute_force(scores, owners, k)
        assert (found[f"text_to_image_r{k}"], found[f"image_to_text_r{k}"]) == pytest.approx(expected)
    assert 0 < found["text_to_image_r5"] < 1


def test_equal_scores_count_as_misses():
    found = recalls(torch.zeros(20, 20), torch.arange(20))
    assert set(found.values()) == {0.0}


def test_pairs_are_read_and_scored(folder, tokenizer, run, tmp_path):
    lines = [{"image": f"photos/cat/{i}.png", "captions": [f"cat {i}", "a cat"]} for i in (0, 2, 4)]
    path = tmp_path / "pairs.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    photos, captions = read_pairs(path)
    assert captions[1] == ["cat 2", "a cat"]
    report = retrieve("tiny", tokenizer, photos, captions, Pipeline(64, "bicubic", 64), run)
    assert report.protocol["kind"] == "retrieval"
    assert report.figures["text_to_image_r5"] == 1.0  # of three photos
    assert report.protocol["details"]["captions_count"] == 6


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", r"line 1 is not"),
        ('{"image": "a.png"}', "captions"),
        ('{"image": "a.png", "captions": []}', "no captions"),
        ('{"image": "a.png", "captions": ["x"]}', "no photo"),
        ("", "no lines"),
    ],
)
def test_bad_pairs(tmp_path, line, message):
    path = tmp_path / "pairs.jsonl"
    path.write_text(line)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        read_pairs(path)
