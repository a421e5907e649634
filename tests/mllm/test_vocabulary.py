import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from tests.mllm.small import TEXT, byte_words
from unitok.mllm.vocabulary import VisualVocabulary
from unitok.models import ta_tok
from unitok.models.unitok import tiny

WORDS = byte_words()
FLAT = VisualVocabulary(WORDS, 2, 5, [(2, 3), (1, 1)], max_side=4)


def codes_of(vocabulary, height, width, batch=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, vocabulary.num_codebooks, height, width)
    return torch.randint(vocabulary.codebook_size, shape, generator=generator)


def test_order_is_row_by_row_with_codebooks_innermost():
    codes = torch.tensor([[[[0, 1, 2], [3, 4, 0]], [[4, 3, 2], [1, 0, 4]]]])
    text = WORDS.convert_ids_to_tokens(FLAT.to_ids(codes)[0].tolist())
    assert " ".join(text) == ("<im_start> <S0> <I0> <I9> <I1> <I8> <I2> <I7> <I3> <I6> <I4> <I5> <I0> <I9> <im_end>")


def test_another_grid_is_written_with_its_sides():
    codes = torch.zeros(1, 2, 1, 4, dtype=torch.int64)
    text = WORDS.convert_ids_to_tokens(FLAT.to_ids(codes)[0].tolist())
    assert text[:5] == ["<im_start>", "<h1>", "<w4>", "<I0>", "<I5>"]


def test_first_words_stand_as_in_tar():
    words = byte_words()
    vocabulary = VisualVocabulary(words, 1, 64, [(27, 27), (13, 13), (9, 9)])
    names = ["<im_start>", "<im_end>", "<S0>", "<S1>", "<S2>", "<I0>", "<I1>"]
    assert words.convert_tokens_to_ids(names) == list(range(257, 264))
    assert vocabulary.first == 257
    assert vocabulary.stop == len(words)


@settings(max_examples=40, deadline=None, database=None)
@given(height=st.integers(1, 4), width=st.integers(1, 4), seed=st.integers(0, 99))
def test_round_trip_through_text(height, width, seed):
    codes = codes_of(FLAT, height, width, 1, seed)
    text = WORDS.decode(FLAT.to_ids(codes)[0], spaces_between_special_tokens=False)
    read = WORDS(f"a {text} b", return_tensors="pt")["input_ids"][0]
    (found,) = FLAT.to_codes(read, strict=True)
    assert torch.equal(found.codes, codes[0])
    assert read[found.start] == FLAT.begin
    assert read[found.stop - 1] == FLAT.end


@pytest.mark.parametrize("build", [tiny, ta_tok.tiny])
@pytest.mark.parametrize("packed", [False, True])
def test_round_trip_for_every_tokenizer(build, packed):
    tokenizer = build()
    vocabulary = VisualVocabulary.for_tokenizer(byte_words(), tokenizer, packed=packed)
    vocabulary.check_tokenizer(tokenizer)
    for grid in [*vocabulary.grids, (3, 5)]:
        codes = codes_of(vocabulary, *grid)
        ids = vocabulary.to_ids(codes)
        for one, expected in zip(ids, codes, strict=True):
            rows = None
            if packed:
                rows = torch.zeros(len(one), tokenizer.num_codebooks, dtype=torch.int64)
                rows[vocabulary.is_code(one)] = expected.flatten(1).T
            (found,) = vocabulary.to_codes(one, rows, strict=True)
            assert torch.equal(found.codes, expected)


def test_text_ids_stay(tmp_path):
    words = byte_words()
    before = words(TEXT)["input_ids"]
    vocabulary = VisualVocabulary(words, 2, 5, [(2, 3)])
    assert words(TEXT)["input_ids"] == before
    assert words("<I3>")["input_ids"] == [vocabulary.first_code + 3]
    assert words("x <im_start><S0>!")["input_ids"][2:4] == [vocabulary.begin, vocabulary.first_scale]
    assert words.decode([*before, vocabulary.first_code], skip_special_tokens=True) == TEXT


def test_saved_and_loaded_with_the_tokenizer(tmp_path):
    words = byte_words()
    vocabulary = VisualVocabulary(words, 2, 5, [(2, 3)], packed=True)
    words.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    again = VisualVocabulary.of(loaded)
    assert again.__dict__ == vocabulary.__dict__
    assert len(loaded) == len(words)
    with pytest.raises(ValueError, match="no visual vocabulary"):
        VisualVocabulary.of(byte_words())


def test_twice_is_once_and_another_is_refused():
    words = byte_words()
    VisualVocabulary(words, 2, 5)
    size = len(words)
    VisualVocabulary(words, 2, 5)
    assert len(words) == size
    with pytest.raises(ValueError, match="'codebook_size': 5"):
        VisualVocabulary(words, 2, 6)


def test_scattered_words_are_refused():
    words = byte_words()
    words.add_tokens(["<I3>"], special_tokens=True)
    with pytest.raises(ValueError, match="scattered"):
        VisualVocabulary(words, 2, 5)


def test_several_images_between_text():
    first, second = codes_of(FLAT, 2, 3, 1, 1), codes_of(FLAT, 4, 1, 1, 2)
    text = torch.tensor([1, 2])
    ids = torch.cat([text, FLAT.to_ids(first)[0], text, FLAT.to_ids(second)[0]])
    found = FLAT.to_codes(ids)
    assert [image.codes.tolist() for image in found] == [first[0].tolist(), second[0].tolist()]
    assert FLAT.to_codes(text) == []


IDS = FLAT.to_ids(codes_of(FLAT, 2, 3, 1))[0]  # <im_start> <S0>, 12 codes, <im_end>
BROKEN = {
    "cut off": (IDS[:7], 2, 4, "4 of 6 tokens"),
    "cut within a token": (IDS[:5], 1, 5, "5 of 6 tokens"),
    "text among codes": (torch.cat([IDS[:4], torch.tensor([65]), IDS[4:]]), 1, 5, "5 of 6"),
    "wrong codebook": (torch.cat([IDS[:6], IDS[5:6], IDS[7:]]), 2, 4, "4 of 6"),
    "ended early": (torch.cat([IDS[:6], IDS[-1:]]), 2, 4, "4 of 6"),
    "too many": (torch.cat([IDS[:-1], IDS[2:4], IDS[-1:]]), 6, 0, "2 more words"),
    "no end": (IDS[:-1], 6, 0, "no <im_end>"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_images_are_repaired_and_reported(name):
    ids, whole, missing, problem = BROKEN[name]
    with pytest.warns(UserWarning, match=problem):
        (found,) = FLAT.to_codes(torch.cat([torch.tensor([7]), ids]))
    expected = codes_of(FLAT, 2, 3, 1)[0].flatten(1)
    assert torch.equal(found.codes.flatten(1)[:, :whole], expected[:, :whole])
    assert not found.codes.flatten(1)[:, whole:].any()
    assert found.missing == missing
    with pytest.raises(ValueError, match=problem):
        FLAT.to_codes(ids, strict=True)


def test_an_image_without_grid_gives_no_codes():
    with pytest.warns(UserWarning, match="no grid"):
        (found,) = FLAT.to_codes(torch.tensor([FLAT.begin, 5, 6]))
    assert found.codes is None


def test_every_word_is_visual_and_nothing_else():
    ids = torch.arange(len(WORDS))
    assert FLAT.is_visual(ids).tolist() == [i >= 257 for i in range(len(WORDS))]
    codes = WORDS.convert_tokens_to_ids([f"<I{k * 5 + v}>" for k, v in itertools.product(range(2), range(5))])
    assert FLAT.is_code(ids).nonzero().flatten().tolist() == codes


def test_wrong_input_is_refused():
    with pytest.raises(ValueError, match="max_side=4"):
        FLAT.to_ids(torch.zeros(1, 2, 5, 2, dtype=torch.int64))
    with pytest.raises(ValueError, match="K=2"):
        FLAT.to_ids(torch.zeros(1, 3, 2, 2, dtype=torch.int64))
    with pytest.raises(ValueError, match="5"):
        FLAT.to_ids(torch.full((1, 2, 2, 2), 5))
    with pytest.raises(ValueError, match=r"\(K, V\)=\(2, 5\)"):
        FLAT.check_tokenizer(tiny())
    with pytest.raises(ValueError, match="row of integers"):
        FLAT.to_codes(torch.zeros(2, 3))
