import math

import pytest
import torch
from torch.nn import functional as F

from tests.decoders.stand_ins import features, transformer
from unitok.decoders.prefix_transformer import PrefixTransformer, sin_cos_positions, swiglu_dim


def with_expanded_heads(grouped: PrefixTransformer) -> PrefixTransformer:
    """The same function with a key-value head for every query head: shared ones written out."""
    full = transformer()
    state = grouped.state_dict()
    for name, weight in state.items():
        if name.endswith("qkv.weight"):
            query, key, value = weight.split((16, 8, 8))
            key, value = (part.view(2, 4, 16).repeat_interleave(2, 0).reshape(16, 16) for part in (key, value))
            state[name] = torch.cat([query, key, value])
    full.load_state_dict(state)
    return full


def test_grouped_queries_equal_expanded_heads():
    grouped = transformer(num_kv_heads=2)
    full = with_expanded_heads(grouped)
    condition, codes = features().flatten(1, 2), torch.randint(32, (2, 9))
    torch.testing.assert_close(grouped(condition, codes), full(condition, codes), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("num_kv_heads", [None, 2, 1])
@pytest.mark.parametrize("masked", [False, True])
@torch.no_grad()
def test_steps_over_the_cache_equal_the_whole_sequence(num_kv_heads, masked):
    model = transformer(num_kv_heads)
    condition, codes = features(height=2, width=3).flatten(1, 2), torch.randint(32, (2, 9))
    expected = model(condition, codes)
    logits, filled = model.prefill(condition)
    depth, heads, width = model.cache_shape
    cache = type(filled)(*(torch.full((depth, 2, heads, 14, width), 1e4) for _ in filled))  # rubbish must not be seen
    for part, source in zip(cache, filled, strict=True):
        part[:, :, :, :6] = source
    if masked:  # keys beyond the position weigh nothing, whatever finite thing stands there
        cache = type(cache)(*(part.clamp(max=100) for part in cache))
    torch.testing.assert_close(logits, expected[:, 0], atol=1e-4, rtol=1e-4)
    for index in range(8):
        logits = model.step(codes[:, index], torch.tensor(6 + index), cache, None if masked else 7 + index)
        torch.testing.assert_close(logits, expected[:, index + 1], atol=1e-4, rtol=1e-4)


def test_logits_do_not_see_the_future():
    model = transformer()
    condition, codes = features().flatten(1, 2), torch.randint(32, (2, 9))
    changed = codes.clone()
    changed[:, 4:] = (changed[:, 4:] + 1) % 32
    before, after = model(condition, codes), model(condition, changed)
    assert torch.equal(before[:, :5], after[:, :5])
    assert not torch.allclose(before[:, 5:], after[:, 5:])


def test_one_block_by_hand():
    model = PrefixTransformer(3, 5, num_codes=2, max_condition=1, dim=4, depth=1, num_heads=1, mlp_dim=6)
    torch.nn.init.normal_(model.head.weight)
    condition, codes = torch.randn(1, 1, 3), torch.tensor([[2, 0]])
    block = model.blocks[0]
    tokens = torch.stack([model.condition(condition[0, 0]), model.embedding.weight[2]]) + model.positions[0, :2]

    def norm(rows):
        return rows / (rows.square().mean(-1, keepdim=True) + 1e-5).sqrt()

    query, key, value = (norm(tokens) @ block.qkv.weight.T).split(4, -1)
    weights = (query @ key.T / math.sqrt(4)).masked_fill(torch.tensor([[False, True], [False, False]]), -math.inf)
    tokens = tokens + weights.softmax(-1) @ value @ block.proj.weight.T
    hidden = F.silu(norm(tokens) @ block.gate.weight.T) * (norm(tokens) @ block.up.weight.T)
    tokens = tokens + hidden @ block.down.weight.T
    torch.testing.assert_close(model(condition, codes)[0], norm(tokens) @ model.head.weight.T, atol=1e-5, rtol=1e-5)


def test_fixed_positions_are_sines_then_cosines():
    table = sin_cos_positions(7, 6)
    assert table.shape == (1, 7, 6)
    for position in range(7):
        for i in range(3):
            angle = position * 10000 ** (-i / 3)
            assert table[0, position, i] == pytest.approx(math.sin(angle), abs=1e-6)
            assert table[0, position, 3 + i] == pytest.approx(math.cos(angle), abs=1e-6)
    fixed = transformer(fixed_positions=True)
    assert "positions" in fixed.state_dict()
    assert "positions" not in dict(fixed.named_parameters())


@pytest.mark.parametrize("kv_heads", [2, 1])
def test_an_aligned_start_looks_from_code_t_at_condition_token_t(kv_heads):
    torch.manual_seed(0)
    sizes = {"num_codes": 9, "max_condition": 9, "dim": 256, "num_heads": 2, "num_kv_heads": kv_heads}
    model = PrefixTransformer(8, 32, **sizes, depth=1, aligned_start=True)
    tokens = torch.cat([model.condition(torch.randn(1, 9, 8)), model.embedding(torch.randint(32, (1, 8)))], 1)
    block = model.blocks[0]
    query, key, _ = block._heads(block.attention_norm(tokens + model.positions))
    for head in range(2):
        weights = (query[0, head] @ key[0, head * kv_heads // 2].T / 128**0.5).softmax(-1)
        assert weights[9:].argmax(-1).tolist() == [1, 2, 3, 4, 5, 6, 7, 8]
        assert weights[9:, 9:].sum(-1).mean() < 0.2  # hardly at itself and the other codes
    sizes = {"num_codes": 9, "max_condition": 9}
    for wrong, message in (({"fixed_positions": True}, "fixed_positions=True"), ({"max_condition": 4}, "num_codes=9")):
        with pytest.raises(ValueError, match=message):
            PrefixTransformer(8, 32, **(sizes | wrong), dim=16, depth=1, num_heads=2, aligned_start=True)


def test_condition_norm_takes_features_of_any_scale_and_leaves_zeros():
    torch.manual_seed(0)
    sizes = {"num_codes": 9, "max_condition": 16, "dim": 16, "depth": 1, "num_heads": 4}
    model = PrefixTransformer(8, 32, **sizes, condition_norm=True)
    torch.nn.init.normal_(model.head.weight)
    condition, codes = features().flatten(1, 2), torch.randint(32, (2, 9))
    torch.testing.assert_close(model(100 * condition, codes), model(condition, codes), rtol=1e-3, atol=1e-3)
    bare = PrefixTransformer(8, 32, **sizes)
    bare.load_state_dict(model.state_dict())
    zeros = torch.zeros_like(condition)
    torch.testing.assert_close(model(zeros, codes), bare(zeros, codes))
    torch.testing.assert_close(model(condition, codes), bare(F.layer_norm(condition, (8,)), codes))
    torch.testing.assert_close(model.prefill(condition)[0], model(condition, codes)[:, 0])


def test_inner_widths():
    assert swiglu_dim(1280) == 3584
    assert swiglu_dim(64, 32) == 192
    assert swiglu_dim(64, 32, 1.5) == 256


def test_training_starts_at_the_uniform_distribution():
    model = PrefixTransformer(8, 32, num_codes=9, max_condition=16, dim=16, depth=1, num_heads=4)
    assert torch.equal(model(features().flatten(1, 2), torch.zeros(2, 9, dtype=torch.int64)), torch.zeros(2, 9, 32))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_heads": 3}, "dim=16 must be a multiple of num_heads=3"),
        ({"num_heads": 4, "num_kv_heads": 3}, "num_kv_heads=3"),
    ],
)
def test_heads_that_do_not_divide(arguments, message):
    with pytest.raises(ValueError, match=message):
        PrefixTransformer(8, 32, 9, 16, dim=16, depth=1, **arguments)
