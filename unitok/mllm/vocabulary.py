"""Codes as words of a language model: registered on a Hugging Face tokenizer, written row by row, read back whole.

An image is `<im_start>`, its grid, its codes row by row with the K codebooks innermost, `<im_end>`. The grid is one
scale word `<S0>`, `<S1>`, ... where it is one of the vocabulary's own, and otherwise a height and a width word, as in
`<h16><w24>`, so that photos that are not square return whole. Code v of codebook k is the word `<I{k * V + v}>`.
The first words stand in the order in which Tar (arXiv 2506.18898) added its own, so that ids of its models agree.
"""

import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from unitok.quantizers import check_codes
from unitok.tokenizer import Tokenizer

Grid = tuple[int, int]
KEY = "visual_vocabulary"
BEGIN, END, PLACEHOLDER = "<im_start>", "<im_end>", "<image>"
PACKED = "<code>"


class FoundImage(NamedTuple):
    """An image among ids.

    Attributes:
        codes: (K, h, w) int64; None where not even the grid can be read.
        start: place of `<im_start>`.
        stop: first place after the image.
        missing: tokens that were not there to be read and hold code 0 in all codebooks.
        problem: what is wrong, and how it was repaired; empty for a whole image.
    """

    codes: Tensor | None
    start: int
    stop: int
    missing: int
    problem: str


class VisualVocabulary:
    """The visual words of a language model's tokenizer, and codes (B, K, h, w) <-> ids.

    Making one registers the words as special tokens, which no tokenizer splits; words that are there already stay as
    they are, so it may be done twice. The settings are kept in the tokenizer, are saved and loaded with it, and
    `VisualVocabulary.of(tokenizer)` finds them. Ids of text do not change. A text in which somebody wrote `<I5>` is
    read as that word: clean what strangers send.

    Args:
        words: a Hugging Face tokenizer; it is changed.
        num_codebooks: K.
        codebook_size: V, of ONE codebook.
        grids: (h, w) of each scale word, the usual one first.
        max_side: longest side of a grid that is written with height and width words; 0 registers none.
        packed: one word `<code>` for each token of K codes, which then travel beside the ids (UniTok's way: 256
            positions for 256 tokens), instead of K * V words of their own (Tar's way: K positions for a token).

    Raises:
        ValueError: the tokenizer has another visual vocabulary, or words of these names at scattered ids.
    """

    def __init__(
        self,
        words: Any,
        num_codebooks: int,
        codebook_size: int,
        grids: Sequence[Grid] = ((16, 16),),
        max_side: int = 64,
        packed: bool = False,
    ) -> None:
        grids = [(int(h), int(w)) for h, w in grids]
        if num_codebooks < 1 or codebook_size < 1 or len(set(grids)) != len(grids):
            raise ValueError(f"K={num_codebooks} and V={codebook_size} must be positive, grids={grids} all different")
        self.num_codebooks, self.codebook_size = num_codebooks, codebook_size
        self.grids, self.max_side, self.packed = tuple(grids), max_side, packed
        kept = words.init_kwargs.get(KEY)
        if kept is not None and kept != self.settings:
            raise ValueError(f"the tokenizer has the visual vocabulary {kept}, not {self.settings}")
        first = {name: _register(words, name, group) for name, group in self._groups().items()}
        words.init_kwargs[KEY] = self.settings
        self.begin, self.end, self.placeholder = first["begin"], first["begin"] + 1, first["placeholder"]
        self.first_scale, self.first_code = first.get("scales", -1), first["codes"]
        self.first_height, self.first_width = first.get("heights", -1), first.get("widths", -1)
        self.first, self.stop = min(first.values()), 1 + max(self._lasts(first))
        if self.stop - self.first != sum(map(len, self._groups().values())):
            raise ValueError("other words stand between the visual ones: register all of them on a fresh tokenizer")

    @classmethod
    def of(cls, words: Any) -> "VisualVocabulary":
        """The vocabulary that a tokenizer was given before it was saved.

        Raises:
            ValueError: it has none.
        """
        if KEY not in words.init_kwargs:
            raise ValueError("this tokenizer has no visual vocabulary: make one with VisualVocabulary(tokenizer, ...)")
        return cls(words, **words.init_kwargs[KEY])

    @classmethod
    def for_tokenizer(
        cls, words: Any, tokenizer: Tokenizer, packed: bool = False, max_side: int = 64
    ) -> "VisualVocabulary":
        """The words for a visual tokenizer's codes, with a scale word for each grid of its usual image size."""
        encoder: Any = tokenizer.encoder
        side = getattr(encoder, "grid", None) or tokenizer.image_size // encoder.stride
        grids = [(side // scale, side // scale) for scale in getattr(encoder, "scales", (1,))]
        return cls(words, tokenizer.num_codebooks, tokenizer.codebook_size, grids, max_side, packed)

    @property
    def settings(self) -> dict[str, Any]:
        """What makes one vocabulary equal to another; plain values, as JSON gives them back."""
        return {
            "num_codebooks": self.num_codebooks,
            "codebook_size": self.codebook_size,
            "grids": [list(grid) for grid in self.grids],
            "max_side": self.max_side,
            "packed": self.packed,
        }

    @property
    def num_codes(self) -> int:
        """Words that stand for codes: K * V, or 1 where they are packed."""
        return 1 if self.packed else self.num_codebooks * self.codebook_size

    @property
    def per_token(self) -> int:
        """Positions of one token: K, or 1 where codes are packed."""
        return 1 if self.packed else self.num_codebooks

    def check_tokenizer(self, tokenizer: Tokenizer) -> None:
        """Raise ValueError unless K and V are those of the visual tokenizer."""
        ours, theirs = (self.num_codebooks, self.codebook_size), (tokenizer.num_codebooks, tokenizer.codebook_size)
        if ours != theirs:
            raise ValueError(f"the vocabulary is for (K, V)={ours}, the visual tokenizer has (K, V)={theirs}")

    def head(self, grid: Grid) -> list[int]:
        """(h, w) -> the ids that open an image of this grid: `<im_start>` and its scale word, or its two sides.

        Raises:
            ValueError: a grid that is no scale of this vocabulary and longer than max_side.
        """
        height, width = grid
        if (height, width) in self.grids:
            return [self.begin, self.first_scale + self.grids.index((height, width))]
        if not (1 <= height <= self.max_side and 1 <= width <= self.max_side):
            raise ValueError(f"a grid of {height} x {width} is none of {self.grids}, and max_side={self.max_side}")
        return [self.begin, self.first_height + height - 1, self.first_width + width - 1]

    def to_ids(self, codes: Tensor, validate: bool | None = None) -> Tensor:
        """(B, K, h, w) codes -> (B, L) int64 ids, from `<im_start>` to `<im_end>`; L = 3 or 4 + h w K (packed: + h w).

        Raises:
            ValueError: codes of another shape, type or range, or of a grid that cannot be written.
        """
        check_codes(codes, self.num_codebooks, self.codebook_size, validate)
        head = torch.tensor(self.head((codes.shape[2], codes.shape[3])), device=codes.device)
        if self.packed:
            body = head.new_full((len(codes), codes.shape[2] * codes.shape[3]), self.first_code)
        else:
            body = (self.to_rows(codes) + self._offsets(codes.device)).flatten(1)
        end = head.new_full((len(codes), 1), self.end)
        return torch.cat([head.expand(len(codes), -1), body, end], dim=1)

    def to_rows(self, codes: Tensor) -> Tensor:
        """(B, K, h, w) codes -> (B, h w, K): row by row, the K codes of a token side by side."""
        return codes.long().flatten(2).transpose(1, 2)

    def to_grid(self, rows: Tensor, grid: Grid) -> Tensor:
        """(B, h w, K) rows -> (B, K, h, w) codes."""
        return rows.transpose(1, 2).reshape(len(rows), self.num_codebooks, *grid)

    def from_words(self, ids: Tensor) -> Tensor:
        """(B, h w K) ids of code words -> (B, h w, K) codes; the words must be in order, which `to_codes` looks at."""
        return ids.unflatten(1, (-1, self.num_codebooks)) - self._offsets(ids.device)

    def is_code(self, ids: Tensor) -> Tensor:
        """Where ids are words for codes, as booleans of the same shape."""
        return (ids >= self.first_code) & (ids < self.first_code + self.num_codes)

    def is_visual(self, ids: Tensor) -> Tensor:
        """Where ids are words of this vocabulary, as booleans of the same shape."""
        return (ids >= self.first) & (ids < self.stop)

    def to_codes(self, ids: Tensor, rows: Tensor | None = None, strict: bool = False) -> list[FoundImage]:
        """(L,) ids -> every image among them, in order.

        An image is read up to the first word that does not belong to it: cut off, of another codebook, or text. What
        is missing from there on holds code 0, as in the published code, is counted, and is warned of.

        Args:
            ids: as a language model wrote them.
            rows: (L, K) codes beside the ids, where they are packed.
            strict: raise instead of repairing.

        Raises:
            ValueError: ids that are not a row of integers, packed ids without rows; with strict, a malformed image.
        """
        if ids.ndim != 1 or ids.is_floating_point():
            raise ValueError(f"ids must be one row of integers (L,), got {tuple(ids.shape)} of {ids.dtype}")
        if self.packed and (rows is None or rows.shape != (len(ids), self.num_codebooks)):
            shape = None if rows is None else tuple(rows.shape)
            raise ValueError(f"packed codes need rows of shape {(len(ids), self.num_codebooks)}, got {shape}")
        found, place = [], 0
        for start in (ids == self.begin).nonzero().flatten().tolist():
            if start >= place:
                found.append(self._read(ids, rows, start))
                place = found[-1].stop
        for image in found:
            if image.problem and strict:
                raise ValueError(f"the image at place {image.start}: {image.problem}")
            if image.problem:
                warnings.warn(f"the image at place {image.start}: {image.problem}", stacklevel=2)
        return found

    def _read(self, ids: Tensor, rows: Tensor | None, start: int) -> FoundImage:
        grid, first = self._grid(ids[start + 1 : start + 3].tolist(), start)
        if grid is None:
            return FoundImage(None, start, start + 1, 0, "no grid after <im_start>; no picture can be made")
        tokens, books = grid[0] * grid[1], self.num_codebooks
        body = ids[first : first + tokens * self.per_token]
        if self.packed:
            good = body == self.first_code
            read: Tensor = rows[first : first + len(body)]  # type: ignore[index]
        else:
            expected = self._offsets(ids.device).repeat(tokens)[: len(body)]
            good = (body >= expected) & (body < expected + self.codebook_size)
            read = (body - expected)[: len(body) // books * books].unflatten(0, (-1, books))
        right = int(good.long().cumprod(0).sum())
        whole = right // self.per_token
        kept = torch.zeros(tokens, books, dtype=torch.int64, device=ids.device)
        kept[:whole] = read[:whole]
        stop = first + right
        problem = f"{tokens - whole} of {tokens} tokens are missing and hold code 0" if whole < tokens else ""
        if not problem and (stop >= len(ids) or int(ids[stop]) != self.end):
            surplus = 0
            while stop < len(ids) and bool(self.is_code(ids[stop])):
                stop, surplus = stop + 1, surplus + 1
            problem = f"no <im_end> after {tokens} tokens" + (f"; {surplus} more words are left out" if surplus else "")
        closed = stop < len(ids) and int(ids[stop]) == self.end
        return FoundImage(self.to_grid(kept[None], grid)[0], start, stop + closed, tokens - whole, problem)

    def _grid(self, two: list[int], start: int) -> tuple[Grid | None, int]:
        """The words after `<im_start>` -> the grid, and the place of the first code."""
        if two and self.first_scale <= two[0] < self.first_scale + len(self.grids):
            return self.grids[two[0] - self.first_scale], start + 2
        if len(two) == 2 and self.max_side:
            height, width = two[0] - self.first_height + 1, two[1] - self.first_width + 1
            if 1 <= height <= self.max_side and 1 <= width <= self.max_side:
                return (height, width), start + 3
        return None, start + 1

    def _offsets(self, device: torch.device) -> Tensor:
        return self.first_code + self.codebook_size * torch.arange(self.num_codebooks, device=device)

    def _groups(self) -> dict[str, list[str]]:
        codes = [PACKED] if self.packed else [f"<I{i}>" for i in range(self.num_codes)]
        groups = {
            "begin": [BEGIN, END],
            "scales": [f"<S{i}>" for i in range(len(self.grids))],
            "codes": codes,
            "heights": [f"<h{i + 1}>" for i in range(self.max_side)],
            "widths": [f"<w{i + 1}>" for i in range(self.max_side)],
            "placeholder": [PLACEHOLDER],
        }
        return {name: group for name, group in groups.items() if group}

    def _lasts(self, first: dict[str, int]) -> list[int]:
        return [first[name] + len(group) - 1 for name, group in self._groups().items()]


def _register(words: Any, name: str, group: list[str]) -> int:
    """Add what is not there yet as special tokens; the id of the first, after which the others follow one by one."""
    from transformers import AddedToken

    known = words.get_added_vocab()
    fresh = [AddedToken(word, special=True, normalized=False) for word in group if word not in known]
    if fresh:
        words.add_tokens(fresh, special_tokens=True)
        known = words.get_added_vocab()
    first = int(known[group[0]])
    if any(known[word] != first + place for place, word in enumerate(group)):
        raise ValueError(f"the words for {name}, from {group[0]} on, stand at scattered ids in this tokenizer")
    return first
