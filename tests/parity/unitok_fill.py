"""Deterministic weights from state-dict key names (numpy + torch only).

tensor_for(key, shape, dtype) depends on the key and the shape, nothing else.  The stream
is PCG64's raw 64-bit output (stable across numpy versions and platforms), seeded with the
first 8 bytes (little endian) of sha256(key).  Each raw word is split into four 16-bit
integers; their centred, scaled sum  n = (a+b+c+d - 131070) * sqrt(3) / 65536  is almost
N(0, 1).  Scale rules, first match wins (float64 throughout, one cast at the end):
  *zero_k_bias                 -> 0              (always zero in the reference)
  *vocab_usage                 -> |n| / numel    (running statistic, never read)
  *logit_scale (0-dim)         -> ln(1/0.07) + 0.02 n
  *codebook.weight             -> n
  pos_embed / reg_token / token_embedding.weight / positional_embedding -> 0.02 n
  text_projection              -> n / sqrt(shape[0])        (used as x @ W)
  1-dim *.weight               -> 1 + 0.02 n     (all are LayerNorm gains)
  other 1-dim                  -> 0.02 n         (biases)
  anything else (Linear, Conv) -> n / sqrt(prod(shape[1:]))  (fan-in)
"""

import hashlib
import json
import math
from pathlib import Path

import numpy as np
import torch


def normal(key, count):
    seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "little")
    raw = np.random.PCG64(seed).random_raw(max(count, 1))
    u = np.asarray(raw, dtype="<u8").view("<u2").reshape(-1, 4)
    s = u[:, 0].astype(np.int32)
    for i in (1, 2, 3):
        s += u[:, i]
    return (s - 131070) * (math.sqrt(3.0) / 65536.0)


def tensor_for(key, shape, dtype=torch.float32):
    n = normal(key, math.prod(shape)).reshape(tuple(shape))
    if key.endswith("zero_k_bias"):
        n = n * 0.0
    elif key.endswith("vocab_usage"):
        n = np.abs(n) / n.size
    elif key.endswith("logit_scale"):
        n = math.log(1 / 0.07) + 0.02 * n
    elif key.endswith("text_projection"):
        n = n / math.sqrt(shape[0])
    elif key.endswith(("pos_embed", "reg_token", "token_embedding.weight", "positional_embedding")):
        n = 0.02 * n
    elif len(shape) == 1:
        n = 0.02 * n + (1.0 if key.endswith(".weight") else 0.0)
    elif not key.endswith("codebook.weight"):
        n = n / math.sqrt(math.prod(shape[1:]))
    return torch.from_numpy(np.array(n, dtype=np.float64)).to(dtype)


def state_dict_from_keys(keys):
    """keys.json (a path or its content, {key: {shape, dtype}}) -> a full state dict."""
    spec = json.loads(Path(keys).read_text()) if isinstance(keys, str) else keys
    return {k: tensor_for(k, v["shape"], getattr(torch, v["dtype"])) for k, v in spec.items()}
