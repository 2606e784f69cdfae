"""Tokens of descriptions: words of the grammar, operators, attribute names, and numbers whose magnitude can be seen.

Made for the texts that `text.describe` writes, but any text comes back: `decode(encode(text)) == text`.

- A word of the vocabulary (`shipped/tokenizer.json`) is one token: `Conv`, `prev`, `k3`, `a:`, `B1`.
- An integer below 16 is one token. A larger one is m * 2^k + r with m from 8 to 15: one token says m and k, that is the
  number to three bits behind the leading one, and, unless r is 0, ceil(k / 6) tokens say r. So 64, 96 or 224 are one
  token, 1000 is two, and numbers of one size share a token.
- A float is one token for its decimal magnitude, then its digits as an integer.
- Words that are not in the vocabulary, and whatever else there is, are spelled in bytes of UTF-8.

A space between two words is not written: every token knows whether it stands close to its neighbours, and where that is
not so a token says it. Lines are tokenised by themselves.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from decimal import Decimal
from functools import cached_property
from importlib.resources import files
from itertools import chain
from math import ceil, log2
from string import ascii_lowercase
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .errors import DataError

TOKENIZER_VERSION = 1
"""Version of the rules and of the vocabulary; a model's weights fit one version."""

PAD, MASK, SPACE, GLUE = range(4)
"""Token that fills up; token that hides another; a space, or none, where the opposite is expected."""

_BYTES = 4
_SMALL = _BYTES + 256
_EXACT = 16
_LARGE = _SMALL + _EXACT
_MANTISSAS = 8
_MOST_BITS = 59
_REST = _LARGE + _MANTISSAS * _MOST_BITS
_REST_BITS = 6
_DECIMAL = _REST + (1 << _REST_BITS)
_DECIMALS = 30
_LINE = _DECIMAL + 2 * _DECIMALS + 1
_INDENTS = 5
_WORDS = _LINE + _INDENTS

_GLUED = frozenset([")", "=", ":", "(", "()", ",", "[", "]", ".", "x-"])
"""Words with no space before them; `x-` is the sign between two dimensions."""
_OPEN = frozenset(
    ["(", "=", "^", "$", "-", '"', ",", "[", ".", "B", "Value", *[f"{letter}-" for letter in ascii_lowercase]]
)
"""Words with no space after them; `k-` is the letter of an argument whose number follows."""

_CHUNKS = re.compile(r"[^\s]+|\s+")
_PIECES = re.compile(
    r"""(?P<fused>(?<![\w$.])(?:[a-z]\d{1,2}|-[a-z_]+)(?![\w$.])|(?<!\w)[a-z]:(?!:)|\$\d(?!\d)|\(\))
    |(?P<float>(?<![\w.])\d+(?:\.\d+(?:e[+-]\d+)?|e[+-]\d+)(?![\w.]))
    |(?P<number>\d+)
    |(?P<dims>(?<=\d)x(?=[\d$]))
    |(?P<letter>(?<![\w$])[a-z](?=[\d$]))
    |(?P<word>[A-Za-z_]\w*)
    |(?P<other>.)""",
    re.VERBOSE | re.ASCII | re.DOTALL,
)
_NUMBERED = re.compile(r"([A-Za-z_]+)(\d+)", re.ASCII)
_MOST_KNOWN = 200_000
_MOST_TIMES = 1 << 20


class Segment(NamedTuple):
    """A part of a text.

    Attributes:
        tokens: Its tokens.
        times: How often it is carried out: a block for each call, a repetition for each turn.
    """

    tokens: tuple[int, ...]
    times: int


class Tokenizer:
    """Turns descriptions into token numbers and back.

    Args:
        words: The vocabulary, without numbers and bytes.

    Attributes:
        size: Number of different tokens.

    Raises:
        DataError: A word occurs twice.
    """

    def __init__(self, words: Sequence[str]) -> None:
        self.words = tuple(words)
        self.size = _WORDS + len(self.words)
        self._ids = {word: _WORDS + at for at, word in enumerate(self.words)}
        if len(self._ids) != len(self.words):
            raise DataError("a word stands in the tokenizer's vocabulary twice, expected different words")
        plain = [True] * self.size  # bytes, and tokens that say what a space is, stand close on both sides
        self._glued = plain[:_SMALL] + [False] * (self.size - _SMALL)
        self._open = list(self._glued)
        for token in range(_REST, _DECIMAL):
            self._glued[token] = True
        for token in range(_DECIMAL, _LINE):
            self._open[token] = True
        for token in range(_LINE, _WORDS):
            self._glued[token] = self._open[token] = True
        for word, token in self._ids.items():
            self._glued[token], self._open[token] = word in _GLUED, word in _OPEN
        self._known: dict[str, tuple[int, ...]] = {}

    @classmethod
    def shipped(cls) -> Tokenizer:
        """The tokenizer with the vocabulary that comes with archgauge.

        Raises:
            DataError: The file is of another version.
        """
        stored = json.loads((files(__package__) / "shipped" / "tokenizer.json").read_text(encoding="utf-8"))
        if stored["version"] != TOKENIZER_VERSION:
            raise DataError(
                f"shipped/tokenizer.json is of version {stored['version']}, expected {TOKENIZER_VERSION}: "
                "install archgauge again"
            )
        return cls(stored["words"])

    def encode(self, text: str) -> list[int]:
        """Tokens of a text."""
        return list(chain.from_iterable(self.encode_lines(text)))

    def encode_lines(self, text: str) -> list[tuple[int, ...]]:
        """Tokens of every line of a text; those of a line begin with its line end, but for the first."""
        first, *others = text.split("\n")
        return [self._line(first), *[self._line("\n" + line) for line in others]]

    def _line(self, line: str) -> tuple[int, ...]:
        tokens = self._known.get(line)
        if tokens is None:
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            tokens = self._known[line] = tuple(self._tokens(line))
        return tokens

    def _tokens(self, line: str) -> list[int]:
        tokens: list[int] = []
        if line.startswith("\n"):
            spaces = len(line) - 1 - len(line[1:].lstrip(" "))
            indent = min(spaces // 2, _INDENTS - 1)
            tokens.append(_LINE + indent)
            line = line[1 + 2 * indent :]
        space = False
        for match in _CHUNKS.finditer(line):
            chunk = match[0]
            if chunk == " ":
                space = True
            elif chunk.isspace():
                tokens += self._bytes(chunk)
            else:
                for piece in self._chunk(chunk):
                    close = not tokens or self._open[tokens[-1]] or self._glued[piece[0]]
                    if space is close:
                        tokens.append(SPACE if space else GLUE)
                    tokens += piece
                    space = False
        if space:
            tokens.append(SPACE)
        return tokens

    def _chunk(self, chunk: str) -> list[list[int]]:
        """Tokens of the pieces of a text without white space."""
        known = self._ids.get(chunk)
        if known is not None and not chunk.endswith("-"):
            return [[known]]
        pieces: list[list[int]] = []
        for match in _PIECES.finditer(chunk):
            kind, piece = match.lastgroup, match[0]
            known = self._ids.get(piece)
            if kind == "number":
                pieces.append(self._integer(piece))
            elif kind == "float":
                pieces.append(self._float(piece))
            elif kind == "dims":
                pieces.append([self._ids["x-"]])
            elif kind == "letter" and f"{piece}-" in self._ids:
                pieces.append([self._ids[f"{piece}-"]])
            elif known is not None:
                pieces.append([known])
            elif kind == "fused" and piece[0] in "$-":
                pieces += [[self._ids[piece[0]]], *self._chunk(piece[1:])]
            elif kind == "fused" and piece[1].isdigit() and f"{piece[0]}-" in self._ids:
                pieces += [[self._ids[f"{piece[0]}-"]], self._integer(piece[1:])]
            elif kind == "word" and (split := _NUMBERED.fullmatch(piece)) and split[1] in self._ids:
                pieces += [[self._ids[split[1]]], self._integer(split[2])]
            else:
                pieces.append(self._bytes(piece))
        return pieces

    def _bytes(self, text: str) -> list[int]:
        return [_BYTES + byte for byte in text.encode("utf-8", "surrogatepass")]

    def _integer(self, digits: str) -> list[int]:
        if (digits[0] == "0" and digits != "0") or len(digits) > 19 or int(digits) >= 1 << 63:
            return self._bytes(digits)
        number = int(digits)
        if number < _EXACT:
            return [_SMALL + number]
        bits = number.bit_length() - 4
        rest = number & ((1 << bits) - 1)
        tokens = [_LARGE + _MANTISSAS * (bits - 1) + (number >> bits) - _MANTISSAS]
        if rest:
            tokens += [_REST + (rest >> shift & 63) for shift in range(0, bits, _REST_BITS)]
        return tokens

    def _float(self, digits: str) -> list[int]:
        parts = Decimal(digits).normalize().as_tuple()
        number = "".join(map(str, parts.digits))
        magnitude = len(number) + int(parts.exponent)
        if abs(magnitude) > _DECIMALS or len(number) > 18 or _float_text(number, magnitude) != digits:
            return self._bytes(digits)
        return [_DECIMAL + _DECIMALS + magnitude, *self._integer(number)]

    def decode(self, tokens: Iterable[int]) -> str:
        """The text of tokens.

        Raises:
            DataError: A token does not exist.
        """
        ids = list(tokens)
        for token in ids:
            if not 0 <= token < self.size:
                raise DataError(f"there is no token {token}, expected 0 to {self.size - 1}")
        text = bytearray()
        at, before = 0, GLUE
        while at < len(ids):
            token = ids[at]
            if not (self._open[before] or self._glued[token]):
                text += b" "
            at, piece = self._piece(ids, at)
            text += piece
            before = ids[at - 1]
        return text.decode("utf-8", "surrogatepass")

    def _piece(self, ids: list[int], at: int) -> tuple[int, bytes]:
        """Position behind the piece that begins at `at`, and its text."""
        token = ids[at]
        if token < _BYTES:
            return at + 1, b" " if token == SPACE else b""
        if token < _SMALL:
            return at + 1, bytes([token - _BYTES])
        if token < _DECIMAL:
            at, number = self._number(ids, at)
            return at, str(number).encode()
        if token < _LINE:
            if at + 1 < len(ids) and _SMALL <= ids[at + 1] < _REST:
                end, number = self._number(ids, at + 1)
                return end, _float_text(str(number), token - _DECIMAL - _DECIMALS).encode()
            return at + 1, b""
        if token < _WORDS:
            return at + 1, b"\n" + b"  " * (token - _LINE)
        word = self.words[token - _WORDS]
        return at + 1, (word[:-1] if len(word) == 2 and word[1] == "-" else word).encode()

    def _number(self, ids: list[int], at: int) -> tuple[int, int]:
        token = ids[at]
        if token < _LARGE:
            return at + 1, token - _SMALL
        if token >= _REST:
            return at + 1, token - _REST
        bits, mantissa = divmod(token - _LARGE, _MANTISSAS)
        bits += 1
        number = mantissa + _MANTISSAS << bits
        at += 1
        for shift in range(0, bits, _REST_BITS):
            if at < len(ids) and _REST <= ids[at] < _DECIMAL:
                number += ids[at] - _REST << shift
                at += 1
        return at, number

    @cached_property
    def magnitudes(self) -> NDArray[np.float32]:
        """What can be seen of every token: (size, 3), if it is a number, log2(1 + its value), if it is an operator.

        A token of a large number stands for the number without the rest; one that says the decimal magnitude of a float
        for ten to that power, as log2 of it.
        """
        table = np.zeros((self.size, 3), np.float32)
        for number in range(_EXACT):
            table[_SMALL + number, :2] = 1, log2(1 + number)
        for bits in range(1, _MOST_BITS + 1):
            for mantissa in range(_MANTISSAS):
                at = _LARGE + _MANTISSAS * (bits - 1) + mantissa
                table[at, :2] = 1, log2(1 + (mantissa + _MANTISSAS << bits))
        for magnitude in range(-_DECIMALS, _DECIMALS + 1):
            table[_DECIMAL + _DECIMALS + magnitude, :2] = 1, magnitude * log2(10)
        for word, token in self._ids.items():
            if re.fullmatch(r"[a-z$]\d+", word):
                table[token, :2] = 1, log2(1 + int(word[1:]))
            elif re.fullmatch(r"[A-Z][A-Za-z]\w+", word):
                table[token, 2] = 1
        return table

    def segments(self, text: str, longest: int) -> list[Segment]:
        """Tokens of a text in segments of bounded length; nothing is left out.

        Definitions of blocks and repetitions of the outermost level are segments by themselves, and so are the lines
        between them. What is longer is cut at line ends, a line that is longer by itself after `longest` tokens.

        Args:
            text: The text.
            longest: Most tokens of a segment.
        """
        segments: list[Segment] = []
        current: list[int] = []
        times = 1

        def close() -> None:
            if current:
                segments.append(Segment(tuple(current), times))
                current.clear()

        carried_out = _carried_out(text)
        inside = False
        for line, tokens in zip(text.split("\n"), self.encode_lines(text), strict=True):
            opens = line.startswith(_GROUPS)
            if opens and not inside:
                close()
                times = carried_out.get(line.split()[1], 1) if line.startswith("block ") else _times(line)
            if len(current) + len(tokens) > longest:
                close()
            for start in range(0, len(tokens) - longest, longest):
                segments.append(Segment(tokens[start : start + longest], times))
            current += tokens[ceil(len(tokens) / longest) * longest - longest if len(tokens) > longest else 0 :]
            if opens or inside:
                inside = line != "}" and not (opens and line.endswith("}"))
                if not inside:
                    close()
                    times = 1
        close()
        return segments


_GROUPS = ("block ", "repeat ")
_CALL = re.compile(r"(B\d+)\([^()]*\)(?: x(\d+))?")
_REPEAT = re.compile(r"repeat (\d+)")


def _times(line: str) -> int:
    """How often the body of a repetition that starts in this line is carried out."""
    found = _REPEAT.search(line)
    return int(found[1]) if found else 1


def _carried_out(text: str) -> dict[str, int]:
    """How often every block of a description is carried out; a count that is a parameter counts as 1."""
    calls: dict[str, list[tuple[str, int]]] = {}
    block, factors = "", [1]
    for line in text.split("\n"):
        if line.startswith("block "):
            block, factors = line.split()[1], []
        for sign in re.finditer(r"repeat (?:\d+|\$\d+) \{|\{|\}|B\d+\([^()]*\)(?: x\d+)?", line):
            if sign[0].endswith("{"):
                factors.append(_times(sign[0]) * (factors[-1] if factors else 1))
            elif sign[0] == "}":
                del factors[-1:]
            else:
                found = _CALL.match(sign[0])
                if found:
                    count = int(found[2] or 1) * (factors[-1] if factors else 1)
                    calls.setdefault(found[1], []).append((block, count))
        if line == "}" or (line.startswith("block ") and line.endswith("}")):
            block, factors = "", [1]
    totals = {"": 1}
    for name in sorted(calls, key=lambda called: -int(called[1:])):  # blocks call blocks with smaller numbers only
        totals[name] = min(_MOST_TIMES, sum(totals.get(caller, 0) * count for caller, count in calls[name]))
    return totals


def _float_text(digits: str, magnitude: int) -> str:
    """The text of the float 0.digits * 10^magnitude."""
    return repr(float(f"{digits}e{magnitude - len(digits)}"))
