import pytest
import torch

from tests.decoders.stand_ins import decoder, features, pixel_tokenizer, transformer
from unitok.decoders import AutoregressiveDecoder, Sampling
from unitok.tokenizer import Tokenizer


def seeded(number: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(number)


@pytest.mark.parametrize("num_kv_heads", [None, 2])
@pytest.mark.parametrize(
    "settings",
    [
        {"top_k": 1, "guidance": 1.0},
        {"top_k": 1, "guidance": 3.0},
        {"temperature": 1.5, "guidance": 2.0, "guidance_interval": 2},
        {"temperature": 0.9, "top_k": 8, "top_p": 0.8, "guidance": 4.0, "guidance_interval": 0},
    ],
)
@pytest.mark.parametrize("grid", [(4, 4), (2, 2), (1, 3)])
def test_cached_codes_equal_uncached(num_kv_heads, settings, grid):
    made = decoder(num_kv_heads, **settings)
    condition = features(3, *grid)
    cached = made.sample(condition, seeded())
    made.cached = False
    assert torch.equal(cached, made.sample(condition, seeded()))
    assert cached.shape == (3, 1, 3, 3)
    assert cached.dtype == torch.int64
    assert cached.unique().numel() > 3  # a decoder that repeats itself would prove nothing


def test_batch_equals_singles():
    made = decoder(top_k=1, guidance=3.0)
    condition = features(4)
    together = made.sample(condition)
    alone = torch.cat([made.sample(row[None]) for row in condition])
    assert torch.equal(together, alone)


def test_equal_seeds_equal_images_and_others_differ():
    made = decoder()
    first, again, other = (made(features(), seeded(number)) for number in (0, 0, 1))
    assert first.shape == (2, 3, 48, 48)
    assert 0 <= first.min() <= first.max() <= 1
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_codes_depend_on_the_condition():
    made = decoder(top_k=1, guidance=1.0)
    assert not torch.equal(made.sample(features()), made.sample(-features()))


def test_decodes_at_the_end_of_a_tokenizer():
    walk = pixel_tokenizer()
    words = AutoregressiveDecoder(transformer(), pixel_tokenizer(), guidance=2.0)
    words.transformer.condition = torch.nn.Linear(32, 16)
    words.transformer.cond_dim = 32
    whole = Tokenizer(walk.encoder, walk.project_in, walk.quantizer, walk.project_out, words).eval()
    codes = whole.encode(torch.rand(2, 3, 64, 32))
    assert torch.equal(whole.decode(codes, seeded()), whole.decode(codes, seeded()))
    assert whole.decode(codes).shape == (2, 3, 48, 48)


def test_loss_is_the_mean_negative_log_probability_and_drops_to_zeros():
    made = decoder()
    images = torch.rand(2, 3, 48, 48)
    codes = made.pixels.encode(images).flatten(1)
    dropped = torch.tensor([True, False])
    condition = features()
    before = condition.clone()
    loss = made.loss(condition, images, dropped)
    logits = made.transformer(torch.stack([torch.zeros(16, 8), condition[1].flatten(0, 1)]), codes).double()
    expected = -torch.stack(
        [(logits[b, t].exp() / logits[b, t].exp().sum())[codes[b, t]].log() for b in range(2) for t in range(9)]
    ).mean()
    assert loss.item() == pytest.approx(expected.item(), abs=1e-5)
    assert torch.equal(condition, before)  # the caller's features are left alone
    loss.backward()
    assert all(p.grad is not None for p in made.transformer.parameters())
    assert all(p.grad is None for p in made.pixels.parameters())


def test_one_compiled_step_serves_all_positions():
    graphs = []

    def count(graph, _):
        graphs.append(graph)
        return graph.forward

    made = decoder(top_k=1, guidance=3.0)
    plain = made.sample(features())
    made._step = torch.compile(made.transformer.step, backend=count, dynamic=False, fullgraph=True)
    assert torch.equal(made.sample(features()), plain)
    assert len(graphs) == 1


def test_settings_can_be_changed_and_are_checked():
    made = decoder(top_k=1, guidance=1.0)
    greedy = made.sample(features())
    made.sampling = Sampling(temperature=5.0)
    assert not torch.equal(made.sample(features(), seeded()), greedy)
    with pytest.raises(ValueError, match=r"top_p=1\.5 must lie in \(0, 1\]"):
        made.sampling = Sampling(top_p=1.5)
    with pytest.raises(ValueError, match="top_k=99"):
        decoder(top_k=99)


def test_unfit_parts_and_features_are_refused():
    with pytest.raises(ValueError, match="2 codebooks of 32"):
        AutoregressiveDecoder(transformer(), pixel_tokenizer(num_codebooks=2))
    with pytest.raises(ValueError, match="1 codebooks of 64"):
        AutoregressiveDecoder(transformer(), pixel_tokenizer(codebook_size=64))
    made = decoder()
    with pytest.raises(ValueError, match="D=6 channels, this de-tokenizer reads cond_dim=8"):
        made(features(dim=6))
    with pytest.raises(ValueError, match="20 condition tokens must lie in \\[1, max_condition=16\\]"):
        made(features(height=4, width=5))
    with pytest.raises(ValueError, match="must have shape"):
        made(features().flatten(1, 2))
    with pytest.raises(ValueError, match="16 codes in a sequence"):
        made.logits(features(), torch.zeros(2, 1, 4, 4, dtype=torch.int64))
