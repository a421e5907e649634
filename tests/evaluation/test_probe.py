import math

import pytest
import torch

from unitok.evaluation.classes import read_classes
from unitok.evaluation.photos import find_photos
from unitok.evaluation.probe import knn, linear_probe, probe_features
from unitok.evaluation.protocol import Pipeline


def test_knn_equals_a_loop():
    generator = torch.Generator().manual_seed(0)
    known, asked = torch.randn(60, 8, generator=generator), torch.randn(15, 8, generator=generator)
    labels = torch.randint(0, 4, (60,), generator=generator)
    expected = []
    for vector in asked:
        cosine = [float(vector @ other / vector.norm() / other.norm()) for other in known]
        votes = [0.0] * 4
        for index in sorted(range(60), key=lambda index: -cosine[index])[:20]:
            votes[labels[index]] += math.exp(cosine[index] / 0.07)
        expected.append(votes.index(max(votes)))
    assert knn(known, labels, asked, 4).tolist() == expected


def test_a_linear_probe_learns_what_is_linear_and_nothing_else():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(400, 6, generator=generator) * torch.tensor([1, 1, 1, 100, 1, 1e-3]) + 5
    labels = 2 * (features[:, 0] + features[:, 1] > 10).long() + (features[:, 5] > 5).long()
    found = linear_probe(features[:300], labels[:300], features[300:], 4)
    assert (found == labels[300:]).double().mean() > 0.9
    shuffled = labels[torch.randperm(300, generator=generator)]
    assert (linear_probe(features[:300], shuffled, features[300:], 4) == labels[300:]).double().mean() < 0.5


def test_a_report_of_codes_against_the_encoder(folder, tokenizer, run):
    photos = find_photos(folder)
    labelled = (photos, read_classes(photos))
    report = probe_features("tiny", tokenizer, labelled, labelled, Pipeline(64, "bicubic", 64), run)
    assert report.figures["knn_cost"] == report.figures["knn_encoder"] - report.figures["knn_codes"]
    assert report.figures["linear_encoder"] >= 0.5
    assert report.protocol["details"]["train_count"] == 7
    other = labelled[1]._replace(names=["a", "b"])
    with pytest.raises(ValueError, match="classes differ"):
        probe_features("tiny", tokenizer, labelled, (photos, other), Pipeline(64, "bicubic", 64), run)
