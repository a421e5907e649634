import pytest
import torch
from PIL import Image

from tests.mllm.small import byte_words
from unitok.images import read_images
from unitok.mllm.processor import VisualProcessor
from unitok.mllm.vocabulary import VisualVocabulary
from unitok.models.unitok import tiny

VISUAL = tiny().eval()
ONE, TWO = torch.randint(32, (2, 2, 2, 3), generator=torch.Generator().manual_seed(0))


def processor(packed=False, visual=None):
    words = byte_words()
    VisualVocabulary(words, 2, 32, [(4, 4)], max_side=8, packed=packed)
    return VisualProcessor(words, visual)


def found(made, ids, rows=None):
    return [image.codes for image in made.find_images(ids, rows, strict=True)]


def test_images_stand_where_their_placeholders_stood():
    made = processor()
    data = made(text="a<image>b<image>", images=[ONE, TWO], return_tensors="pt")
    ids = data["input_ids"][0]
    letters = made.tokenizer("ab")["input_ids"]
    expected = [letters[0], *made.vocabulary.to_ids(ONE[None])[0], letters[1], *made.vocabulary.to_ids(TWO[None])[0]]
    assert ids.tolist() == [int(word) for word in expected]
    assert [codes.tolist() for codes in found(made, ids)] == [ONE.tolist(), TWO.tolist()]


def test_packed_codes_travel_beside_the_ids():
    made = processor(packed=True)
    data = made(text=["x<image>", "<image> longer"], images=[[ONE], [TWO]], return_tensors="pt")
    assert data["code_rows"].shape == (*data["input_ids"].shape, 2)
    for row, codes in enumerate((ONE, TWO)):
        assert torch.equal(found(made, data["input_ids"][row], data["code_rows"][row])[0], codes)
    assert not data["code_rows"][~made.vocabulary.is_code(data["input_ids"])].any()


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding(side):
    made = processor()
    made.tokenizer.padding_side = side
    data = made(text=["abc", "a"], return_tensors="pt")
    assert data["attention_mask"].tolist() == [[1, 1, 1], [0, 0, 1] if side == "left" else [1, 0, 0]]
    assert made(text=["abc", "a"])["input_ids"][1] == made.tokenizer("a")["input_ids"]


def test_photos_are_encoded():
    made = processor(visual=VISUAL)
    photo = Image.effect_noise((80, 70), 60).convert("RGB")
    data = made(text="<image>", images=photo, return_tensors="pt")
    expected = VISUAL.encode(read_images([photo], size=64))
    assert torch.equal(found(made, data["input_ids"][0])[0], expected[0])
    mixed = made(text="<image><image>", images=[ONE, photo], return_tensors="pt")
    assert [c.tolist() for c in found(made, mixed["input_ids"][0])] == [ONE.tolist(), expected[0].tolist()]


@pytest.mark.parametrize(
    ("text", "images", "match"),
    [
        ("<image>", [ONE, TWO], "1 <image> for 2 images"),
        ("<image><image>", [ONE], "2 <image> for 1 images"),
        (["<image>", "a"], [ONE, TWO], "1 <image> for 2 images"),
        (["<image>", "a"], [[ONE], [TWO]], "0 <image> for 1 images"),
        ("<image>", [torch.zeros(3, 2, 2, dtype=torch.int64)], "K=2"),
        ("<image>", [torch.full((2, 2, 2), 32)], "32"),
        ("<image>", ["photo.jpg"], "need a visual tokenizer"),
    ],
)
def test_what_does_not_fit_is_refused(text, images, match):
    with pytest.raises(ValueError, match=match):
        processor()(text=text, images=images)


def test_a_tokenizer_of_other_codes_is_refused():
    words = byte_words()
    VisualVocabulary(words, 2, 31)
    with pytest.raises(ValueError, match=r"\(K, V\)=\(2, 31\)"):
        VisualProcessor(words, VISUAL)


CHAT = [
    {"role": "user", "content": [{"type": "image", "image": ONE}, {"type": "text", "text": "What?"}]},
    {"role": "assistant", "content": "A dog."},
    {"role": "user", "content": "Draw it."},
    {"role": "assistant", "content": [{"type": "image", "image": TWO}]},
]


def test_chat_renders_and_fills():
    made = processor()
    text = made.apply_chat_template(CHAT[:1], add_generation_prompt=True)
    assert text == "<|im_start|>user\n<image>What?<|endoftext|>\n<|im_start|>assistant\n"
    data = made.apply_chat_template(CHAT, tokenize=True, return_tensors="pt")
    assert [c.tolist() for c in found(made, data["input_ids"][0])] == [ONE.tolist(), TWO.tolist()]


def test_the_tokenizers_own_template_comes_first():
    made = processor()
    made.tokenizer.chat_template = "{% for m in messages %}[{{ m.role }}] {{ m.content }} {% endfor %}"
    assert made.apply_chat_template(CHAT[:2]) == "[user] <image>What? [assistant] A dog. "


@pytest.mark.parametrize("packed", [False, True])
def test_only_answers_are_learned(packed):
    made = processor(packed=packed)
    example = made.example(CHAT)
    whole = made.apply_chat_template(CHAT, tokenize=True, return_tensors="pt")
    assert torch.equal(example.ids, whole["input_ids"][0])
    if packed:
        assert torch.equal(example.rows, whole["code_rows"][0])
    answers = made.tokenizer("A dog.<|endoftext|>\n")["input_ids"] + made.vocabulary.to_ids(TWO[None])[0].tolist()
    answers += made.tokenizer("<|endoftext|>\n")["input_ids"]
    assert example.ids[example.learned].tolist() == answers
    with pytest.raises(ValueError, match="teaches nothing"):
        made.example(CHAT[:1])


def test_a_known_end_of_turn_is_used():
    made = processor()
    made.tokenizer.add_tokens(["<|im_end|>"], special_tokens=True)
    assert made.apply_chat_template(CHAT[1:2]) == "<|im_start|>assistant\nA dog.<|im_end|>\n"


def test_a_tokenizer_made_by_hand_is_not_saved(tmp_path):
    with pytest.warns(UserWarning, match="not saved"):
        processor(visual=VISUAL).save_pretrained(tmp_path)
    assert VisualProcessor.from_pretrained(tmp_path).visual is None


def test_saved_and_loaded(tmp_path, tiny_folder):
    from unitok.hub import load_tokenizer

    made = processor(visual=load_tokenizer(tiny_folder))
    made.save_pretrained(tmp_path)
    again = VisualProcessor.from_pretrained(tmp_path)
    assert again.vocabulary.__dict__ == made.vocabulary.__dict__
    images = torch.rand(1, 3, 64, 64)
    assert torch.equal(again.visual.encode(images), made.visual.encode(images))


def test_decoding_leaves_visual_words_out():
    made = processor()
    data = made(text="a <image>dog", images=[ONE])
    assert made.batch_decode(data["input_ids"]) == ["a dog"]
