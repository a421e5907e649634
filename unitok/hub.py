"""Tokenizers by name, folder, published file or Hub repository; nothing that is read here is ever executed."""

import hashlib
import inspect
import json
import os
import warnings
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from unitok.files import replacing, sha256
from unitok.models import READERS, TOKENIZERS
from unitok.models.catalogue import Published, check_arguments, open_checkpoint
from unitok.tokenizer import Tokenizer

Parts = Literal["all", "encode", "decode"]

DEFAULT = "unitok_tiny"
ASSETS = Path(__file__).parent / "assets"
CONFIG, WEIGHTS = "config.json", "model.safetensors"

_UNUSED: dict[str, tuple[str, ...]] = {  # weights that a half does not need
    "all": (),
    "encode": ("decoder.", "contrast.text.", "contrast.logit_scale"),
    "decode": ("encoder.", "project_in.", "contrast."),
}


def list_tokenizers() -> list[str]:
    """Names of the catalogue's builders; those whose trained weights come with the package load by that name alone."""
    return sorted(TOKENIZERS)


def load_tokenizer(
    source: str | os.PathLike[str] = DEFAULT,
    *,
    parts: Parts = "all",
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
    revision: str | None = None,
    **published: Any,
) -> Tokenizer:
    """A tokenizer with its weights, in eval mode.

    Args:
        source: a name that ships with the package; a folder with config.json and model.safetensors; a published
            checkpoint file; or "owner/name" on the Hub.
        parts: "encode" loads what `encode` and `encode_image` need, "decode" what `features` and `decode` need.
        dtype: of the weights. float32 is exact; bfloat16 is faster and changes some codes, but slower on a CPU that has
            no instructions for it, of which a RuntimeWarning tells.
        device: where the weights go.
        revision: of a Hub repository.
        published: further answers that a published file needs and does not contain; its reader documents them.

    Raises:
        FileNotFoundError: nothing by that name.
        ValueError: the file is not a tokenizer, its weights do not fit, or it holds more than weights.
    """
    if parts not in _UNUSED:
        raise ValueError(f"parts={parts!r} is not one of {list(_UNUSED)}")
    if dtype == torch.bfloat16 and torch.device(device).type == "cpu" and not _multiplies_bfloat16():
        slow = "this CPU has no instructions for bfloat16, which will be several times slower than float32"
        warnings.warn(slow, RuntimeWarning, stacklevel=2)
    path = _locate(source, revision)
    if path.is_dir():
        if published:
            raise ValueError(f"{sorted(published)} have a meaning for published checkpoint files only, not for {path}")
        name, arguments = _read_config(path / CONFIG)
        with _open_weights(path / WEIGHTS) as weights:
            state = {key: weights.get_tensor(key) for key in weights.keys() if not key.startswith(_UNUSED[parts])}  # noqa: SIM118
    else:
        name, arguments, state = read_checkpoint(path, **published)
        state = {key: tensor for key, tensor in state.items() if not key.startswith(_UNUSED[parts])}
    return _build(name, arguments, state, parts, dtype, device, str(path))


def with_new_codebooks(
    source: str | os.PathLike[str] = DEFAULT, *, num_codebooks: int, codebook_size: int
) -> Tokenizer:
    """A trained tokenizer whose codebooks are random and of another size: where a training with other codes starts.

    Args:
        source: as `load_tokenizer`.
        num_codebooks: K.
        codebook_size: V.

    Raises:
        ValueError: a tokenizer whose codebooks are words, or whose latents do not divide into K.
    """
    tokenizer = load_tokenizer(source)
    if tokenizer.config is None or not {"num_codebooks", "codebook_size"} <= tokenizer.config["arguments"].keys():
        raise ValueError(f"{source} has no codebooks that could be of another number and size")
    name = tokenizer.config["tokenizer"]
    arguments = {**tokenizer.config["arguments"], "num_codebooks": num_codebooks, "codebook_size": codebook_size}
    state = tokenizer.state_dict()
    shape = _skeleton(name, arguments).state_dict()["quantizer.codebooks"].shape
    state["quantizer.codebooks"] = torch.randn(shape) / shape[-1] ** 0.5
    return _build(name, arguments, state, "all", torch.float32, "cpu", str(source))


def save_tokenizer(
    tokenizer: Tokenizer,
    folder: str | os.PathLike[str],
    *,
    metadata: dict[str, str] | None = None,
    push_to_hub: str | None = None,
) -> Path:
    """Write config.json and model.safetensors, whole or not at all; `push_to_hub="owner/name"` publishes the folder.

    Raises:
        ValueError: the tokenizer did not come from the catalogue, or holds only half of its weights.
    """
    if tokenizer.config is None:
        raise ValueError("this tokenizer was put together by hand; only those of a catalogue builder can be saved")
    expected = {name for name, _ in _skeleton(**tokenizer.config).named_parameters()}
    state = {name: tensor.detach().contiguous() for name, tensor in tokenizer.state_dict().items()}
    if missing := sorted(expected - state.keys()):
        raise ValueError(f'weights are missing ({_few(missing)}); load the tokenizer with parts="all" to save it')
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / WEIGHTS) as path:
        save_file(state, path, metadata={"format": "pt", **(metadata or {})})
    with replacing(folder / CONFIG) as path:
        path.write_text(json.dumps(tokenizer.config, indent=2) + "\n")
    if push_to_hub is not None:
        from huggingface_hub import HfApi

        api = HfApi()
        api.create_repo(push_to_hub, exist_ok=True)
        api.upload_folder(repo_id=push_to_hub, folder_path=folder)
    return folder


def convert(source: str | os.PathLike[str], folder: str | os.PathLike[str], **published: Any) -> Path:
    """A published checkpoint file -> a folder whose weights' metadata names the source and its sha256."""
    path = Path(source)
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint file at {path}")
    tokenizer = load_tokenizer(path, **published)
    return save_tokenizer(tokenizer, folder, metadata={"source": path.name, "source_sha256": sha256(path)})


def weights_sha256(tokenizer: Tokenizer) -> str:
    """The sha256 of a tokenizer's weights as they stand in memory, names included; equal weights give equal hashes."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tokenizer.state_dict().items()):
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def read_checkpoint(path: Path, **published: Any) -> Published:
    """A published checkpoint file in this library's terms.

    Raises:
        ValueError: not a checkpoint, one that holds more than weights and plain values, or of an unknown kind.
    """
    checkpoint = open_checkpoint(path)
    for reader in READERS:
        known = list(inspect.signature(reader).parameters)[1:]
        if (found := reader(checkpoint, **{name: published[name] for name in known if name in published})) is not None:
            if unknown := sorted(set(published) - set(known)):
                raise ValueError(f"{unknown} have no meaning for {path}, a {found.tokenizer} file; it takes {known}")
            return found
    raise ValueError(f"{path} is no tokenizer this library knows; its top-level keys are {_few(map(str, checkpoint))}")


def _locate(source: str | os.PathLike[str], revision: str | None) -> Path:
    name, path = str(source), Path(source)
    if path.exists():
        return path
    if name in TOKENIZERS:
        if (ASSETS / name / WEIGHTS).is_file():
            return ASSETS / name
        raise FileNotFoundError(
            f"no trained weights of {name!r} come with this package (yet): name a checkpoint file or a folder instead"
        )
    if name.count("/") == 1 and not name.startswith((".", "/")) and not path.suffix:
        from huggingface_hub import snapshot_download

        try:
            return Path(snapshot_download(name, revision=revision, allow_patterns=[CONFIG, WEIGHTS]))
        except (OSError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise OSError(f"{name!r} is no local file or folder, and the Hub does not give it: {reason}") from error
    raise FileNotFoundError(f"no tokenizer {name!r}: not a file, not a folder, not one of {list_tokenizers()}")


def _read_config(path: Path) -> tuple[str, dict[str, Any]]:
    if not path.is_file():
        raise FileNotFoundError(f"{path.parent} is no tokenizer folder: it has no {CONFIG}")
    try:
        config = json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    if not isinstance(config, dict) or config.keys() != {"tokenizer", "arguments"}:
        found = sorted(config) if isinstance(config, dict) else type(config).__name__
        raise ValueError(f"{path} must hold exactly the keys 'tokenizer' and 'arguments', found {found}")
    if not isinstance(config["arguments"], dict):
        raise ValueError(f"{path}: 'arguments' must be a table of names and values")
    return config["tokenizer"], config["arguments"]


def _open_weights(path: Path) -> Any:
    if not path.is_file():
        raise FileNotFoundError(f"{path.parent} is no tokenizer folder: it has no {WEIGHTS}")
    try:
        return safe_open(path, framework="pt")
    except SafetensorError as error:
        raise ValueError(f"{path} is not a whole safetensors file: {error}") from error


def _skeleton(tokenizer: str, arguments: dict[str, Any]) -> Tokenizer:
    """A tokenizer of the catalogue on the meta device: shapes without memory."""
    if not isinstance(tokenizer, str) or tokenizer not in TOKENIZERS:
        raise ValueError(f"tokenizer={tokenizer!r} is not one of {list_tokenizers()}")
    check_arguments(TOKENIZERS[tokenizer], arguments)
    with torch.device("meta"):
        try:
            return TOKENIZERS[tokenizer](**arguments)
        except (ValueError, KeyError, ZeroDivisionError, AssertionError, RuntimeError) as error:
            raise ValueError(f"the arguments {arguments} do not make a {tokenizer}: {error}") from error


def _multiplies_bfloat16() -> bool:
    """Whether torch finds instructions for it in this CPU; without oneDNN it cannot tell, and nobody is warned."""
    return not torch.backends.mkldnn.is_available() or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _build(
    name: str,
    arguments: dict[str, Any],
    state: dict[str, Tensor],
    parts: Parts,
    dtype: torch.dtype,
    device: str | torch.device,
    source: str,
) -> Tokenizer:
    tokenizer = _skeleton(name, arguments)
    for room in _UNUSED[parts]:
        parent, _, leaf = room.rstrip(".").rpartition(".")
        owner: nn.Module | None = tokenizer.get_submodule(parent) if getattr(tokenizer, parent or leaf) else None
        if owner is not None:
            setattr(owner, leaf, None)
    if not_tensors := [key for key, value in state.items() if not isinstance(value, Tensor)]:
        raise ValueError(f"{source} holds things that are not tensors among its weights: {_few(not_tensors)}")
    _check_state(tokenizer.state_dict(), state, source)
    for key, tensor in state.items():
        state[key] = tensor.to(device, dtype if tensor.is_floating_point() else tensor.dtype)
    tokenizer.load_state_dict(state, assign=True)
    return tokenizer.to(device).eval()


def _check_state(expected: dict[str, Tensor], state: dict[str, Tensor], source: str) -> None:
    problems = []
    if missing := [key for key in expected if key not in state]:
        problems.append(f"{len(missing)} missing ({_few(missing)})")
    if extra := [key for key in state if key not in expected]:
        problems.append(f"{len(extra)} unknown ({_few(extra)})")
    wrong = [
        f"{key} {tuple(state[key].shape)} instead of {tuple(expected[key].shape)}"
        for key in expected
        if key in state and state[key].shape != expected[key].shape
    ]
    if wrong:
        problems.append(f"{len(wrong)} of another shape ({_few(wrong)})")
    types = [
        f"{key} {state[key].dtype}"
        for key in expected
        if key in state and state[key].is_floating_point() != expected[key].is_floating_point()
    ]
    if types:
        problems.append(f"{len(types)} of another type ({_few(types)})")
    if problems:
        raise ValueError(f"the weights of {source} do not fit: {'; '.join(problems)}")


def _few(names: Any, count: int = 4) -> str:
    names = list(names)
    return ", ".join(names[:count]) + (", ..." if len(names) > count else "")
