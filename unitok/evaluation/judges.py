"""The networks that judge: Inception as torch-fidelity defines it, any timm network, LPIPS. Never downloaded."""

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unitok.files import sha256

LPIPS_FILES = {"alex": "AlexNet_Weights", "vgg": "VGG16_Weights", "squeeze": "SqueezeNet1_1_Weights"}


class FeatureNetwork(NamedTuple):
    """A network whose features the Fréchet distance compares.

    Attributes:
        name: for the protocol, with its options.
        figure: what the distance on it is called: "rFID" for Inception alone, else "rFD-<network>".
        dim: D.
        sha256: of the weights file.
        features: (B, 3, H, W) uint8 -> (B, D) float32, on the images' device.
    """

    name: str
    figure: str
    dim: int
    sha256: str
    features: Callable[[Tensor], Tensor]


class Judges(NamedTuple):
    """The networks of a run; None where it does without.

    Attributes:
        features: of the Fréchet distance.
        lpips: the measure, from `lpips_network`.
        hashes: name of each -> sha256 of its weights, for the protocol.
    """

    features: FeatureNetwork | None
    lpips: nn.Module | None
    hashes: dict[str, str]


def open_judges(
    features: str,
    weights: Path | None,
    options: dict[str, Any],
    lpips: str,
    lpips_weights: Path | None,
    device: torch.device,
) -> Judges:
    """The networks that a command names; "none" does without. Raises as the three functions below."""
    network, measure, hashes = None, None, {}
    if features == "inception":
        network = inception(weights, device)
    elif features != "none":
        network = timm_network(features, weights, options, device)
    if network is not None:
        hashes[network.name] = network.sha256
    if lpips != "none":
        measure, hashes[f"lpips-{lpips}"] = lpips_network(lpips, lpips_weights, device)
    return Judges(network, measure, hashes)


def inception(weights: Path | None, device: torch.device) -> FeatureNetwork:
    """torch-fidelity's `inception-v3-compat`, layer 2048, with its own resize to 299.

    Args:
        weights: its weights file; None looks for the one torch-fidelity keeps in torch's cache.
        device: where it computes.

    Raises:
        FileNotFoundError: no weights, with where to get them and the flag that takes them.
        ValueError: a file that holds more than weights, or other weights.
    """
    from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3, FeatureExtractorInceptionV3

    path = _weights("Inception", weights, URL_INCEPTION_V3, "--inception-weights FILE, or --features NAME for another")
    _read(path)  # torch-fidelity itself would unpickle anything
    try:
        network = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], feature_extractor_weights_path=str(path))
    except RuntimeError as error:
        raise ValueError(f"{path} are not torch-fidelity's Inception weights: {str(error).splitlines()[0]}") from error
    network.eval().to(device)
    return FeatureNetwork("inception-v3-compat", "rFID", 2048, sha256(path), lambda images: network(images)[0].float())


def timm_network(name: str, weights: Path | None, options: dict[str, Any], device: torch.device) -> FeatureNetwork:
    """Any timm network's pooled features; its distance is "rFD-<name>", which is not FID and compares only with itself.

    Images are resized to the network's own size (bilinear, antialiased) and normalised with its own mean and deviation.

    Args:
        name: timm's.
        weights: safetensors or a state dict.
        options: further arguments of timm.create_model, e.g. {"pad_type": "same"}.
        device: where it computes.

    Raises:
        FileNotFoundError: no weights given, or no such file.
        ValueError: no such network, or weights that do not fit.
    """
    import timm
    from timm.data import resolve_model_data_config

    if not timm.is_model(name):
        raise ValueError(f"timm knows no network {name!r}; near names: {timm.list_models(f'*{name[:6]}*')[:5]}")
    if weights is None:
        raise FileNotFoundError(
            f"weights of {name} are missing: get them from timm's model page; --features-weights FILE"
        )
    network: Any = timm.create_model(name, pretrained=False, **options)
    try:
        network.load_state_dict(_read(weights))
    except RuntimeError as error:
        raise ValueError(f"{weights} does not fit {name}: {' '.join(str(error).split())[:200]}") from error
    network.eval().to(device)
    config = resolve_model_data_config(network)
    mean, std = (torch.tensor(config[key], device=device).view(1, 3, 1, 1) for key in ("mean", "std"))

    def features(images: Tensor) -> Tensor:
        floats = images.float() / 255
        if floats.shape[-2:] != config["input_size"][1:]:
            floats = F.interpolate(floats, config["input_size"][1:], mode="bilinear", antialias=True)
        maps = network.forward_features((floats - mean) / std)
        pooled: Tensor = network.forward_head(maps, pre_logits=True)
        return pooled.float()

    with torch.no_grad():
        dim = features(torch.zeros(1, 3, *config["input_size"][1:], dtype=torch.uint8, device=device)).shape[1]
    described = f"{name} {json.dumps(options, sort_keys=True)}" if options else name
    return FeatureNetwork(described, f"rFD-{name}", dim, sha256(weights), features)


def lpips_network(net: str, weights: Path | None, device: torch.device) -> tuple[nn.Module, str]:
    """The lpips package's measure (version 0.1) and the sha256 of its backbone: (B, 3, H, W) in [-1, 1], twice -> (B,).

    Args:
        net: "alex" (what papers report), "vgg" or "squeeze".
        weights: torchvision's weights file of that backbone; None looks in torch's cache.
        device: where it computes.

    Raises:
        FileNotFoundError: no weights, with where to get them and the flag that takes them.
        ValueError: an unknown net, or weights that do not fit.
    """
    import lpips
    import torchvision

    if net not in LPIPS_FILES:
        raise ValueError(f"lpips={net!r} is not one of {[*LPIPS_FILES, 'none']}")
    url = getattr(torchvision.models, LPIPS_FILES[net]).IMAGENET1K_V1.url
    path = _weights(f"LPIPS ({net} backbone)", weights, url, "--lpips-weights FILE, or --lpips none to do without")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # lpips builds its backbone with arguments torchvision has deprecated
        measure = lpips.LPIPS(net=net, pnet_rand=True, verbose=False)
    state = _read(path)
    slices = {name for name, _ in measure.net.named_parameters()}
    wanted = {name: "features." + name.split(".", 1)[1] for name in slices}  # slice1.0.weight <- features.0.weight
    if missing := [key for key in wanted.values() if key not in state]:
        raise ValueError(f"{path} are not torchvision's {net} weights: {missing[0]} is missing")
    measure.net.load_state_dict({name: state[key] for name, key in wanted.items()})
    return measure.eval().to(device), sha256(path)


def _weights(what: str, given: Path | None, url: str, flag: str) -> Path:
    path = given or Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[1]
    if not path.is_file():
        where = f"no file {given}" if given else "not in torch's cache"
        raise FileNotFoundError(f"{what} weights are missing ({where}): get {url} and pass {flag}")
    return path


def _read(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise FileNotFoundError(f"no weights file {path}")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch, pickle and safetensors each raise their own
        raise ValueError(f"{path} is refused, not a plain weights file: {str(error).splitlines()[0]}") from error
    if not isinstance(state, dict):
        raise ValueError(f"{path} holds a {type(state).__name__}, not a state dict")
    return state
