"""Codes as words of a language model: registered, embedded, read, written, and drawn one after another."""

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
