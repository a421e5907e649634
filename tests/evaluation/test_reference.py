import torch

from unitok.evaluation.judges import FeatureNetwork
from unitok.evaluation.protocol import Pipeline
from unitok.evaluation.reference import find_reference, keep_reference
from unitok.metrics.frechet import Gaussian

PIPELINE = Pipeline(64, "bicubic", 64)
NETWORK = FeatureNetwork("net", "rFD-net", 3, "12ab", lambda images: images)
GAUSSIAN = Gaussian(torch.arange(3.0, dtype=torch.float64), torch.eye(3, dtype=torch.float64) / 3, 17)


def test_statistics_come_back_exactly_and_only_to_the_same_question(tmp_path):
    keep_reference(GAUSSIAN, "data", PIPELINE, NETWORK, tmp_path / "new")
    found = find_reference("data", PIPELINE, NETWORK, tmp_path / "new")
    assert torch.equal(found.mean, GAUSSIAN.mean)
    assert torch.equal(found.covariance, GAUSSIAN.covariance)
    assert found.samples == 17
    assert find_reference("other data", PIPELINE, NETWORK, tmp_path / "new") is None
    assert find_reference("data", PIPELINE.sized(128), NETWORK, tmp_path / "new") is None
    assert find_reference("data", PIPELINE, NETWORK._replace(sha256="34cd"), tmp_path / "new") is None
    assert find_reference("data", PIPELINE, NETWORK._replace(name="net {}"), tmp_path / "new") is None


def test_without_a_network_nothing_is_kept(tmp_path):
    keep_reference(GAUSSIAN, "data", PIPELINE, None, tmp_path)
    assert find_reference("data", PIPELINE, None, tmp_path) is None
    assert not list(tmp_path.iterdir())


def test_the_folder_can_be_named_in_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("UNITOK_CACHE", str(tmp_path))
    keep_reference(GAUSSIAN, "data", PIPELINE, NETWORK, None)
    assert len(list(tmp_path.glob("reference-*.safetensors"))) == 1
