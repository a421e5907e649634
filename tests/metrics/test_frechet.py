import numpy as np
import pytest
import torch
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

from unitok.metrics.frechet import FeatureStatistics, Gaussian, frechet_distance


def statistics(features, batch=37):
    metric = FeatureStatistics(features.shape[1])
    for part in features.split(batch):
        metric.update(part)
    return metric.compute()


def clouds(count, dim):
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(dim, dim, generator=generator, dtype=torch.float64)
    first = torch.randn(count, dim, generator=generator, dtype=torch.float64)
    second = torch.randn(count, dim, generator=generator, dtype=torch.float64) @ mixing + 3
    return first, second


def fidelity(first, second):
    stats = [fid_features_to_statistics(cloud) for cloud in (first, second)]
    return fid_statistics_to_metric(*stats, verbose=False)["frechet_inception_distance"]


def test_equals_torch_fidelity_on_the_same_features():
    first, second = clouds(500, 64)
    assert frechet_distance(statistics(first), statistics(second)) == pytest.approx(fidelity(first, second), rel=1e-6)


def test_rank_deficient_covariances_agree_with_torch_fidelity():
    first, second = clouds(20, 64)
    expected = fidelity(first, second)
    assert frechet_distance(statistics(first), statistics(second)) == pytest.approx(expected, rel=1e-6)
    assert frechet_distance(statistics(second), statistics(first)) == pytest.approx(expected, rel=1e-6)


def test_closed_form_of_diagonal_gaussians():
    first = Gaussian(torch.tensor([1.0, 2.0, 3.0]), torch.diag(torch.tensor([4.0, 9.0, 0.0])), 10)
    second = Gaussian(torch.tensor([1.0, 0.0, 0.0]), torch.diag(torch.tensor([1.0, 1.0, 25.0])), 10)
    assert frechet_distance(first, second) == pytest.approx(4 + 9 + (2 - 1) ** 2 + (3 - 1) ** 2 + 5**2, rel=1e-12)


def test_a_shifted_cloud_is_its_shift_squared_away():
    features, _ = clouds(300, 16)
    shifted = features + torch.full((16,), 0.5)
    assert frechet_distance(statistics(features), statistics(shifted)) == pytest.approx(16 * 0.25, rel=1e-9)


def test_statistics_equal_numpy_and_do_not_depend_on_the_batches():
    features = torch.randn(101, 8, dtype=torch.float64) + 5
    found = statistics(features, batch=7)
    np.testing.assert_allclose(found.covariance.numpy(), np.cov(features.numpy(), rowvar=False), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(found.mean.numpy(), features.numpy().mean(0), rtol=1e-12)
    assert found.samples == 101
    np.testing.assert_allclose(found.covariance, statistics(features, batch=101).covariance, rtol=1e-10, atol=1e-12)


def test_bad_statistics_are_refused():
    with pytest.raises(ValueError, match="at least 2 features, got 1"):
        statistics(torch.ones(1, 3))
    with pytest.raises(ValueError, match=r"\(B, 3\), got \(2, 4\)"):
        FeatureStatistics(3).update(torch.ones(2, 4))
    with pytest.raises(ValueError, match="not finite"):
        frechet_distance(statistics(torch.full((4, 2), float("nan"))), statistics(torch.randn(4, 2)))
    with pytest.raises(ValueError, match="3-d features cannot be compared with 2-d"):
        frechet_distance(statistics(torch.randn(9, 3)), statistics(torch.randn(9, 2)))
