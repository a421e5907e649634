"""Deterministic parameter fill shared by the oracles (numpy + torch only).

For every *parameter* (nn.Parameter, not buffer) with state-dict key K and shape S:
    seed = int.from_bytes(sha256(K.encode('utf-8')).digest()[:8], 'big')
    x    = numpy.random.default_rng(seed).standard_normal(S, dtype=float32)
then, by the first rule that matches:
    0-D                                   -> left as constructed (e.g. learnable temperature)
    1-D, K ends with 'weight'             -> 1 + 0.02 x        (norm gains)
    1-D, otherwise                        -> 0.02 x            (biases)
    table(K)                              -> x                 (codebooks, token/position tables, abs_pe, probe)
    >=2-D, otherwise                      -> x / sqrt(prod(S[1:]))
table(K): last path components say it is a lookup table, i.e. K ends with one of TABLES below.
(`patch_embedding.weight` and `embedding_proj.weight` are projections, so they are NOT tables.)
Buffers (position_ids, scale_layer.*, codebook_used, fixed abs_pe) are never touched.
Inputs: image(key, b, size) is uint8 noise smoothed by 8x nearest blocks; noise(key, shape) is standard normal.
"""

import hashlib

import numpy as np
import torch

TABLES = (
    "position_embedding.weight",
    "regularizer.embedding.weight",
    "quantize.embedding.weight",
    "tok_embeddings.weight",
    "embedding_table.weight",
    "abs_pe",
    "head.probe",
    "codebook",
)


def rng(key):
    return np.random.default_rng(int.from_bytes(hashlib.sha256(key.encode("utf-8")).digest()[:8], "big"))


def value(key, shape):
    x = rng(key).standard_normal(tuple(shape), dtype=np.float32)
    if len(shape) == 1:
        x = 1 + np.float32(0.02) * x if key.endswith("weight") else np.float32(0.02) * x
    elif not key.endswith(TABLES):
        x = x / np.float32(np.sqrt(np.prod(shape[1:])))
    return torch.from_numpy(np.ascontiguousarray(x, dtype=np.float32))


@torch.no_grad()
def fill(module, prefix=""):
    for name, p in module.named_parameters():
        if p.ndim:
            p.copy_(value(prefix + name, tuple(p.shape)).to(p.dtype))
    return module


def image(key, b, size):
    """uint8 [b,3,size,size]: coarse random blocks (structure) + fine noise."""
    g = rng(key)
    n = -(-size // 8)
    coarse = g.integers(0, 193, (b, 3, n, n)).repeat(8, 2).repeat(8, 3)[:, :, :size, :size]
    return torch.from_numpy((coarse + g.integers(0, 63, (b, 3, size, size))).astype(np.uint8))


def noise(key, shape):
    return torch.from_numpy(rng(key).standard_normal(shape, dtype=np.float32))
