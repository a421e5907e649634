"""A small language model from scratch: words learned from captions, a Qwen2 architecture with random weights."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

CHAT = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


def learn_words(texts: Iterable[str], size: int = 4096) -> Any:
    """Texts -> a Hugging Face tokenizer of at most `size` words: byte-level BPE, with the words of a chat.

    Any text can be written; the same texts give the same words.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=CHAT, initial_alphabet=sorted(alphabet), show_progress=False
    )
    backend.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=CHAT[2], pad_token=CHAT[0])


def read_captions(path: str) -> list[str]:
    """A JSON-lines file with "captions" (or "caption") in each line -> all of them.

    Raises:
        OSError: no such file.
        ValueError: no captions in it.
    """
    lines = [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines() if line.strip()]
    captions = [text for line in lines for text in line.get("captions", [line.get("caption")]) if text]
    if not captions:
        raise ValueError(f"{path} has no captions")
    return captions


def qwen2(words: Any, dim: int = 256, depth: int = 6, num_heads: int = 4, max_length: int = 4096) -> Any:
    """A tokenizer -> a causal language model of its size with random weights; 256 x 6 is 4.7 M and the embedding.

    Args:
        words: a Hugging Face tokenizer.
        dim: channels.
        depth: blocks.
        num_heads: attention heads.
        max_length: longest sequence.
    """
    from transformers import Qwen2Config, Qwen2ForCausalLM

    config = Qwen2Config(
        vocab_size=len(words),
        hidden_size=dim,
        intermediate_size=dim * 8 // 3,
        num_hidden_layers=depth,
        num_attention_heads=num_heads,
        num_key_value_heads=num_heads,
        max_position_embeddings=max_length,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=words.eos_token_id,
        pad_token_id=words.pad_token_id,
    )
    return Qwen2ForCausalLM(config)
