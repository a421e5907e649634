"""Builders of visual assistants, as recipes name them."""

from importlib.util import find_spec
from typing import Any

import torch

from unitok.hub import load_tokenizer
from unitok.mllm.assistant import VisualAssistant
from unitok.mllm.code_embedding import random_maps
from unitok.mllm.expand import expand_vocabulary
from unitok.mllm.processor import VisualProcessor
from unitok.mllm.scratch import learn_words, qwen2, read_captions
from unitok.mllm.visual_model import VisualLanguageModel
from unitok.mllm.vocabulary import VisualVocabulary
from unitok.tokenizer import Tokenizer

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def from_scratch(
    captions: str,
    tokenizer: str = "unitok_tiny",
    packed: bool = True,
    num_words: int = 4096,
    dim: int = 256,
    depth: int = 6,
    num_heads: int = 4,
    head_dim: int = 256,
    head_depth: int = 2,
    size: int | None = None,
    seed: int = 0,
) -> VisualAssistant:
    """A small Qwen2 with random weights, on words learned from captions and the codes of a visual tokenizer.

    What stands for codes starts from their vectors through random maps.

    Args:
        captions: JSON-lines file with "captions" in each line.
        tokenizer: name, folder, published file or Hub repository of the visual tokenizer.
        packed: K codes in one position, or K * V words.
        num_words: words of text.
        dim: channels of the language model.
        depth: its blocks.
        num_heads: its attention heads.
        head_dim: channels of the depth head, where codes are packed.
        head_depth: its blocks.
        size: side of photos; None is the one the visual tokenizer was trained on.
        seed: of the weights.
    """
    _check_extra("transformers")
    visual = load_tokenizer(tokenizer)
    words = learn_words(read_captions(captions), num_words)
    vocabulary = _vocabulary(words, visual, packed, size)
    state = torch.random.get_rng_state()
    torch.manual_seed(seed)
    model = _assembled(qwen2(words, dim, depth, num_heads), vocabulary, visual, head_dim, head_depth, num_heads, True)
    torch.random.set_rng_state(state)
    return VisualAssistant(model, VisualProcessor(words, visual, size))


def pretrained(
    language_model: str,
    tokenizer: str = "unitok_tiny",
    packed: bool = False,
    head_dim: int = 1024,
    head_depth: int = 3,
    head_heads: int = 16,
    size: int | None = None,
    dtype: str = "bfloat16",
    gradient_checkpointing: bool = False,
    lora_rank: int = 0,
) -> VisualAssistant:
    """Any AutoModelForCausalLM, expanded for a visual tokenizer's codes.

    Args:
        language_model: folder or Hub repository, with its tokenizer.
        tokenizer: name, folder, published file or Hub repository of the visual tokenizer; of a text-aligned one the
            codebook starts the rows of the code words.
        packed: K codes in one position (UniTok's way), or K * V words (Tar's way).
        head_dim: channels of the depth head, where codes are packed.
        head_depth: its blocks.
        head_heads: its attention heads.
        size: side of photos; None is the one the visual tokenizer was trained on.
        dtype: of the weights.
        gradient_checkpointing: less memory for more time.
        lora_rank: 0 trains everything; otherwise adapters of this rank on all linear layers (needs peft), the visual
            words' rows, and the visual parts. Saving merges the adapters.
    """
    _check_extra("transformers", *(["peft"] if lora_rank else []))
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if dtype not in DTYPES:
        raise ValueError(f"dtype={dtype!r} is not one of {list(DTYPES)}")
    visual = load_tokenizer(tokenizer)
    words = AutoTokenizer.from_pretrained(language_model)
    model = AutoModelForCausalLM.from_pretrained(language_model, dtype=DTYPES[dtype])
    if gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    vocabulary = _vocabulary(words, visual, packed, size)
    made = _assembled(model, vocabulary, visual, head_dim, head_depth, head_heads)
    if lora_rank:
        made.model = with_adapters(made.model, vocabulary, lora_rank)
    return VisualAssistant(made, VisualProcessor(words, visual, size))


def with_adapters(model: Any, vocabulary: VisualVocabulary, rank: int) -> Any:
    """An expanded model -> the same under LoRA adapters of `peft`; of the embedding only visual rows learn."""
    from peft import LoraConfig, get_peft_model

    table = model.get_input_embeddings()
    name = next(name for name, module in model.named_modules() if module is table).split(".")[-1]
    rows = list(range(vocabulary.first, vocabulary.stop))
    config = LoraConfig(
        r=rank,
        lora_alpha=2 * rank,
        target_modules="all-linear",
        trainable_token_indices={name: rows},
        task_type="CAUSAL_LM",
    )
    return get_peft_model(model, config)


def _check_extra(*packages: str) -> None:
    if missing := [package for package in packages if find_spec(package) is None]:
        raise ImportError(f'language models need {" and ".join(missing)}: pip install "unitok-vision[mllm]"')


def _vocabulary(words: Any, visual: Tokenizer, packed: bool, size: int | None) -> VisualVocabulary:
    encoder: Any = visual.encoder
    if size is None or getattr(encoder, "grid", None):
        return VisualVocabulary.for_tokenizer(words, visual, packed)
    side = size // encoder.stride
    return VisualVocabulary(words, visual.num_codebooks, visual.codebook_size, [(side, side)], packed=packed)


def _assembled(
    model: Any,
    vocabulary: VisualVocabulary,
    visual: Tokenizer,
    dim: int,
    depth: int,
    num_heads: int,
    fresh: bool = False,
) -> VisualLanguageModel:
    codebook = None if vocabulary.packed else getattr(visual.quantizer, "codebook", None)
    if codebook is not None and fresh:
        table = model.get_input_embeddings().weight
        codebook = random_maps(codebook[None], table.shape[1])[0] * table.std()
    expand_vocabulary(model, vocabulary, codebook)
    if not vocabulary.packed:
        return VisualLanguageModel(model, vocabulary)
    return VisualLanguageModel.packed(model, vocabulary, visual, dim, depth, num_heads)
