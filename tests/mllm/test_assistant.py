import pytest
import torch

from tests.mllm.small import byte_words
from tests.mllm.test_visual_model import visual_model
from unitok.decoders.sampling import Sampling
from unitok.mllm.assistant import VisualAssistant
from unitok.mllm.processor import VisualProcessor
from unitok.mllm.vocabulary import VisualVocabulary
from unitok.models.unitok import tiny


def assistant(packed=False, visual=True):
    model = visual_model(packed)
    words = byte_words()
    VisualVocabulary(words, **model.vocabulary.settings)
    return VisualAssistant(model, VisualProcessor(words, tiny().eval() if visual else None))


@pytest.mark.parametrize("packed", [False, True])
def test_sentences_become_images(packed):
    made = assistant(packed)
    images = made.generate_images(["a dog", "two cats"], sampling=Sampling(guidance=2.0))
    assert images.shape == (2, 3, 32, 48)
    assert images.min() >= 0
    assert images.max() <= 1


@pytest.mark.parametrize("packed", [False, True])
def test_images_become_sentences(packed):
    made = assistant(packed)
    codes = [torch.zeros(2, 2, 3, dtype=torch.int64), torch.ones(2, 1, 2, dtype=torch.int64)]
    together = made.describe(codes, max_new_tokens=5)
    assert together == [made.describe([one], max_new_tokens=5)[0] for one in codes]
    assert made.processor.tokenizer.padding_side == "right"


def test_what_does_not_match_is_refused():
    made = assistant(visual=False)
    with pytest.raises(ValueError, match="does not have"):
        made.generate_images("a dog")
    words = byte_words()
    VisualVocabulary(words, 2, 31)
    with pytest.raises(ValueError, match="the model writes"):
        VisualAssistant(made.model, VisualProcessor(words))
