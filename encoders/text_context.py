"""Statements of a description in their context: what is counted where a text is compared with other texts.

A description is read as text, with no more of its grammar than names, braces and calls: nothing is derived, no shape
and no cost. Calls are written out with their arguments; of a repetition the first turn and a second one, which stands
for all that follow. Every statement counts as often as it is carried out and has labels: its operator and arguments
without names; and, as in the subtree kernel of Shervashidze et al. (2011, sec. 3.2), the label of depth d - 1 together
with those of the statements that it refers to, and with those of the statements that refer to it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from hashlib import blake2b
from typing import NamedTuple

from .text_defaults import LETTERS, NO_OPERAND

DEPTHS = 3
"""Steps from a statement that its deepest labels look at."""

FAMILIES = ("statements", "sizes", *[f"depth {depth}" for depth in range(1, DEPTHS + 1)])
"""What is counted: labels of depth 0, the same with widths and shapes, and those of every depth."""

Counts = dict[int, int]
"""How often every label occurs; labels are 64-bit hashes."""

_WORDS = re.compile(r'"(?:\\.|[^"\\])*"|[(){}=]|[^\s"(){}=]+')
_SIZE = re.compile(r"(?:\d+|\$\d+)(?:x(?:\d+|\$\d+))*", re.ASCII)
_NAME = re.compile(r"[a-z_](?:_\d+)?|[a-z_]{2,}\w*|\^\d+", re.ASCII)
_OPERATOR = re.compile(r"[A-Z]\w*|[\w.]+(?:::[\w.]+)+|\".*", re.ASCII | re.DOTALL)
_NEUTRAL = frozenset(f"{letter}{neutral}" for letter, (_, neutral) in LETTERS.items() if letter != "p")
_PARAMETER = re.compile(r"\$(\d+)")


class Statement(NamedTuple):
    """A statement where it is carried out.

    Attributes:
        label: Operator and arguments but for widths and shapes.
        sizes: Its widths and shapes.
        operands: Positions of the statements that it refers to.
        times: How often it is carried out.
    """

    label: str
    sizes: str
    operands: tuple[int, ...]
    times: int


class _Written(NamedTuple):
    """A statement as it is written; without `refs` it refers to the one before, if the operator takes operands."""

    name: str
    operator: str
    arguments: list[str]
    sizes: list[str]
    refs: list[str]


class _Group(NamedTuple):
    """A repetition, or a call of a block with its arguments."""

    body: list[_Written | _Group]
    turns: str
    arguments: list[str] | None


_Body = list[_Written | _Group]


def statements(text: str) -> list[Statement]:
    """Statements of a description that `describe` wrote (`full` or `compact`), in the order they are carried out in."""
    found: list[Statement] = []
    named: dict[str, int] = {}

    def position(ref: str) -> int:
        if ref == "prev":
            return len(found) - 1
        return len(found) - int(ref[1:]) if ref.startswith("^") else named.get(ref, -1)

    def put(word: str, arguments: Sequence[str]) -> str:
        return _PARAMETER.sub(lambda match: arguments[int(match[1]) - 1], word) if arguments else word

    def carry_out(body: _Body, arguments: Sequence[str], times: int) -> None:
        for step in body:
            if isinstance(step, _Group):
                inner = arguments if step.arguments is None else [put(word, arguments) for word in step.arguments]
                count = int(put(step.turns, arguments))
                carry_out(step.body, inner, times)
                if count > 1:
                    carry_out(step.body, inner, times * (count - 1))
                continue
            refs = step.refs or ([] if step.operator in NO_OPERAND else ["prev"])
            operands = tuple([at for at in map(position, refs) if at >= 0])
            said = [put(word, arguments) for word in step.arguments]
            label = " ".join([step.operator, *[word for word in said if word not in _NEUTRAL]])
            sizes = " ".join([put(word, arguments) for word in step.sizes])
            if step.name:
                named[step.name] = len(found)
            found.append(Statement(label, sizes, operands, times))

    carry_out(_Reader(text.partition("\n")[2]).body(), (), 1)
    return found


class _Reader:
    """Turns the words of a description into steps."""

    def __init__(self, text: str) -> None:
        self._words: list[str] = [*_WORDS.findall(text), "", ""]
        self._at = 0
        self._blocks: dict[str, _Body] = {}

    def _take(self) -> str:
        self._at += 1
        return self._words[self._at - 1]

    def body(self) -> _Body:
        """Steps up to the brace that closes, the outputs or the end."""
        found: _Body = []
        while (word := self._take()) not in ("", "}", "out"):
            following = self._words[self._at]
            if word == "block":
                title = self._take()
                self._take()
                self._blocks[title] = self.body()
            elif word == "repeat":
                count = self._take()
                self._take()
                found.append(_Group(self.body(), count, None))
            elif word in self._blocks and following == "(":
                self._take()
                arguments = self._listed()
                turns = self._words[self._at]
                count = self._take()[1:] if re.fullmatch(r"x[\d$]+", turns) else "1"
                found.append(_Group(self._blocks[word], count, arguments))
            elif word.endswith(":"):
                found.append(_Written(word[:-1], self._take(), [], [], []))
            elif _OPERATOR.fullmatch(word) and following != "=":
                found.append(_Written("", word, [], [], []))
            elif found and isinstance(found[-1], _Written):
                self._argument(word, found[-1])
        return found

    def _listed(self) -> list[str]:
        """Words up to the parenthesis that closes."""
        words: list[str] = []
        depth = 1
        while word := self._take():
            depth += (word == "(") - (word == ")")
            if not depth:
                break
            words.append(word)
        return words

    def _argument(self, word: str, into: _Written) -> None:
        if self._words[self._at] == "=":
            self._take()
            value = self._take()
            value = f"({' '.join(self._listed())})" if value == "(" else value
            if word == "tied":
                into.arguments.append(word)
            else:
                (into.sizes if word in ("shape", "w", "params") else into.arguments).append(f"{word}={value}")
        elif _SIZE.fullmatch(word):
            into.sizes.append(word)
        elif word != "dw" and _NAME.fullmatch(word):
            into.refs.append(word)
        else:
            into.arguments.append(word)


def _hashed(*parts: object) -> int:
    return int.from_bytes(blake2b(repr(parts).encode(), digest_size=8).digest(), "little")


def counted(text: str) -> tuple[Counts, ...]:
    """How often every label of each of the `FAMILIES` occurs in a description."""
    found = statements(text)
    users: list[list[int]] = [[] for _ in found]
    for at, statement in enumerate(found):
        for operand in statement.operands:
            users[operand].append(at)
    families: list[Counts] = [{} for _ in FAMILIES]

    def count(family: int, labels: Sequence[int]) -> None:
        counts = families[family]
        for label, statement in zip(labels, found, strict=True):
            counts[label] = counts.get(label, 0) + statement.times

    known: dict[tuple[object, ...], int] = {}

    def named(*parts: object) -> int:
        if parts not in known:
            known[parts] = _hashed(*parts)
        return known[parts]

    before = after = [named(statement.label) for statement in found]
    count(0, before)
    count(1, [named(statement.label, statement.sizes) for statement in found])
    for depth in range(1, DEPTHS + 1):
        before = [
            named("before", label, *sorted([before[i] for i in statement.operands]))
            for label, statement in zip(before, found, strict=True)
        ]
        after = [
            named("after", label, *sorted([after[i] for i in used])) for label, used in zip(after, users, strict=True)
        ]
        count(1 + depth, before)
        count(1 + depth, after)
    return tuple(families)
