"""Finding repetition in a sequence of statements.

Runs of equal segments become repetitions. Segments that differ in numbers only become calls of a block with parameters.
What saves most text goes first, so the result is short, not the shortest there is.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from .text_defaults import MOST_PARAMETERS

_MOST_BLOCKS = 16
_MOST_TRIED = 48  # segments whose saving is worked out for each block
_LONGEST_PERIOD = 256  # statements; a longer segment that repeats becomes a block
_LEAST_SAVED = 4.0  # tokens that a block has to save, a repetition a little more
_REPEAT = 6.0


class Part(NamedTuple):
    """Numbers that stand together in a statement.

    Attributes:
        numbers: The numbers; None if they differ between the places that the statement stands for. Inside a block they
            may be parameters: a str such as `$1`.
        follows: Whether they need not be written.
    """

    numbers: tuple[Any, ...] | None
    follows: bool


class Template(NamedTuple):
    """A statement without its numbers.

    Attributes:
        op: Operator as it is written.
        refs: How many statements back the operands stand; None if they follow.
        tied: How many statements back the same weight was last used; 0 if it is new.
        formats: For every part what stands before its numbers, and how many they are.
    """

    op: str
    refs: tuple[int, ...] | None
    tied: int
    formats: tuple[tuple[str, int], ...]


class Item:
    """A statement (with a template), a repetition (with a body) or a call (with the number of a block).

    Attributes:
        parts: Numbers: of a statement its own, of a repetition the count and then all of the body, of a call the
            arguments.
        structure: Equal for items that differ in numbers only.
        exact: Equal for items that are written alike.
        weight: About how many tokens it takes.
        joins: Whether it, or the last statement of its body, has several operands: a good place to end a segment.
    """

    __slots__ = ("block", "body", "exact", "joins", "parts", "structure", "template", "weight")

    def __init__(
        self,
        known: dict[Any, int],
        parts: tuple[Part, ...],
        template: Template | None = None,
        body: list[Item] | None = None,
        block: int = -1,
    ) -> None:
        self.parts, self.template, self.body, self.block = parts, template, body, block
        self.structure: int
        written = tuple([None if part.follows else part.numbers for part in parts])
        kind: Any = block
        self.weight, self.joins = 3 + len(parts), True
        if template is not None:
            kind = template
            self.weight = 1 + len(template.refs or ()) + 2 * (template.tied > 0)
            self.weight += sum([1 + len(numbers) for numbers in written if numbers is not None])
            self.joins = template.refs is not None and len(template.refs) > 1
        elif body is not None:
            kind = tuple([item.structure for item in body])
            self.weight = 3 + sum([item.weight for item in body])
            self.joins = body[-1].joins
        self.structure = known.setdefault((body is None, kind), len(known))
        self.exact = known.setdefault((self.structure, written), len(known))


_Place = tuple[list[Item], int]
"""A sequence and where a segment of it starts."""


class Folder:
    """Folds one list of statements; `blocks` holds the bodies of the blocks that this makes."""

    def __init__(self) -> None:
        self.blocks: list[list[Item]] = []
        self._known: dict[Any, int] = {}

    def statement(self, template: Template, parts: tuple[Part, ...]) -> Item:
        """A statement to fold."""
        return Item(self._known, parts, template)

    def fold(self, items: list[Item]) -> list[Item]:
        """What is left of a list once its repetition is folded."""
        items = self._runs(items)
        while len(self.blocks) < _MOST_BLOCKS:
            sequences = [items, *self.blocks]
            sequences += [body for sequence in sequences for body in _bodies(sequence)]
            places, size = self._best_block(sequences)
            if not places:
                break
            self._make_block(places, size)
            self.blocks = [self._refreshed(body) for body in self.blocks]
            items = self._refreshed(items)
        return items

    def _repeat(self, count: Part, body: list[Item]) -> Item:
        return Item(self._known, (count, *_parts(body)), body=body)

    def _with_parts(self, items: list[Item], parts: Iterator[Part]) -> list[Item]:
        """The same items with other numbers."""
        result = []
        for item in items:
            if item.body is not None:
                count = next(parts)
                result.append(self._repeat(count, self._with_parts(item.body, parts)))
            else:
                own = tuple([next(parts) for _ in item.parts])
                result.append(Item(self._known, own, item.template, block=item.block))
        return result

    def _refreshed(self, items: list[Item]) -> list[Item]:
        """The items with what bodies of repetitions have become, folded once more."""
        return self._runs(
            [item if item.body is None else self._repeat(item.parts[0], self._refreshed(item.body)) for item in items]
        )

    # --- runs ---

    def _runs(self, items: list[Item]) -> list[Item]:
        """The items with repetitions for runs of equal segments, as long as there are any."""
        while chosen := _choose_runs(items):
            folded: list[Item] = []
            at = 0
            for start, period, count in sorted(chosen):
                folded += items[at:start]
                at = start + period * count
                folded.append(self._repetition(items[start:at], period, count))
            items = folded + items[at:]
        return items

    def _repetition(self, items: list[Item], period: int, count: int) -> Item:
        turns = [_parts(items[i : i + period]) for i in range(0, len(items), period)]
        merged = [
            parts[0] if all(part.numbers == parts[0].numbers for part in parts) else Part(None, True)
            for parts in zip(*turns, strict=True)
        ]
        return self._repeat(Part((count,), False), self._runs(self._with_parts(items[:period], iter(merged))))

    # --- blocks ---

    def _best_block(self, sequences: list[list[Item]]) -> tuple[list[_Place], int]:
        """Where the segments stand that save most as a block, and their length; no places if none saves anything."""
        symbols: list[int] = []
        weights: list[float] = [0.0]
        origin: list[_Place] = []
        for number, sequence in enumerate(sequences):
            symbols += [*[item.structure for item in sequence], -1 - number]
            weights += [*[item.weight for item in sequence], 0.0]
            origin += [(sequence, at) for at in range(len(sequence) + 1)]
        length = np.cumsum(weights)
        suffixes, segments = _repeated(np.array(symbols, dtype=np.int64))
        candidates: list[tuple[float, int, int, int]] = []
        for size, first, end in segments:
            if size > 1:
                weight = float(length[suffixes[first] + size] - length[suffixes[first]])
                most = min(end - first, len(symbols) // size)
                candidates.append((-(most - 1) * weight, size, first, end))
        best, chosen, chosen_size = 0.0, list[_Place](), 0
        for bound, size, first, end in sorted(candidates)[:_MOST_TRIED]:
            if -bound <= best:
                break
            disjoint: list[int] = []
            for place in sorted(suffixes[first:end]):
                if not disjoint or place >= disjoint[-1] + size:
                    disjoint.append(place)
            places = [origin[place] for place in disjoint]
            saved = _saved([sequence[start : start + size] for sequence, start in places])
            if saved > best:
                best, chosen, chosen_size = saved, places, size
        return chosen, chosen_size

    def _make_block(self, places: list[_Place], size: int) -> None:
        """Makes a block of the segments at these places and puts calls in their stead."""
        segments = [sequence[start : start + size] for sequence, start in places]
        parts, columns = _parameters(segments) or ([], [])
        self.blocks.append(self._with_parts(segments[0], iter(parts)))
        for rank, (sequence, start) in reversed(list(enumerate(places))):
            arguments = tuple([Part((column[rank],), False) for column in columns])
            sequence[start : start + size] = [Item(self._known, arguments, block=len(self.blocks) - 1)]


def _parts(items: list[Item]) -> list[Part]:
    return [part for item in items for part in item.parts]


def _bodies(items: list[Item]) -> Iterator[list[Item]]:
    for item in items:
        if item.body is not None:
            yield item.body
            yield from _bodies(item.body)


def _choose_runs(items: list[Item]) -> list[tuple[int, int, int]]:
    """Disjoint runs of equal segments that save text (start, length of the segment, count), the best first."""
    exact = np.array([item.exact for item in items], dtype=np.int64)
    length = np.cumsum([0.0, *[item.weight for item in items]])
    runs: list[tuple[float, int, int, int]] = []
    for period in range(1, min(len(items) // 2, _LONGEST_PERIOD) + 1):
        same = np.concatenate(([False], exact[:-period] == exact[period:], [False]))
        edges = np.flatnonzero(same[1:] != same[:-1])
        for start, end in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
            if end - start < period:
                continue
            count, spare = divmod(end - start + period, period)
            shifts = range(min(spare, period - 1) + 1)
            start += next((shift for shift in shifts if items[start + shift + period - 1].joins), 0)
            saved = float(length[start + period * count] - length[start + period])
            if saved > _REPEAT:
                runs.append((-saved, period, start, count))
    taken = np.zeros(len(items), dtype=bool)
    chosen: list[tuple[int, int, int]] = []
    for _, period, start, count in sorted(runs):
        if not taken[start : start + period * count].any():
            taken[start : start + period * count] = True
            chosen.append((start, period, count))
    return chosen


def _saved(segments: list[list[Item]]) -> float:
    """Tokens that a block of these segments saves; 0 if they cannot be one."""
    found = _parameters(segments)
    if found is None or len(segments) < 2 or len(found[1]) > MOST_PARAMETERS:
        return 0.0
    body = 4 + sum([item.weight for item in segments[0]])
    alone = sum([item.weight for segment in segments for item in segment])
    return alone - body - len(segments) * (3.0 + len(found[1])) - _LEAST_SAVED


def _parameters(segments: list[list[Item]]) -> tuple[list[Part], list[tuple[Any, ...]]] | None:
    """One list of parts for all segments, with `$1`, `$2` ... where numbers differ, and these numbers for each.

    None if that cannot be.
    """
    merged: list[Part] = []
    columns: dict[tuple[Any, ...], str] = {}
    for parts in zip(*map(_parts, segments), strict=True):
        numbers = [part.numbers for part in parts]
        if all(part.follows for part in parts):
            merged.append(Part(numbers[0] if numbers.count(numbers[0]) == len(numbers) else None, True))
            continue
        if None in numbers:
            return None
        said: list[Any] = []
        for column in zip(*[n for n in numbers if n is not None], strict=True):
            alike = type(column[0]) is int and column.count(column[0]) == len(column)
            said.append(column[0] if alike else columns.setdefault(column, f"${len(columns) + 1}"))
        merged.append(Part(tuple(said), False))
    return merged, list(columns)


def _repeated(symbols: npt.NDArray[np.int64]) -> tuple[list[int], list[tuple[int, int, int]]]:
    """The sorted suffixes, and every segment that occurs more than once and cannot be made longer.

    A segment is (its length, the first suffix that starts with it, one past the last).

    Suffixes are sorted by doubling (Manber and Myers 1993, sec. 2); common prefixes follow from the ranks of one suffix
    after the other (Kasai et al. 2001, fig. 3); segments are the intervals of that list (Abouelhoda et al. 2004,
    sec. 3).
    """
    total = len(symbols)
    distinct, ranks = np.unique(symbols, return_inverse=True)
    width = 1
    while len(distinct) < total:
        second = np.zeros(total, dtype=np.int64)
        second[:-width] = ranks[width:] + 1
        distinct, ranks = np.unique(ranks.astype(np.int64) * (total + 1) + second, return_inverse=True)
        width *= 2
    suffixes = np.argsort(ranks).tolist()
    rank, text = ranks.tolist(), symbols.tolist()
    common = [0] * (total + 1)  # common[i]: of the suffixes i - 1 and i
    shared = 0
    for start in range(total):
        shared = max(0, shared - 1) if rank[start] else 0
        if rank[start]:
            other = suffixes[rank[start] - 1]
            while max(start, other) + shared < total and text[start + shared] == text[other + shared]:
                shared += 1
            common[rank[start]] = shared
    segments: list[tuple[int, int, int]] = []
    stack: list[tuple[int, int]] = [(0, 0)]  # (length, first suffix)
    for at in range(1, total + 1):
        first = at - 1
        while stack[-1][0] > common[at]:
            size, first = stack.pop()
            segments.append((size, first, at))
        if stack[-1][0] < common[at]:
            stack.append((common[at], first))
    return suffixes, segments
