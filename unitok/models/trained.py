"""Checkpoints of this library's own training: the moving average, where one was kept, or the tokenizer itself."""

from typing import Any

from unitok.models.catalogue import Published


def read_trained(checkpoint: dict[str, Any]) -> Published | None:
    """A training checkpoint (`last.ckpt`) -> the tokenizer that would be exported; None where the file is another kind.

    Raises:
        ValueError: the tokenizer was put together by hand, so the checkpoint cannot name its builder.
    """
    task, state = checkpoint.get("task"), checkpoint.get("state_dict")
    if not isinstance(task, dict) or not isinstance(state, dict) or "tokenizer" not in task:
        return None
    if task["tokenizer"] is None:
        raise ValueError("this checkpoint's tokenizer was put together by hand, not by a builder of the catalogue")
    prefix = "average." if any(name.startswith("average.") for name in state) else "tokenizer."
    weights = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
    return Published(task["tokenizer"]["tokenizer"], dict(task["tokenizer"]["arguments"]), weights)
