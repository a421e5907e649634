"""Language models and tokenizers that build in a blink, random and without a download."""

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, PreTrainedTokenizerFast, Qwen2Config

SIZES = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
TEXT = "A dog, running: 42 photos of naïve straße <b>!"
ARCHITECTURES = ["qwen2", "qwen2_untied", "llama", "gpt2"]


def byte_words():
    """Every byte is a word: 256 of them, an end of text, and a split into words as GPT-2 has it."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE(vocab={letter: i for i, letter in enumerate(alphabet)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|endoftext|>", pad_token="<|endoftext|>")


def language_model(kind="qwen2", rows=257, seed=0):
    torch.manual_seed(seed)
    if kind.startswith("qwen2"):
        config = Qwen2Config(vocab_size=rows, num_key_value_heads=1, tie_word_embeddings=kind == "qwen2", **SIZES)
    elif kind == "llama":
        config = LlamaConfig(vocab_size=rows, num_key_value_heads=2, tie_word_embeddings=False, **SIZES)
    else:
        config = GPT2Config(vocab_size=rows, n_embd=16, n_layer=2, n_head=2, n_positions=256)
    config.eos_token_id = config.pad_token_id = config.bos_token_id = min(256, rows - 1)
    return AutoModelForCausalLM.from_config(config).eval()
