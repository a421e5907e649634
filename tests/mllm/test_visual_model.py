import pytest
import torch

from tests.mllm.small import ARCHITECTURES, byte_words, language_model
from unitok.mllm.depth_head import DepthHead
from unitok.mllm.expand import expand_vocabulary
from unitok.mllm.visual_model import VisualLanguageModel, _cache_name
from unitok.mllm.vocabulary import VisualVocabulary
from unitok.models.unitok import tiny

CODES = torch.randint(32, (2, 2, 2, 3), generator=torch.Generator().manual_seed(0))


def visual_model(packed, kind="qwen2"):
    visual = VisualVocabulary(byte_words(), 2, 32, [(2, 3)], max_side=4, packed=packed)
    model = language_model(kind)
    expand_vocabulary(model, visual)
    torch.manual_seed(1)
    made = (
        VisualLanguageModel.packed(model, visual, tiny(), dim=16, depth=1, num_heads=2)
        if packed
        else VisualLanguageModel(model, visual)
    )
    with torch.no_grad():  # weights that matter, so that a wrong word or a wrong place shows
        for parameter in made.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.3)
    return made.eval()


def batch(visual, text=(5, 6, 7)):
    ids = torch.cat([torch.tensor(text).expand(2, -1), visual.to_ids(CODES), torch.tensor([[8, 9]]).expand(2, -1)], 1)
    rows = torch.zeros(*ids.shape, 2, dtype=torch.int64)
    if visual.packed:
        rows[visual.is_code(ids)] = visual.to_rows(CODES).flatten(0, 1)
    return ids, rows if visual.packed else None


@pytest.mark.parametrize("kind", ARCHITECTURES)
@torch.no_grad()
def test_states_are_what_the_head_reads(kind):
    model = visual_model(True, kind)
    ids, rows = batch(model.vocabulary)
    read = model(ids, rows=rows)
    torch.testing.assert_close(model.model.get_output_embeddings()(read.states), read.logits)


@torch.no_grad()
def test_words_alone_are_the_language_model_itself():
    model = visual_model(False)
    ids, _ = batch(model.vocabulary)
    assert torch.equal(model(ids).logits, model.model(ids).logits)


@torch.no_grad()
def test_packed_positions_see_their_codes():
    model = visual_model(True)
    ids, rows = batch(model.vocabulary)
    before = model(ids, rows=rows).states
    place = int(model.vocabulary.is_code(ids[0]).nonzero()[2])
    changed = rows.clone()
    changed[:, place, 1] = (changed[:, place, 1] + 1) % 32
    after = model(ids, rows=changed).states
    assert torch.equal(after[:, :place], before[:, :place])
    assert not torch.allclose(after[:, place], before[:, place])


@pytest.mark.parametrize("packed", [False, True])
@torch.no_grad()
def test_loss_is_the_mean_over_learned_words(packed):
    model = visual_model(packed)
    visual, (ids, rows) = model.vocabulary, batch(model.vocabulary)
    learned = torch.zeros_like(ids, dtype=torch.bool)
    learned[0, 3:] = True  # the first image and the two words after it
    loss = model.loss(ids, learned, torch.ones_like(ids), rows)
    read = model(ids, rows=rows)
    text, image = [], []
    for place in range(3, ids.shape[1]):
        word = int(ids[0, place])
        if not visual.is_code(ids[0, place]):
            text.append(-read.logits[0, place - 1].log_softmax(-1)[word])
        elif packed:
            image += (model.depth_head.loss(read.states[0, place - 1][None], rows[0, place][None]).nats / 2).tolist()
        else:
            image.append(-read.logits[0, place - 1].log_softmax(-1)[word])
    assert len(text) == 5  # <im_start> <S0> <im_end> and two more
    assert len(image) == (6 if packed else 12)
    torch.testing.assert_close(loss.text, torch.tensor(text).mean())
    torch.testing.assert_close(loss.image, torch.tensor(image).mean())


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("packed", [False, True])
@torch.no_grad()
def test_padding_changes_nothing(packed, side):
    model = visual_model(packed)
    ids, rows = batch(model.vocabulary)
    learned = torch.ones_like(ids, dtype=torch.bool)
    pad = (2, 0) if side == "left" else (0, 2)
    wide = torch.nn.functional.pad
    mask = wide(torch.ones_like(ids), pad)
    wide_rows = None if rows is None else wide(rows, (0, 0, *pad))
    padded = model.loss(wide(ids, pad), wide(learned, pad), mask, wide_rows)
    learned[:, 0] = False
    plain = model.loss(ids, learned, None, rows)
    if side == "right":
        torch.testing.assert_close(padded, plain)
    else:
        torch.testing.assert_close(padded.image, plain.image)


def test_everything_learns_even_without_images():
    model = visual_model(True).train()
    ids = torch.tensor([[5, 6, 7, 8]])
    loss = model.loss(ids, torch.ones_like(ids, dtype=torch.bool), rows=torch.zeros(1, 4, 2, dtype=torch.int64))
    sum(loss).backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
    assert loss.image == 0
    assert loss.text > 0


def test_what_does_not_match_is_refused():
    visual = VisualVocabulary(byte_words(), 2, 32, [(2, 3)], packed=True)
    with pytest.raises(ValueError, match="expand_vocabulary first"):
        VisualLanguageModel(language_model(), visual)
    model = visual_model(True)
    with pytest.raises(ValueError, match="packed=True"):
        VisualLanguageModel(model.model, model.vocabulary)
    with pytest.raises(ValueError, match=r"DepthHead is for \(K, V\)=\(2, 31\)"):
        VisualLanguageModel(model.model, model.vocabulary, model.code_embedding, DepthHead(16, 2, 31, 16, 1, 2))
    with pytest.raises(ValueError, match="codes are needed"):
        model(batch(model.vocabulary)[0])


def test_the_cache_goes_by_the_models_own_name_for_it():
    class Older:
        def forward(self, input_ids, past_key_values=None): ...

    class Newer:
        def forward(self, input_ids, cache=None): ...

    class Adapted:
        def forward(self, *args, **options): ...

        def get_base_model(self):
            return Newer()

    assert [_cache_name(kind()) for kind in (Older, Newer, Adapted)] == ["past_key_values", "cache", "cache"]
