import pickle
import warnings

import lpips
import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

from unitok.evaluation.judges import inception, lpips_network, open_judges, timm_network

CPU = torch.device("cpu")


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))


def test_missing_weights_say_what_where_and_which_flag(empty_cache, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"Inception weights are missing .*https://.*pth.* --inception-weights"):
        inception(None, CPU)
    with pytest.raises(FileNotFoundError, match=r"LPIPS \(vgg backbone\) .*https://.*vgg16.*pth.* --lpips-weights"):
        lpips_network("vgg", None, CPU)
    with pytest.raises(FileNotFoundError, match=r"no file .*gone.pth"):
        inception(tmp_path / "gone.pth", CPU)
    with pytest.raises(FileNotFoundError, match="--features-weights"):
        timm_network("mobilenetv2_050", None, {}, CPU)
    with pytest.raises(ValueError, match="timm knows no network 'mobilenot'"):
        timm_network("mobilenot", None, {}, CPU)


def test_a_pickle_with_code_is_refused(tmp_path):
    path = tmp_path / "bad.pth"
    path.write_bytes(pickle.dumps(print))
    with pytest.raises(ValueError, match=r"bad\.pth is refused"):
        inception(path, CPU)


def test_other_weights_are_refused_in_one_line(tmp_path):
    path = tmp_path / "other.pth"
    torch.save({"conv.weight": torch.zeros(1)}, path)
    for found in (lambda: inception(path, CPU), lambda: lpips_network("alex", path, CPU)):
        with pytest.raises(ValueError, match=r"other\.pth are not") as error:
            found()
        assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match=r"other\.pth does not fit mobilenetv2_050"):
        timm_network("mobilenetv2_050", path, {}, CPU)


def test_a_timm_network_gives_its_pooled_features_under_its_own_name(tmp_path):
    torch.manual_seed(0)
    network = timm.create_model("mobilenetv2_035", pretrained=False).eval()
    save_file(network.state_dict(), tmp_path / "net.safetensors")
    judges = open_judges("mobilenetv2_035", tmp_path / "net.safetensors", {}, "none", None, CPU)
    images = torch.randint(0, 256, (2, 3, 224, 224), dtype=torch.uint8)
    mean, std = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]]).view(2, 1, 3, 1, 1)
    with torch.no_grad():
        expected = network.global_pool(network.forward_features((images / 255 - mean) / std))
        found = judges.features.features(images)
    torch.testing.assert_close(found, expected)
    assert (judges.features.figure, judges.features.dim) == ("rFD-mobilenetv2_035", 1280)
    assert list(judges.hashes) == ["mobilenetv2_035"]


def test_lpips_equals_the_package_with_the_same_backbone(tmp_path):
    torch.manual_seed(0)
    backbone = torchvision.models.alexnet()
    torch.save(backbone.state_dict(), tmp_path / "alex.pth")
    measure, _ = lpips_network("alex", tmp_path / "alex.pth", CPU)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        oracle = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False).eval()
    for slice_, layers in zip(range(1, 6), ((0, 2), (2, 5), (5, 8), (8, 10), (10, 12)), strict=True):
        for layer in range(*layers):
            oracle.net.__getattr__(f"slice{slice_}")[layer - layers[0]] = backbone.features[layer]
    first, second = torch.rand(2, 2, 3, 64, 64) * 2 - 1
    with torch.no_grad():
        torch.testing.assert_close(measure(first, second), oracle(first, second))
        assert measure(first, first).abs().max() == 0


@pytest.mark.slow
def test_inception_is_torch_fidelitys(tmp_path, monkeypatch):
    torch.manual_seed(0)
    path = tmp_path / "inception.pth"
    with monkeypatch.context() as patch:
        patch.setattr(FeatureExtractorInceptionV3, "load_state_dict", lambda self, state: None)
        torch.save({}, path)
        oracle = FeatureExtractorInceptionV3("x", ["2048"], feature_extractor_weights_path=str(path)).eval()
    torch.save(oracle.state_dict(), path)
    images = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
    with torch.no_grad():
        torch.testing.assert_close(inception(path, CPU).features(images), oracle(images)[0])
