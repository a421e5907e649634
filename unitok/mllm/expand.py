"""A causal language model grows rows for visual words, and keeps what it knew."""

import warnings
from typing import Any, NamedTuple

import torch
from torch import Tensor

from unitok.mllm.vocabulary import KEY, VisualVocabulary


class Expansion(NamedTuple):
    """What was done to a model.

    Attributes:
        rows: of the input embedding, before and after.
        codes: how rows of code words were made: "codebook", "fitted", "mean", or "kept" where they were there already.
        fit: share of the variance of the fitted words that the projection explains; 1 where nothing was fitted.
    """

    rows: tuple[int, int]
    codes: str
    fit: float


@torch.no_grad()
def expand_vocabulary(
    model: Any,
    vocabulary: VisualVocabulary,
    codebook: Tensor | None = None,
    word_ids: Tensor | None = None,
) -> Expansion:
    """Rows for the vocabulary's words in the input embedding and output head of any AutoModelForCausalLM, in place.

    Rows of code words are the codebook's where it is as wide as the model; otherwise, where `word_ids` tells which
    words of this model the codes stand for, the codebook through a linear map fitted to carry it onto those words;
    otherwise, with a warning, the mean of the old rows. All other new rows are that mean. An output head that is not
    tied to the embedding gets the mean everywhere, as in Tar. Rows of old words are not touched. Their logits are the
    same to the last bit wherever the matrix product does not depend on the number of columns (so in the tests; no
    library promises it).

    A model that was expanded for this vocabulary before stays as it is: the settings stand in its config, and are
    saved with it. Rows that a model keeps beyond its tokenizer (Qwen2.5: 271) are used first; it never shrinks.

    Args:
        model: with `get_input_embeddings`, `get_output_embeddings` and `resize_token_embeddings`; of any dtype.
        vocabulary: registered on the model's own tokenizer.
        codebook: (V, C) code vectors of a text-aligned tokenizer, as `tokenizer.quantizer.codebook`.
        word_ids: (V,) int64 ids, in the model's tokenizer, of the words behind the codes; -1 where there is none.

    Raises:
        ValueError: the tokenizer is larger than the model (so not its own), another visual vocabulary in the model's
            config, a codebook of another size, packed codes with a codebook.
    """
    table = model.get_input_embeddings().weight
    before, kept = len(table), getattr(model.config, KEY, None)
    if kept is not None:
        if kept != _identity(vocabulary):
            raise ValueError(f"the model was expanded for {kept}, not for {_identity(vocabulary)}")
        return Expansion((before, before), "kept", 1.0)
    _check(vocabulary, before, codebook, word_ids)
    text = slice(0, min(vocabulary.first, before))
    model.resize_token_embeddings(max(before, vocabulary.stop), mean_resizing=False)
    table, head = model.get_input_embeddings().weight, model.get_output_embeddings()
    visual = slice(vocabulary.first, vocabulary.stop)
    table[visual] = _mean(table[text])
    if head is not None and head.weight is not table:
        head.weight[visual] = _mean(head.weight[text])
    if head is not None and getattr(head, "bias", None) is not None:
        head.bias[visual] = _mean(head.bias[text])
    kind, fit, rows = _code_rows(table[text], codebook, word_ids)
    if rows is not None:
        table[vocabulary.first_code : vocabulary.first_code + vocabulary.num_codes] = rows.to(table)
    setattr(model.config, KEY, _identity(vocabulary))
    return Expansion((before, len(table)), kind, fit)


def words_of(tokenizer: Any, words: list[str]) -> Tensor:
    """Words behind the codes -> (V,) int64 ids in a Hugging Face tokenizer; -1 where a word is no single id there."""
    ids = [tokenizer(word, add_special_tokens=False)["input_ids"] for word in words]
    return torch.tensor([one[0] if len(one) == 1 else -1 for one in ids])


def _code_rows(text: Tensor, codebook: Tensor | None, word_ids: Tensor | None) -> tuple[str, float, Tensor | None]:
    if codebook is None:
        return "mean", 1.0, None
    if codebook.shape[1] == text.shape[1]:
        return "codebook", 1.0, codebook
    if word_ids is None:
        warnings.warn(
            f"the codebook is {codebook.shape[1]} wide and the model {text.shape[1]}: its code words start as the mean "
            f"of the old words. Give word_ids to fit a projection",
            stacklevel=3,
        )
        return "mean", 1.0, None
    rows, fit = fit_rows(codebook, text, word_ids)
    return "fitted", fit, rows


def fit_rows(codebook: Tensor, text: Tensor, word_ids: Tensor, ridge: float = 1e-3) -> tuple[Tensor, float]:
    """(V, C) codebook, (n, d) embedding, (V,) ids of its words -> (V, d) rows, and the share of variance explained.

    Ridge regression, with an offset, from code vectors to the embeddings of their words, applied to all V. In
    float64; the ridge is a share of the mean squared code vector's channel.
    """
    known = word_ids >= 0
    source, target = codebook[known].double(), text[word_ids[known]].double()
    centre, goal = source.mean(0), target.mean(0)
    source, target = source - centre, target - goal
    gram = source.T @ source
    gram.diagonal().add_(ridge * gram.diagonal().mean())
    weights = torch.linalg.solve(gram, source.T @ target)
    residual = (source @ weights - target).square().sum() / target.square().sum()
    return (codebook.double() - centre) @ weights + goal, 1 - float(residual)


def _check(vocabulary: VisualVocabulary, rows: int, codebook: Tensor | None, word_ids: Tensor | None) -> None:
    if vocabulary.first > rows:
        raise ValueError(
            f"the visual words begin at id {vocabulary.first}, but the model has {rows} rows: this tokenizer is larger "
            f"than the model and not its own"
        )
    if codebook is not None and vocabulary.packed:
        raise ValueError("packed codes have one word <code>; their vectors go into a CodeEmbedding")
    if codebook is not None and (codebook.ndim != 2 or len(codebook) != vocabulary.num_codes):
        raise ValueError(f"the codebook is {tuple(codebook.shape)}, the vocabulary has {vocabulary.num_codes} codes")
    if codebook is not None and word_ids is not None:
        if word_ids.shape != (len(codebook),):
            raise ValueError(f"word_ids must be ({len(codebook)},), one for each code, got {tuple(word_ids.shape)}")
        if int(word_ids.max()) >= min(rows, vocabulary.first) or int((word_ids >= 0).sum()) < 2:
            raise ValueError("word_ids must be ids of the model's text words, at least two of them not -1")


def _identity(vocabulary: VisualVocabulary) -> dict[str, Any]:
    return {**vocabulary.settings, "first": vocabulary.first}


def _mean(rows: Tensor) -> Tensor:
    return rows.float().mean(0).to(rows.dtype)
