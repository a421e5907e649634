"""Sharded training (FSDP2): the transformer stacks in shards, everything else whole on every rank.

Lightning carries two optimizers under manual optimization with sharding in `ModelParallelStrategy` only: `FSDPStrategy`
(FSDP1) saves one optimizer and flattens parameters, so that weight decay by shape and the last layer of the adaptive
weight are lost. The stacks hold nearly all parameters (ViTamin-L: 31 blocks twice, and the text tower). What is left,
the convolutions, projectors, codebooks and heads, is replicated and its gradient averaged by the task: the adaptive
weight can then ask for the gradient of the last layer without waking the shards. The word table is replicated too. Of
a language model the layers that transformers calls indivisible are sharded; word table and visual parts are whole.
"""

import os
import tempfile
from collections.abc import Iterable
from copy import deepcopy
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from unitok.files import replacing
from unitok.layers import Blocks

M = TypeVar("M", bound=nn.Module)


def shard(module: nn.Module, mesh: Any) -> None:
    """Give every rank the weights of the first, then shard each transformer stack of `module` over a 1-D mesh."""
    from open_clip.transformer import Transformer
    from torch.distributed.fsdp import fully_shard

    for tensor in (*module.parameters(), *module.buffers()):
        torch.distributed.broadcast(tensor.detach(), 0)
    for stack in list(module.modules()):
        if isinstance(stack, Blocks):
            blocks: Iterable[nn.Module] = stack
        elif isinstance(stack, Transformer):
            blocks = stack.resblocks
        else:
            continue
        for block in blocks:
            fully_shard(block, mesh=mesh)
        fully_shard(stack, mesh=mesh)
    for layer in _language_layers(module):
        fully_shard(layer, mesh=mesh)


def _language_layers(module: nn.Module) -> list[nn.Module]:
    """The layers of every language model of transformers in `module`."""
    names = {name for part in module.modules() for name in getattr(part, "_no_split_modules", None) or ()}
    return [part for part in module.modules() if type(part).__name__ in names]


def outline(module: M) -> M:
    """A copy without values (on the meta device), made before sharding, into which `gather_into` puts them."""
    memo: dict[int, Any] = {id(p): nn.Parameter(torch.empty_like(p, device="meta")) for p in module.parameters()}
    memo |= {id(b): torch.empty_like(b, device="meta") for b in module.buffers()}
    return deepcopy(module, memo)


def gather_into(copy: M, module: nn.Module) -> M:
    """Sharded weights -> the copy, whole and on the CPU; all ranks must call it, and only the first gets them."""
    first = torch.distributed.get_rank() == 0
    state = {}
    for name, tensor in module.state_dict().items():
        whole = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
        if first:
            state[name] = whole.detach().cpu()
    if first:
        copy.load_state_dict(state, assign=True)
        for tie in (getattr(part, "tie_weights", None) for part in copy.modules()):
            if callable(tie):  # a table of words that is input and output is two tensors now
                tie()
    return copy


def average_replicated(parameters: Iterable[Tensor]) -> None:
    """Mean over ranks of the gradient of every parameter that is not sharded, where any is."""
    parameters = list(parameters)
    if not any(isinstance(p, DTensor) for p in parameters):
        return
    for parameter in parameters:
        if parameter.grad is not None and not isinstance(parameter, DTensor):
            torch.distributed.all_reduce(parameter.grad)
            parameter.grad /= torch.distributed.get_world_size()


def clip_gradient(parameters: Iterable[Tensor], largest: float) -> Tensor:
    """Clip by the norm over sharded and whole parameters together; () that norm before clipping."""
    with_gradient = [p for p in parameters if p.grad is not None]
    kinds = [[p for p in with_gradient if isinstance(p, DTensor) is sharded] for sharded in (True, False)]
    norms = [nn.utils.get_total_norm([p.grad for p in kind if p.grad is not None]) for kind in kinds if kind]
    norm = torch.stack([n.full_tensor() if isinstance(n, DTensor) else n for n in norms]).norm()
    for kind in kinds:
        if kind:
            nn.utils.clip_grads_with_norm_(kind, largest, norm)
    return norm


def lerp(targets: Iterable[Tensor], sources: Iterable[Tensor], weight: float) -> None:
    """Move each target towards its source, sharded or whole."""
    pairs = list(zip(targets, sources, strict=True))
    for sharded in (True, False):
        kind = [pair for pair in pairs if isinstance(pair[0], DTensor) is sharded]
        if kind:
            torch._foreach_lerp_([a for a, _ in kind], [b.detach() for _, b in kind], weight)


def gather_shards(folder: str | os.PathLike[str], path: str | os.PathLike[str]) -> None:
    """A sharded checkpoint folder -> one file, in one process and on any machine; `load_tokenizer` opens that file.

    Weights, moving average and task come along. Optimizers do not: their shards are kept under parameters' names, and
    only a sharded run can go on from them.

    Args:
        folder: the checkpoint as ModelParallelStrategy wrote it.
        path: the file to write.

    Raises:
        FileNotFoundError: the folder is no sharded checkpoint.
    """
    from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

    if not (Path(folder) / "meta.pt").is_file():
        raise FileNotFoundError(f"{folder} is no sharded checkpoint: it has no meta.pt")
    with tempfile.TemporaryDirectory(dir=Path(path).parent) as scratch:
        dcp_to_torch_save(folder, Path(scratch) / "whole.pt")
        state = torch.load(Path(scratch) / "whole.pt", weights_only=True, mmap=True)["state_dict"]
        checkpoint = torch.load(Path(folder) / "meta.pt", weights_only=True)
        with replacing(path) as temporary:
            torch.save({**checkpoint, "state_dict": state}, temporary)
