"""From the text of a description to statements: words, grammar, and carrying out what is written.

Memory is bounded by the length of the text and by `Limits.nodes`: words are read one by one, and what stands for too
many words, statements or operands is refused while it is read or carried out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any, NamedTuple

from . import text_defaults as expected
from .errors import LimitError, ReadError
from .graph import Node, Shape
from .onnx_file import Limits
from .text_defaults import (
    LARGEST,
    LETTERS,
    MOST_PARAMETERS,
    NO_OPERAND,
    OPERATOR,
    POOLS,
    RESERVED,
    WEIGHED,
    WINDOWS,
    lettered,
    spatial_rank,
)

_DEEPEST = 128
_MOST_DIMENSIONS = 1024
_WORDS_PER_NODE = 16
_CHARACTERS_PER_NODE = 256

_NUMBER = r"(?:\d+|\$\d+)"
_TOKEN = re.compile(  # "*+" and "++" remember no earlier matches, which would take memory for every one
    rf"""(?P<space>[ \t\r]+|\#[^\n]*)
    |(?P<line>\n)
    |(?P<string>"[^"\\\n]*(?:\\[^\n][^"\\\n]*)*+")
    |(?P<float>-?(?:inf|nan)(?![\w:])|-?\d+(?:\.\d+(?:e[+-]?\d+)?|e[+-]?\d+)(?![\w.]))
    |(?P<dims>{_NUMBER}(?:x{_NUMBER})++(?![\w.$]))
    |(?P<number>(?:-?\d+|\$\d+)(?![\w.$]))
    |(?P<letter>[a-z]{_NUMBER}(?:x{_NUMBER})*+(?![\w.$:]))
    |(?P<back>\^\d+(?!\w))
    |(?P<operator>{OPERATOR.pattern})
    |(?P<without>-[a-z_]\w*)
    |(?P<word>[a-z_]\w*)
    |(?P<sign>[:=(){{}}])""",
    re.VERBOSE | re.ASCII,
)


class _Token(NamedTuple):
    kind: str
    text: str
    line: int
    start: int

    def __str__(self) -> str:
        return repr(self.text[:40]) if self.kind else "the end of the text"


def syntax_error(line: int, expected: str, found: object) -> ReadError:
    """The error for a text that does not go on as it has to."""
    return ReadError(f"line {line}: expected {expected}, found {found}; see docs/description.md", source="description")


def _too_much(line: int, what: str) -> LimitError:
    return LimitError(f"line {line}: {what}; pass larger limits if that is meant", source="description")


def statements_of(text: str, start: int, limits: Limits, convolution_bias: int) -> tuple[list[Node], list[int], int]:
    """Carries out a description.

    Args:
        text: The description.
        start: Where its header ends.
        limits: Bounds.
        convolution_bias: Numbers a channel that convolutions with a bias store beyond their weights.

    Returns:
        Statements in the order of the text (`tied`: any earlier one with the same weight), positions of the outputs
        among them, and the number of the last line.

    Raises:
        ReadError: The text breaks the grammar, or something cannot be derived and is not written.
        LimitError: It stands for more than the limits allow.
    """
    reader = _Reader(text, start, limits)
    program, out = reader.program()
    machine = _Machine(limits, convolution_bias)
    machine.run(program, (), 0)
    return machine.nodes, [machine.position(ref, reader.next.line) for ref in out], reader.next.line


# --- grammar ---------------------------------------------------------------------------------------------------------

_Ref = int | str
"""An operand: so many steps back, or a name."""


class _Parameter(int):
    """Which argument of the block stands here."""


@dataclass(slots=True)
class _Statement:
    """A statement as it is written.

    Attributes:
        numbers: By what they are: `width`, `shape`, `params`, a letter, or `dw`.
        without: What is written with a minus.
        size: Characters that it takes.
    """

    line: int
    op: str
    name: str
    size: int = 0
    refs: list[_Ref] | None = None
    tied: _Ref | None = None
    numbers: dict[str, tuple[int, ...]] = field(default_factory=dict)
    weights: list[tuple[int, ...]] = field(default_factory=list)
    attributes: dict[str, Any] = field(default_factory=dict)
    without: set[str] = field(default_factory=set)


@dataclass(slots=True)
class _Loop:
    """A repetition, or a call with its arguments."""

    line: int
    body: list[_Statement | _Loop]
    count: int = 1
    arguments: tuple[int, ...] | None = None


_Body = list[_Statement | _Loop]


def _tokens(text: str, at: int, limits: Limits) -> Iterator[_Token]:
    """The words of the text, then empty ones."""
    line, count = 1 + text.count("\n", 0, at), 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise syntax_error(line, "an operator, a name or a number", repr(text[at : at + 20].split("\n")[0]))
        kind = str(match.lastgroup)
        if kind == "line":
            line += 1
        elif kind != "space":
            count += 1
            if count > limits.nodes * _WORDS_PER_NODE:
                raise _too_much(line, f"more than {count - 1:,} words ({_WORDS_PER_NODE} for each of limits.nodes)")
            yield _Token(kind, match.group(), line, at)
        at = match.end()
    while True:
        yield _Token("", "", line, at)


class _Reader:
    """Recursive descent over the words, with two of them in sight."""

    def __init__(self, text: str, start: int, limits: Limits) -> None:
        self._tokens = _tokens(text, start, limits)
        self.next, self._after = next(self._tokens), next(self._tokens)
        self._limits = limits
        self._steps = 0
        self._blocks: dict[str, tuple[_Body, int]] = {}
        self._parameters = -1  # of the block that is read; -1 outside of blocks

    def _take(self) -> _Token:
        token = self.next
        self.next, self._after = self._after, next(self._tokens)
        return token

    def _is(self, text: str) -> bool:
        return self.next.text == text and self.next.kind in ("sign", "word")

    def program(self) -> tuple[_Body, list[_Ref]]:
        """The whole text and its outputs."""
        body: _Body = []
        while self.next.kind and not self._is("out"):
            if self._is("block"):
                self._block()
            else:
                body.append(self._step(0))
        if not self.next.kind:
            return body, [1]
        self._take()
        out: list[_Ref] = []
        while self.next.kind in ("word", "back"):
            out.append(self._reference())
        if self.next.kind:
            raise syntax_error(self.next.line, "nothing behind the names of the outputs", self.next)
        return body, out

    def _block(self) -> None:
        self._take()
        title = self._take()
        if title.kind != "operator" or title.text in self._blocks:
            raise syntax_error(title.line, "the name of a new block, such as B1", title)
        self._parameters = 0
        body = self._braces(1)
        self._blocks[title.text] = body, self._parameters
        self._parameters = -1

    def _braces(self, depth: int) -> _Body:
        opening = self._take()
        if opening.text != "{":
            raise syntax_error(opening.line, "'{'", opening)
        if depth > _DEEPEST:
            raise syntax_error(opening.line, f"at most {_DEEPEST} braces in one another", "more")
        body: _Body = []
        while not self._is("}"):
            body.append(self._step(depth))
        if not body:
            raise syntax_error(opening.line, "statements in the braces", "none")
        self._take()
        return body

    def _step(self, depth: int) -> _Statement | _Loop:
        """A statement, a repetition or a call."""
        self._steps += 1
        if self._steps > self._limits.nodes:
            raise _too_much(self.next.line, f"more than {self._limits.nodes:,} statements are written (limits.nodes)")
        if self._is("repeat"):
            line = self._take().line
            count = self._number("how many times to repeat")
            return _Loop(line, self._braces(depth + 1), count)
        return self._call() if self.next.kind == "operator" and self._after.text == "(" else self._statement()

    def _call(self) -> _Loop:
        title = self._take()
        if title.text not in self._blocks:
            raise syntax_error(title.line, "the name of a block that is defined above", title)
        body, count = self._blocks[title.text]
        self._take()
        arguments: list[int] = []
        while not self._is(")"):
            arguments.append(self._number("a number or )"))
        self._take()
        if len(arguments) != count:
            raise syntax_error(title.line, f"{count} numbers for {title.text}", len(arguments))
        turns: tuple[int, ...] = (1,)
        if self.next.kind == "letter" and self.next.text[0] == "x":
            token = self._take()
            turns = self._numbers(token, token.text[1:])
            if len(turns) != 1:
                raise syntax_error(token.line, "x and how many times", token)
        return _Loop(title.line, body, turns[0], tuple(arguments))

    def _statement(self) -> _Statement:
        name, token = "", self._take()
        start = token.start
        if token.kind == "word" and self._is(":"):
            name = token.text
            self._take()
            token = self._take()
        if token.kind not in ("string", "operator"):
            raise syntax_error(token.line, "an operator", token)
        op = self._string(token) if token.kind == "string" else token.text
        found = _Statement(token.line, op, name)
        while self._argument(found):
            pass
        found.size = self.next.start - start
        return found

    def _argument(self, found: _Statement) -> bool:
        """Reads one argument of a statement; False if there is none left."""
        token = self.next
        kind, text = token.kind, token.text
        if kind in ("word", "string") and self._after.text == "=":
            self._setting(found)
        elif kind == "word" and (self._after.text == ":" or text in ("repeat", "block", "out")):
            return False
        elif kind == "word" and text == "dw":
            self._take()
            found.numbers["dw"] = ()
        elif kind == "word" and text == "none":
            self._take()
            found.refs = found.refs or []
        elif kind in ("word", "back"):
            found.refs = found.refs or []
            found.refs.append(self._reference())
        elif kind == "dims":
            self._once(found.numbers, "shape", self._numbers(self._take(), text), token)
        elif kind == "number":
            self._once(found.numbers, "width", (self._number("a width"),), token)
        elif kind == "letter" and text[0] in "ksdpgb":
            self._once(found.numbers, text[0], self._numbers(self._take(), text[1:]), token)
        elif kind == "without":
            found.without.add(self._take().text[1:])
        else:
            return False
        return True

    @staticmethod
    def _once(into: dict[str, Any], name: str, value: Any, token: _Token) -> None:
        if name in into:
            raise syntax_error(token.line, "this only once in a statement", token)
        into[name] = value

    def _setting(self, found: _Statement) -> None:
        """`name=value`."""
        token = self._take()
        self._take()
        name = token.text
        if token.kind == "string":
            self._once(found.attributes, self._string(token), self._value(0), token)
        elif name == "tied":
            if found.tied is not None:
                raise syntax_error(token.line, "this only once in a statement", token)
            found.tied = self._reference()
        elif name == "params":
            self._once(found.numbers, name, (self._number("params=number"),), token)
        elif name in ("shape", "w"):
            value = self._value(0)
            if type(value) is not tuple or not all(isinstance(v, int) for v in value):
                raise syntax_error(token.line, f"{name}=(numbers)", "something else")
            if name == "w":
                found.weights.append(value)
            else:
                self._once(found.numbers, name, value, token)
        else:
            self._once(found.attributes, name, self._value(0), token)

    def _value(self, depth: int) -> Any:
        if self.next.kind == "number":
            return self._number("a number")
        token = self._take()
        if token.kind == "float":
            return float(token.text)
        if token.kind == "string":
            return self._string(token)
        if token.text == "(" and depth < _DEEPEST:
            values = []
            while not self._is(")"):
                values.append(self._value(depth + 1))
            self._take()
            return tuple(values)
        raise syntax_error(token.line, "a number, a string or numbers in parentheses", token)

    @staticmethod
    def _string(token: _Token) -> str:
        try:
            return str(json.loads(token.text, strict=False))
        except ValueError:
            raise syntax_error(token.line, "a string with the escapes of JSON", token) from None

    def _reference(self) -> _Ref:
        token = self._take()
        if token.kind == "back":
            return self._numbers(token, token.text[1:])[0]
        if token.text == "prev":
            return 1
        if token.kind != "word" or token.text in RESERVED:
            raise syntax_error(token.line, "a name, prev or ^ and a number", token)
        return token.text

    def _number(self, expected: str) -> int:
        token = self._take()
        if token.kind != "number":
            raise syntax_error(token.line, expected, token)
        return self._numbers(token, token.text)[0]

    def _numbers(self, token: _Token, text: str) -> tuple[int, ...]:
        if text.count("x") >= _MOST_DIMENSIONS:
            raise syntax_error(token.line, f"at most {_MOST_DIMENSIONS} dimensions", "more")
        found: list[int] = []
        for part in text.split("x"):
            digits = part.removeprefix("$")
            if len(digits) > 20 or not -LARGEST <= (number := int(digits)) <= LARGEST:
                raise syntax_error(token.line, "numbers of at most 63 bits", token)
            if digits != part:
                if self._parameters < 0 or not 0 < number <= MOST_PARAMETERS:
                    raise syntax_error(token.line, f"${MOST_PARAMETERS} at most, and only in a block", token)
                self._parameters = max(self._parameters, number)
                number = _Parameter(number)
            found.append(number)
        return tuple(found)


# --- carrying it out -------------------------------------------------------------------------------------------------


def _plain(value: Any, arguments: Sequence[int]) -> Any:
    """The value with arguments in place of parameters."""
    if type(value) is tuple:
        return tuple([_plain(part, arguments) for part in value])
    return arguments[value - 1] if type(value) is _Parameter else value


class _Machine:
    """Carries out steps and collects their statements as nodes."""

    def __init__(self, limits: Limits, convolution_bias: int) -> None:
        self.nodes: list[Node] = []
        self._limits, self._convolution_bias = limits, convolution_bias
        self._named: dict[str, int] = {}
        self._count = self._size = 0
        self._known: dict[Any, Node] = {}

    def run(self, body: _Body, arguments: tuple[int, ...], depth: int) -> None:
        for step in body:
            if isinstance(step, _Statement):
                self._statement(step, arguments)
                continue
            if depth > _DEEPEST:
                raise syntax_error(step.line, f"at most {_DEEPEST} repetitions and calls in one another", "more")
            count = _plain(step.count, arguments)
            if count < 1:
                raise syntax_error(step.line, "a repetition of 1 or more", count)
            inner = arguments if step.arguments is None else _plain(step.arguments, arguments)
            for _ in range(count):
                self._size += len(inner)
                self.run(step.body, inner, depth + 1)

    def position(self, ref: _Ref, line: int) -> int:
        """Which statement a reference means."""
        if isinstance(ref, str):
            if ref not in self._named:
                raise syntax_error(line, "the name of a statement above", repr(ref))
            return self._named[ref]
        if not 0 < ref <= len(self.nodes):
            raise syntax_error(
                line, f"an operand among the {len(self.nodes)} statements above", f"one {ref} statements back"
            )
        return len(self.nodes) - ref

    def _statement(self, step: _Statement, arguments: tuple[int, ...]) -> None:
        limit = self._limits.nodes
        refs = step.refs if step.refs is not None else [] if step.op in NO_OPERAND else [1]
        self._count += max(1, len(refs) - 1) if step.op == "Add" else 1  # a sum becomes sums of two
        self._size += step.size
        if self._count > limit or self._size > limit * _CHARACTERS_PER_NODE:
            raise _too_much(step.line, f"the text stands for more than {limit:,} operators, or very long ones")
        inputs = tuple([self.position(ref, step.line) for ref in refs])
        tied = -1 if step.tied is None else self.position(step.tied, step.line)
        shapes = tuple([self.nodes[i].shape for i in inputs])
        key = (id(step), shapes, arguments)
        node = self._known.get(key)
        if node is None:
            node = self._known[key] = self._node(step, shapes, arguments)
        self._size += sum(map(len, shapes)) + len(node.shape)
        if step.name:
            self._named[step.name] = len(self.nodes)
        self.nodes.append(node._replace(inputs=inputs, tied=tied))

    def _node(self, step: _Statement, shapes: Sequence[Shape], arguments: tuple[int, ...]) -> Node:
        """The node without its operands."""
        op, line = step.op, step.line
        numbers: dict[str, Shape] = {name: _plain(value, arguments) for name, value in step.numbers.items()}
        attributes: dict[str, Any] = {name: _plain(value, arguments) for name, value in step.attributes.items()}
        weights: tuple[Shape, ...] | None = _plain(tuple(step.weights), arguments)
        for given in (*numbers.values(), *(weights or ())):
            if len(given) > _MOST_DIMENSIONS:
                raise syntax_error(line, f"at most {_MOST_DIMENSIONS} dimensions", "more")
            if min(given, default=0) < 0:
                raise syntax_error(line, "sizes of 0 and more", "a negative one")
        if not weights and "w" not in step.without:
            weights = None
        width = numbers["width"][0] if "width" in numbers else None
        letters = numbers.keys() & {*LETTERS, "k", "dw"}
        if (width is not None and op not in WEIGHED) or (letters and op not in WINDOWS):
            raise syntax_error(line, "a width, k, s, d, p, g or dw only where the operator has one", f"one at {op}")
        rank = spatial_rank(shapes)
        if letters and not rank:
            raise syntax_error(line, "an operand of three and more dimensions", f"{list(shapes)}")
        kernel = numbers.get("k")
        kernel = kernel * rank if kernel is not None and len(kernel) == 1 else kernel
        if op in WINDOWS:
            self._window(op, shapes, attributes, numbers, kernel, weights, rank)
        for name, value in expected.attributes(op, shapes, attributes).items():
            if name not in step.without:
                attributes.setdefault(name, value)
        if weights is None and op in WEIGHED:
            weight = expected.weight(op, shapes, attributes, width, kernel)
            if weight is None:
                raise syntax_error(
                    line, f"an operand and groups from which the weight of {op} follows", f"{list(shapes)}"
                )
            weights = (weight,)
        elif weights is None:
            weights = expected.weights(op, shapes)
        shape = numbers["shape"] if "shape" in numbers else expected.shape(op, shapes, attributes, weights)
        if shape is None:
            raise syntax_error(line, f"the shape of the output of {op} of {list(shapes)}, such as 1x64x56x56", "none")
        if max([prod(size) for size in (shape, *weights)]) > self._limits.elements:
            raise _too_much(
                line,
                f"{op} of shape {shape} and weights {weights} has a tensor of more than {self._limits.elements:,} "
                "elements (limits.elements)",
            )
        base, channels, usual = expected.params(
            op, shape, attributes, weights, step.tied is not None, self._convolution_bias
        )
        (params,) = numbers.get("params", (base + channels * numbers.get("b", (usual,))[0],))
        return Node(op, (), shape, tuple(sorted(attributes.items(), key=lambda pair: pair[0])), weights, -1, params)

    @staticmethod
    def _window(
        op: str,
        shapes: Sequence[Shape],
        attributes: dict[str, Any],
        numbers: dict[str, Shape],
        kernel: Shape | None,
        weights: tuple[Shape, ...] | None,
        rank: int,
    ) -> None:
        """Puts what k, s, d, p, g and dw mean into the attributes, and the padding that follows."""
        if op in POOLS:
            if kernel is not None:
                attributes["kernel_shape"] = kernel
            kernel = attributes.get("kernel_shape")
        elif weights is not None:
            kernel = weights[0][2:] if weights else None
        else:
            kernel = kernel or (1,) * rank
        for letter in numbers.keys() & LETTERS:
            value = lettered(letter, numbers[letter][0], rank)
            if value is not None:
                attributes[LETTERS[letter][0]] = value
        if "p" not in numbers and "pads" not in attributes:
            pads = expected.pads(op, kernel, attributes.get("dilations"), rank)
            if pads is not None:
                attributes["pads"] = pads
        if "dw" in numbers:
            attributes["group"] = shapes[0][1]
