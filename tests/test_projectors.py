import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from unitok.projectors import AttentionProjector


def by_hand(projector: AttentionProjector, tokens: Tensor) -> Tensor:
    """(N, in) -> (N, out), with loops over heads and an explicit softmax."""
    p = projector

    def norm(x: Tensor, layer: torch.nn.LayerNorm) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        return centred / (centred.square().mean(-1, keepdim=True) + layer.eps).sqrt() * layer.weight + layer.bias

    query, key, value = (norm(tokens, p.norm1) @ p.qkv.weight.T).chunk(3, dim=-1)
    query, value = query + p.q_bias, value + p.v_bias
    heads = []
    for q, k, v in zip(*(x.chunk(p.num_heads, dim=-1) for x in (query, key, value)), strict=True):
        heads.append((q @ k.T / q.shape[-1] ** 0.5).softmax(-1) @ v)
    merged = torch.cat(heads, -1) if p.widening else torch.stack(heads).mean(0)
    out = p.proj(norm(tokens, p.norm3)) + p.attn_proj(merged)
    inner = norm(norm(out, p.norm2), p.mlp.norm)
    return out + p.mlp.w2(F.gelu(p.mlp.w0(inner), approximate="tanh") * p.mlp.w1(inner))


@pytest.mark.parametrize(("in_dim", "out_dim", "heads"), [(32, 8, 4), (8, 32, 4), (8, 32, 2), (16, 16, 1)])
def test_projector_is_its_formula(in_dim: int, out_dim: int, heads: int) -> None:
    torch.manual_seed(0)
    projector = AttentionProjector(in_dim, out_dim, heads)
    for parameter in projector.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    grid = torch.randn(2, 3, 5, in_dim)
    out = projector(grid)
    assert out.shape == (2, 3, 5, out_dim)
    for b in range(2):
        torch.testing.assert_close(
            out[b].flatten(0, 1), by_hand(projector, grid[b].flatten(0, 1)), atol=1e-4, rtol=1e-4
        )


def test_two_layernorm_epsilons() -> None:
    projector = AttentionProjector(32, 8, 4)
    assert {projector.norm1.eps, projector.norm2.eps, projector.norm3.eps} == {1e-5}
    assert projector.mlp.norm.eps == 1e-6


@pytest.mark.parametrize(
    ("in_dim", "out_dim", "heads", "message"),
    [(24, 16, 2, "out_dim=16"), (32, 8, 3, "num_heads=3"), (32, 8, 8, "head of 4 channels")],
)
def test_widths_that_do_not_fit_are_refused(in_dim: int, out_dim: int, heads: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AttentionProjector(in_dim, out_dim, heads)
