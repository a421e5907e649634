import json

import pytest
import torch

from unitok.mllm.scratch import learn_words, qwen2, read_captions


def test_words_are_learned_and_write_any_text():
    words = learn_words(["a dog runs", "a dog sleeps"] * 5, size=280)
    assert len(words("dog")["input_ids"]) < 3
    assert words.decode(words("naïve <straße>!")["input_ids"]) == "naïve <straße>!"
    assert len(words("<|im_end|>")["input_ids"]) == 1


def test_captions_are_read(tmp_path):
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in [{"captions": ["a", "b"]}, {"caption": "c"}]))
    assert read_captions(str(path)) == ["a", "b", "c"]
    path.write_text("{}\n")
    with pytest.raises(ValueError, match="no captions"):
        read_captions(str(path))


def test_the_model_reads_its_words():
    words = learn_words(["a dog runs"], size=270)
    model = qwen2(words, dim=16, depth=1, num_heads=2)
    logits = model(torch.tensor([words("a dog")["input_ids"]])).logits
    assert logits.shape[-1] == len(words)
