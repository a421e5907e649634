import pytest
import torch

from tests.mllm.small import ARCHITECTURES
from tests.mllm.test_visual_model import CODES, visual_model
from unitok.decoders.sampling import Sampling
from unitok.mllm.generation import Prompt, generate_codes, generate_text, stack

IDS = torch.tensor([[5, 6, 7], [9, 8, 7]])


def prompt(model, ids=IDS):
    rows = torch.zeros(*ids.shape, 2, dtype=torch.int64) if model.vocabulary.packed else None
    return Prompt(ids, torch.ones_like(ids), rows)


def drawn(model, start, cached=True, grid=(2, 3), null=None, **options):
    generator = torch.Generator().manual_seed(0)
    return generate_codes(model, start, grid, Sampling(**options), generator, null, cached)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_cached_equals_uncached(kind, packed):
    model = visual_model(packed, kind)
    assert torch.equal(drawn(model, prompt(model)), drawn(model, prompt(model), cached=False))


@pytest.mark.parametrize("packed", [False, True])
def test_guided_cached_equals_uncached(packed):
    model = visual_model(packed)
    start, null = prompt(model), prompt(model, torch.tensor([[3]]))
    with_cache = drawn(model, start, null=null, guidance=4.0)
    assert torch.equal(with_cache, drawn(model, start, cached=False, null=null, guidance=4.0))
    assert not torch.equal(with_cache, drawn(model, start))


@pytest.mark.parametrize("packed", [False, True])
def test_a_prompt_draws_alone_as_in_a_batch(packed):
    model = visual_model(packed)
    short, long = prompt(model, torch.tensor([[5, 6]])), prompt(model, torch.tensor([[9, 8, 7, 4]]))
    together = drawn(model, stack([short, long]), top_k=1)
    alone = [drawn(model, one, top_k=1) for one in (short, long)]
    assert torch.equal(together, torch.cat(alone))


@pytest.mark.parametrize("packed", [False, True])
def test_codes_are_whole_and_in_range_for_any_grid(packed):
    model = visual_model(packed)
    codes = drawn(model, prompt(model), grid=(4, 1))
    assert codes.shape == (2, 2, 4, 1)
    assert codes.min() >= 0
    assert codes.max() < 32


def test_greedy_codes_are_the_likeliest_of_their_codebook():
    model = visual_model(False)
    visual, start = model.vocabulary, prompt(model)
    codes = drawn(model, start, top_k=1)
    ids = torch.cat([start.ids, visual.to_ids(codes)], dim=1)
    logits = model(ids).logits
    for place in range(5, 17):
        first = visual.first_code + 32 * ((place - 5) % 2)
        best = logits[:, place - 1, first : first + 32].argmax(-1) + first
        assert torch.equal(best, ids[:, place])


@pytest.mark.parametrize("packed", [False, True])
def test_text_has_no_visual_words_and_ends_at_a_stop(packed):
    model = visual_model(packed)
    visual = model.vocabulary
    ids = visual.to_ids(CODES)
    rows = None
    if packed:
        rows = torch.zeros(*ids.shape, 2, dtype=torch.int64)
        rows[visual.is_code(ids)] = visual.to_rows(CODES).flatten(0, 1)
    start = Prompt(ids, torch.ones_like(ids), rows)
    whole = generate_text(model, start, [300000], 12)
    assert [len(answer) for answer in whole] == [12, 12]
    assert not any(bool(visual.is_visual(answer).any()) for answer in whole)
    uncached = generate_text(model, start, [300000], 12, cached=False)
    assert all(torch.equal(a, b) for a, b in zip(whole, uncached, strict=True))
    stop = int(whole[0][3])
    ended = generate_text(model, start, [stop], 12)
    cut = whole[0].tolist().index(stop)
    assert ended[0].tolist() == whole[0][:cut].tolist()


def test_what_cannot_be_is_refused():
    model = visual_model(False)
    with pytest.raises(ValueError, match="needs null"):
        drawn(model, prompt(model), guidance=2.0)
    with pytest.raises(ValueError, match="padded on the left"):
        drawn(model, Prompt(IDS, torch.tensor([[1, 1, 1], [1, 1, 0]])))
    with pytest.raises(ValueError, match="top_k=33"):
        drawn(model, prompt(model), top_k=33)
