"""Images and text from a visual language model, only ever with words that are legal at their place."""

from typing import NamedTuple

import torch
from torch import Tensor

from unitok.decoders.sampling import Sampling, guide
from unitok.mllm.visual_model import Read, VisualLanguageModel
from unitok.mllm.vocabulary import Grid


class Prompt(NamedTuple):
    """What comes before.

    Attributes:
        ids: (B, L) int64, padded on the left.
        mask: (B, L), 0 for padding.
        rows: (B, L, K) codes beside `<code>`, or None where codes are words.
    """

    ids: Tensor
    mask: Tensor
    rows: Tensor | None = None


@torch.no_grad()
def generate_codes(
    model: VisualLanguageModel,
    prompt: Prompt,
    grid: Grid | None = None,
    sampling: Sampling = Sampling(),
    generator: torch.Generator | None = None,
    null: Prompt | None = None,
    cached: bool = True,
) -> Tensor:
    """A prompt for each of B images -> (B, K, h, w) codes; always whole and in range.

    The grid is written first; then each place may only hold a code of its own codebook. `Sampling(1.0, 1200, 0.95)`
    is Tar's; with K * V words top_k and top_p count within one codebook.

    Args:
        model: a visual language model, in eval mode.
        prompt: that ends where the image is to begin.
        grid: (h, w); None is the vocabulary's usual one.
        sampling: how each code is drawn; `guidance` above 1 needs `null`.
        generator: source of randomness.
        null: B prompts, or one, without condition.
        cached: False runs the whole sequence anew for each token, to compare with.

    Raises:
        ValueError: sampling out of range, guidance without null, prompts padded on the right.
    """
    vocabulary, grid, count = model.vocabulary, grid or model.vocabulary.grids[0], len(prompt.ids)
    _check_padding(prompt)
    sampling.check(vocabulary.codebook_size)
    guided = sampling.guidance > 1
    if guided and null is None:
        raise ValueError(f"guidance={sampling.guidance} needs null, the prompt without condition")
    if guided and null is not None:
        prompt = stack([prompt, _spread(null, count)])
    walk = _Walk(model, _then(prompt, vocabulary.head(grid)), cached)
    drawn: list[Tensor] = []
    places = grid[0] * grid[1] * vocabulary.per_token
    for place in range(places):
        words, codes = _draw(model, walk.read, place, count, sampling, generator)
        drawn.append(words if codes is None else codes)
        if place + 1 < places:
            walk.add(_twice(words, guided), None if codes is None else _twice(codes, guided))
    if vocabulary.packed:
        return vocabulary.to_grid(torch.stack(drawn, dim=1), grid)
    return vocabulary.to_grid(vocabulary.from_words(torch.stack(drawn, dim=1)), grid)


@torch.no_grad()
def generate_text(
    model: VisualLanguageModel,
    prompt: Prompt,
    stop: list[int],
    max_new_tokens: int = 64,
    sampling: Sampling = Sampling(temperature=0.0),
    generator: torch.Generator | None = None,
    cached: bool = True,
) -> list[Tensor]:
    """B prompts -> B rows of ids without visual words, each up to its first stop word, which is left out.

    Args:
        model: a visual language model, in eval mode.
        prompt: with or without images.
        stop: ids that end an answer.
        max_new_tokens: the longest answer; one that is cut off there has no stop word to be known by.
        sampling: how each word is drawn; greedy by default.
        generator: source of randomness.
        cached: False runs the whole sequence anew for each word, to compare with.
    """
    _check_padding(prompt)
    walk, ends = _Walk(model, prompt, cached), torch.tensor(stop, device=prompt.ids.device)
    done, drawn = prompt.mask.new_zeros(len(prompt.ids), dtype=torch.bool), []
    sampling.check(walk.read.logits.shape[-1])
    for place in range(max_new_tokens):
        logits = walk.read.logits[:, -1].clone()
        logits[:, model.vocabulary.first : model.vocabulary.stop] = -torch.inf
        words = sampling.draw(logits, generator)
        words = torch.where(done, ends[0], words)
        drawn.append(words)
        done = done | torch.isin(words, ends)
        if bool(done.all()) or place + 1 == max_new_tokens:
            break
        walk.add(words, None)
    answers = torch.stack(drawn, dim=1)
    lengths = [int((~torch.isin(answer, ends)).long().cumprod(0).sum()) for answer in answers]
    return [answer[:length] for answer, length in zip(answers, lengths, strict=True)]


def stack(prompts: list[Prompt]) -> Prompt:
    """Prompts of several lengths -> one batch, padded on the left with id 0."""
    length = max(prompt.ids.shape[1] for prompt in prompts)

    def padded(part: Tensor) -> Tensor:
        fill = part.new_zeros(len(part), length - part.shape[1], *part.shape[2:])
        return torch.cat([fill, part], dim=1)

    rows = None if prompts[0].rows is None else torch.cat([padded(p.rows) for p in prompts if p.rows is not None])
    return Prompt(torch.cat([padded(p.ids) for p in prompts]), torch.cat([padded(p.mask) for p in prompts]), rows)


class _Walk:
    """A sequence that grows: one new position over a cache, or everything anew."""

    def __init__(self, model: VisualLanguageModel, prompt: Prompt, cached: bool) -> None:
        self.model, self.prompt, self.cached = model, prompt, cached
        self.read: Read = model(*prompt, keep=cached)

    def add(self, ids: Tensor, codes: Tensor | None) -> None:
        """(B,) ids, and (B, K) codes where they are `<code>`."""
        prompt, step = self.prompt, ids[:, None]
        rows = prompt.rows
        if self.model.vocabulary.packed:
            beside = step.new_zeros(len(ids), self.model.vocabulary.num_codebooks) if codes is None else codes
            before = beside.new_zeros(*prompt.ids.shape, beside.shape[-1]) if rows is None else rows
            rows = torch.cat([before, beside[:, None]], dim=1)
        mask = torch.cat([prompt.mask, prompt.mask.new_ones(len(ids), 1)], dim=1)
        self.prompt = Prompt(torch.cat([prompt.ids, step], dim=1), mask, rows)
        if self.cached:
            last = None if rows is None else rows[:, -1:]
            self.read = self.model(step, mask, last, self.read.cache, keep=True)
        else:
            self.read = self.model(*self.prompt)


def _draw(
    model: VisualLanguageModel,
    read: Read,
    place: int,
    count: int,
    sampling: Sampling,
    generator: torch.Generator | None,
) -> tuple[Tensor, Tensor | None]:
    """(B,) ids of the next position, and (B, K) codes beside them where they are packed."""
    vocabulary, guided = model.vocabulary, sampling.guidance > 1
    if model.depth_head is not None:
        states = read.states[:, -1]
        null = states[count:] if guided else None
        codes = model.depth_head.sample(states[:count], sampling, generator, null)
        return torch.full_like(codes[:, 0], vocabulary.first_code), codes
    first = vocabulary.first_code + place % vocabulary.num_codebooks * vocabulary.codebook_size
    logits = read.logits[:, -1, first : first + vocabulary.codebook_size]
    if guided:
        logits = guide(logits[:count], logits[count:], sampling.guidance)
    return first + sampling.draw(logits, generator), None


def _check_padding(prompt: Prompt) -> None:
    if not bool(prompt.mask[:, -1].all()):
        raise ValueError("prompts must be padded on the left, so that all of them end where the answer begins")


def _then(prompt: Prompt, words: list[int]) -> Prompt:
    added = prompt.ids.new_tensor(words).expand(len(prompt.ids), -1)
    rows = prompt.rows
    if rows is not None:
        rows = torch.cat([rows, rows.new_zeros(*added.shape, rows.shape[-1])], dim=1)
    mask = torch.cat([prompt.mask, prompt.mask.new_ones(added.shape)], dim=1)
    return Prompt(torch.cat([prompt.ids, added], dim=1), mask, rows)


def _spread(prompt: Prompt, count: int) -> Prompt:
    rows = None if prompt.rows is None else prompt.rows.expand(count, -1, -1)
    return Prompt(prompt.ids.expand(count, -1), prompt.mask.expand(count, -1), rows)


def _twice(part: Tensor, guided: bool) -> Tensor:
    return torch.cat([part, part]) if guided else part
