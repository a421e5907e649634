import pytest
import timm
import torch
from safetensors.torch import save_file

from unitok.losses.perceptual import FeatureDistance, Lpips


@pytest.fixture(scope="module")
def distance(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "model.safetensors"
    save_file(timm.create_model("test_efficientnet").state_dict(), path)
    return FeatureDistance("test_efficientnet", str(path), layers=(1, 2))


def test_against_a_loop(distance):
    torch.manual_seed(0)
    a, b = torch.rand(2, 3, 32, 32), torch.rand(2, 3, 32, 32)
    total = 0.0
    with torch.no_grad():
        for x, y in zip(distance.intermediates(a, (1, 2)), distance.intermediates(b, (1, 2)), strict=True):
            x, y = (maps / maps.norm(dim=1, keepdim=True).clamp_min(1e-6) for maps in (x, y))
            places = [((x[n, :, i, j] - y[n, :, i, j]) ** 2).sum() for n in range(2) for i in range(x.shape[2]) for j in range(x.shape[3])]  # fmt: skip  # noqa: E501
            total += float(torch.stack(places).mean()) / 2
        assert float(distance(a, b)) == pytest.approx(total, rel=1e-3)
        assert float(distance(a, a)) == 0


def test_gradient_reaches_the_reconstruction_only(distance):
    a, b = torch.rand(1, 3, 32, 32, requires_grad=True), torch.rand(1, 3, 32, 32, requires_grad=True)
    distance(a, b).backward()
    assert a.grad.abs().sum() > 0
    assert b.grad is None


def test_lpips_without_its_backbone_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"vgg16-397923af\.pth"):
        Lpips()


@pytest.mark.slow
def test_lpips_is_the_packages(tmp_path):
    import lpips
    import torchvision

    torch.manual_seed(0)
    backbone = torchvision.models.vgg16()
    torch.save(backbone.state_dict(), tmp_path / "vgg16.pth")
    a, b = torch.rand(1, 3, 64, 64), torch.rand(1, 3, 64, 64)
    ours = Lpips(str(tmp_path / "vgg16.pth"))
    theirs = lpips.LPIPS(net="vgg", pnet_rand=True, verbose=False)
    names = dict(
        zip(
            theirs.net.state_dict(),
            [v for k, v in backbone.state_dict().items() if k.startswith("features")],
            strict=True,
        )
    )
    theirs.net.load_state_dict(names)
    with torch.no_grad():
        torch.testing.assert_close(ours(a, b), theirs(a, b, normalize=True).mean())
