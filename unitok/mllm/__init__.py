"""Codes as words of a language model: registered, embedded, read, written, and drawn one after another.

VisualVocabulary puts the words on a Hugging Face tokenizer, `expand_vocabulary` their rows into a causal language
model. VisualLanguageModel reads and writes them, alone or, K codes in a position, with a CodeEmbedding and a DepthHead.
VisualProcessor turns text and images into what it reads; VisualAssistant asks it for pictures and answers, saves and
loads. `unitok.mllm.build` names whole assistants for recipes; `unitok.training.language_task` trains them.
"""

from unitok.mllm.assistant import VisualAssistant
from unitok.mllm.code_embedding import CodeEmbedding
from unitok.mllm.depth_head import DepthHead
from unitok.mllm.expand import Expansion, expand_vocabulary, words_of
from unitok.mllm.generation import Prompt, generate_codes, generate_text
from unitok.mllm.processor import VisualProcessor
from unitok.mllm.visual_model import VisualLanguageModel
from unitok.mllm.vocabulary import FoundImage, VisualVocabulary

__all__ = [
    "CodeEmbedding",
    "DepthHead",
    "Expansion",
    "FoundImage",
    "Prompt",
    "VisualAssistant",
    "VisualLanguageModel",
    "VisualProcessor",
    "VisualVocabulary",
    "expand_vocabulary",
    "generate_codes",
    "generate_text",
    "words_of",
]
