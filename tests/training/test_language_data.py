import json

import pytest
import torch

from tests.bulk.inputs import picture, tiny_tokenizer, write_tars
from unitok.bulk import tokenize
from unitok.training.language_data import Asking, LanguageData


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    tokenize(write_tars(folder / "in", 2, 4, broken=False), str(folder / "out"), tiny_tokenizer(), device="cpu")
    return str(folder / "out")


def batches(loader):
    return [json.dumps(batch.images, default=torch.Tensor.tolist) for batch in loader]


def test_captions_are_asked_both_ways(run):
    data = LanguageData([run], batch_size=4, seed=1, asking=Asking(dropout=0.0))
    conversations = [one for batch in data.train_dataloader() for one in batch.images]
    assert len(conversations) == 8
    described = [one for one in conversations if isinstance(one[1]["content"], str)]
    assert 0 < len(described) < 8
    for asked, answer in conversations:
        if isinstance(answer["content"], str):
            assert answer["content"].startswith("picture ")
            assert asked["content"][0]["image"].shape == (2, 4, 4)
            assert asked["content"][1]["text"] == "Describe the image."
        else:
            assert asked["content"].startswith("Draw: picture ")
            assert answer["content"][0]["image"].dtype == torch.int64


@pytest.mark.parametrize(("share", "empty"), [(0.0, 0), (0.999999, 8)])
def test_dropout_leaves_sentences_empty(run, share, empty):
    data = LanguageData([run], batch_size=8, asking=Asking(describing=0.0, dropout=share))
    (batch,) = data.train_dataloader()
    assert sum(asked["content"] == "Draw: " for asked, _ in batch.images) == empty


def test_resumed_where_it_was_left(run):
    whole = LanguageData([run], batch_size=2, seed=3).train_dataloader()
    expected = batches(whole) + batches(whole)
    assert len(set(expected)) > 4  # epochs differ
    first = LanguageData([run], batch_size=2, seed=3).train_dataloader()
    start = iter(first)
    begun = [json.dumps(next(start).images, default=torch.Tensor.tolist) for _ in range(3)]
    second = LanguageData([run], batch_size=2, seed=3).train_dataloader()
    second.load_state_dict(first.state_dict())
    assert begun + batches(second) + batches(second) == expected


def test_conversations_with_images_of_a_run(run, tmp_path):
    keys = [f"{number:05}" for number in (5, 2)]
    shown = [{"type": "image", "image": keys[0]}, {"type": "text", "text": "another"}]
    answer = [{"type": "image", "image": keys[1]}]
    lines = [
        {"messages": [{"role": "user", "content": shown}, {"role": "assistant", "content": answer}]},
        {"messages": [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "hi"}]},
    ]  # fmt: skip
    path = tmp_path / "talk.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    data = LanguageData([run], conversations=[str(path)], weights=[1, 2], batch_size=12)
    (batch,) = data.train_dataloader()
    plain = [one for one in batch.images if one[0]["content"] == "hello"]
    edits = [
        one for one in batch.images if isinstance(one[0]["content"], list) and one[0]["content"][1]["text"] == "another"
    ]
    assert (len(plain), len(edits)) == (2, 2)
    tokens = tiny_tokenizer()
    assert edits[0][1]["content"][0]["image"].shape == (tokens.num_codebooks, 4, 4)
    lines[0]["messages"][0]["content"][0]["image"] = "missing"
    path.write_text(json.dumps(lines[0]))
    with pytest.raises(ValueError, match="'missing'"):
        list(LanguageData([run], conversations=[str(path)], batch_size=9).train_dataloader())


def test_class_folders_make_sentences(tmp_path):
    for name in ("gas_pump", "tench"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        (tmp_path / "photos" / name / "0.png").write_bytes(picture(1, kind="PNG"))
    tokenize([str(tmp_path / "photos")], str(tmp_path / "out"), tiny_tokenizer(), device="cpu")
    data = LanguageData([str(tmp_path / "out")], validation=[str(tmp_path / "out")], batch_size=2)
    (first,), (second,) = batches(data.validation_loader()), batches(data.validation_loader())
    assert first == second
    ((described, drawn),) = (batch.images for batch in data.validation_loader())
    said, asked = described[1]["content"], drawn[0]["content"].removeprefix("Draw: ")
    assert {said, asked} == {"a photo of a gas pump.", "a photo of a tench."}


def test_wrong_settings_are_refused(run):
    with pytest.raises(ValueError, match="one for each"):
        LanguageData([run], weights=[1, 2])
    with pytest.raises(ValueError, match="more than the 8"):
        LanguageData([run], batch_size=9).train_dataloader()
