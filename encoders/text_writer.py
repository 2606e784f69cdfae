"""From statements to the text of a description: what every statement has to say, names, lines, blocks."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from . import text_defaults as expected
from .errors import GraphError
from .graph import Node, Shape
from .text_defaults import (
    LARGEST,
    LETTERS,
    NO_OPERAND,
    OPERATOR,
    POOLS,
    RESERVED,
    WEIGHED,
    WINDOWS,
    is_ints,
    lettered,
    spatial_rank,
    width_of,
)
from .text_folding import Folder, Item, Part, Template

_PLAIN_NAME = re.compile(r"[a-z_][a-z_0-9A-Z]+", re.ASCII)
_LIKE_A_LETTER = re.compile(r"[a-z]\d+(?:x\d+)*")
_INDENT = "  "
_LINE = 100


def written(statements: Sequence[Node], outputs: Sequence[int], convolution_bias: int, full: bool) -> str:
    """The description of statements, without its header.

    Args:
        statements: In the order of the text; `tied` is any earlier statement with the same weight.
        outputs: Positions of the outputs among the statements.
        convolution_bias: Numbers a channel that convolutions with a bias are expected to store beyond their weights.
        full: Whether to write one statement a line, with widths and with shapes where they change, and fold nothing.

    Raises:
        GraphError: An attribute cannot be written.
    """
    if not statements:
        return "out\n"
    folder = Folder()
    items: list[Item] = []
    known: dict[Any, tuple[list[tuple[str, int]], list[Part]]] = {}  # equal work is done once
    for position, node in enumerate(statements):
        shapes = tuple([statements[i].shape for i in node.inputs])
        key = (node.op, shapes, node.shape, repr(node.attributes), node.weights, node.tied >= 0, node.params)
        if key not in known:
            known[key] = _parts(node, shapes, convolution_bias, full)
        formats, parts = known[key]
        refs: tuple[int, ...] | None = tuple([position - i for i in node.inputs])
        if refs == (() if node.op in NO_OPERAND else (1,)):
            refs = None
        op = node.op if OPERATOR.fullmatch(node.op) else json.dumps(node.op)
        tied = position - node.tied if node.tied >= 0 else 0
        items.append(folder.statement(Template(op, refs, tied, tuple(formats)), tuple(parts)))
    if not full:
        items = folder.fold(items)
    return _Writer(items, folder.blocks, outputs, full).text()


# --- one statement ---------------------------------------------------------------------------------------------------


def _parts(
    node: Node, shapes: Sequence[Shape], convolution_bias: int, full: bool
) -> tuple[list[tuple[str, int]], list[Part]]:
    """Formats and numbers of all that a node may have to say."""
    op, weights = node.op, node.weights
    attributes: dict[str, Any] = dict(node.attributes)
    if list(node.attributes) != sorted(attributes.items(), key=lambda pair: pair[0]):
        raise GraphError(
            f"a node {op!r} has the attributes {node.attributes}; expected different names, sorted by name"
        )
    _literal((*attributes.values(), node.shape, weights, node.params), op)  # all of it can be written
    formats: list[tuple[str, int]] = []
    parts: list[Part] = []

    def say(text: str, numbers: tuple[int, ...] | None = (), follows: bool = False) -> None:
        formats.append((text, 1 if numbers is None else len(numbers)))
        parts.append(Part(numbers, follows))

    left = dict(attributes)
    rank = spatial_rank(shapes)
    kernel: Any = attributes.get("kernel_shape")
    has_width = False
    if op in WEIGHED:
        kernel = weights[0][2:] if weights else None
        width = width_of(op, node.shape, attributes)
        has_width = weights == (expected.weight(op, shapes, attributes, width, kernel),)
        if has_width:
            same = weights[0] == expected.weight(op, shapes, attributes, None, kernel)
            say("", (width,), same and not full)
    if op in WINDOWS and rank:
        if has_width or (op in POOLS and is_ints(kernel) and len(kernel) == rank and min(kernel) >= 0):
            say("k", kernel[:1] if len(set(kernel)) == 1 else kernel)
            if op in POOLS:
                del left["kernel_shape"]
        pads = expected.pads(op, kernel, attributes.get("dilations"), rank)
        for letter, (name, neutral) in LETTERS.items():
            value = left.get(name)
            wanted = pads if letter == "p" else None
            if letter == "g" and type(value) is int and value == shapes[0][1]:
                say("dw")
            elif wanted is not None and is_ints(value) and value == wanted and len(set(wanted)) > 1:
                say("p", None, True)
            else:
                number = neutral if value is None else value[0] if is_ints(value) and value else value
                if type(number) is not int or number < 0 or lettered(letter, number, rank) != value:
                    continue
                say(letter, (number,), value == wanted)
            left.pop(name, None)
    for name, usual in expected.attributes(op, shapes, attributes).items():
        if name not in attributes:
            say(f"-{name}")
        elif type(attributes[name]) is int:
            say(f"{name}=", (attributes[name],), left.pop(name) == usual)
    for name, value in left.items():
        plain = _PLAIN_NAME.fullmatch(name) and not _LIKE_A_LETTER.fullmatch(name) and name not in RESERVED
        key = name if plain else json.dumps(name)
        if type(value) is int:
            say(f"{key}=", (value,))
        elif is_ints(value) and value:
            say(f"{key}=(", value)
        else:
            say(f"{key}={_literal(value, op)}")
    if not has_width and (op in WEIGHED or weights != expected.weights(op, shapes)):
        if not weights:
            say("-w")
        for weight in weights:
            say("w=(", weight)
    derived = expected.shape(op, shapes, attributes, weights)
    follows = derived == node.shape and not (full and derived != shapes[0])
    say("" if len(node.shape) > 1 else "shape=(", node.shape, follows)
    base, channels, usual = expected.params(op, node.shape, attributes, weights, node.tied >= 0, convolution_bias)
    more, rest = divmod(node.params - base, channels) if channels else (0, node.params - base)
    if rest or not 0 <= more <= 9:
        say("params=", (node.params,))
    elif channels:
        say("b", (more,), more == usual)
    return formats, parts


def _literal(value: Any, op: str) -> str:
    if type(value) is int:
        if not -LARGEST <= value <= LARGEST:
            raise GraphError(f"a node {op!r} has the number {value}, expected at most 63 bits")
        return str(value)
    if type(value) is float:
        return repr(value)
    if type(value) is str:
        return json.dumps(value)
    if type(value) is tuple:
        return f"({' '.join([_literal(part, op) for part in value])})"
    raise GraphError(
        f"a node {op!r} has the value {value!r} of type {type(value).__name__}, expected an int, float, str or "
        "a tuple of them"
    )


# --- names and lines -------------------------------------------------------------------------------------------------


class _Line:
    """A statement where it stands in the text, once, however often it is carried out.

    Attributes:
        name: What others call it, if they do.
        refs: Its operands and last, if there is one, the statement whose weight it shares: how many statements back, or
            a name.
    """

    __slots__ = ("name", "refs")

    def __init__(self, refs: Sequence[int]) -> None:
        self.name = ""
        self.refs: list[int | str] = list(refs)


def _name(carried_out: Sequence[_Line]) -> None:
    """Gives names to the lines that others refer to, and puts them into the references.

    All lines that one reference means at different times get one name. If it does not always mean the latest of them,
    it stays a number of steps back.
    """
    uses: dict[tuple[_Line, int], list[tuple[int, int]]] = {}  # line and reference: (time, time that it means)
    for at, line in enumerate(carried_out):
        for slot, back in enumerate(line.refs):
            if isinstance(back, int) and back > 1:
                uses.setdefault((line, slot), []).append((at, at - back))
    leader: dict[_Line, _Line] = {}

    def find(line: _Line) -> _Line:
        while leader[line] is not line:
            leader[line] = leader[leader[line]]
            line = leader[line]
        return line

    spans: dict[_Line, list[int]] = {}  # from the first time that a name is given to the last that it is used
    wrong = set(uses)
    while wrong:
        leader = {line: line for line in carried_out}
        meant: dict[int, list[tuple[tuple[_Line, int], int]]] = {}
        for use, times in uses.items():
            first = find(carried_out[times[0][1]])
            for at, target in times:
                leader[find(carried_out[target])] = first
                meant.setdefault(at, []).append((use, target))
        named = {find(carried_out[target]) for found in meant.values() for _, target in found}
        latest: dict[_Line, int] = {}
        spans, wrong = {}, set()
        for at, line in enumerate(carried_out):
            for use, target in meant.get(at, ()):
                group = find(carried_out[target])
                spans[group][1] = at
                if latest[group] != target:
                    wrong.add(use)
            group = find(line)
            if group in named:
                latest[group] = at
                spans.setdefault(group, [at, at])[1] = at + 1
        uses = {use: times for use, times in uses.items() if use not in wrong}
    ends: list[int] = []
    names: dict[_Line, str] = {}
    for group, (start, end) in spans.items():  # in the order of their starts
        number = next((number for number, last in enumerate(ends) if last <= start), len(ends))
        ends[number : number + 1] = [end]
        names[group] = _NAMES[number % len(_NAMES)] + (f"_{number // len(_NAMES)}" if number >= len(_NAMES) else "")
    for line in leader:
        line.name = names.get(find(line), "")
    for (line, slot), times in uses.items():
        line.refs[slot] = names[find(carried_out[times[0][1]])]


_NAMES = "abcdefghijklmnopqrstuvxyz"  # "w=" would be a weight


def _reference(ref: int | str) -> str:
    return ref if isinstance(ref, str) else "prev" if ref == 1 else f"^{ref}"


class _Writer:
    """Turns folded items into text."""

    def __init__(self, items: list[Item], blocks: list[list[Item]], outputs: Sequence[int], full: bool) -> None:
        self._items, self._blocks, self._full = items, blocks, full
        self._lines: dict[int, _Line] = {}
        self._titles: dict[int, str] = {}
        carried_out: list[_Line] = []
        self._carry_out(items, (), carried_out)
        self._out = _Line([len(carried_out) - output for output in outputs])
        _name([*carried_out, self._out])

    def _carry_out(self, items: list[Item], arguments: tuple[int, ...], carried_out: list[_Line]) -> None:
        """Adds the statements in the order in which they are carried out."""

        def value(part: Part) -> int:
            number = part.numbers[0] if part.numbers else 0
            return arguments[int(number[1:]) - 1] if isinstance(number, str) else number

        for item in items:
            template = item.template
            if template is not None:
                tied = [template.tied] if template.tied else []
                carried_out.append(self._lines.setdefault(id(item), _Line([*(template.refs or ()), *tied])))
            elif item.body is not None:
                for _ in range(value(item.parts[0])):
                    self._carry_out(item.body, arguments, carried_out)
            else:
                self._carry_out(self._blocks[item.block], tuple(map(value, item.parts)), carried_out)

    def text(self) -> str:
        """The whole text."""
        rows: list[str] = []
        self._define(self._items, rows)
        self._rows(self._items, "", rows, "")
        if self._out.refs != [1]:
            rows.append(" ".join(["out", *map(_reference, self._out.refs)]))
        return "".join([row + "\n" for row in rows])

    def _define(self, items: list[Item], rows: list[str]) -> None:
        """Adds the definitions of the blocks that the items need."""
        for item in items:
            if item.body is not None:
                self._define(item.body, rows)
            elif item.block >= 0 and item.block not in self._titles:
                body = self._blocks[item.block]
                self._define(body, rows)
                self._titles[item.block] = f"B{len(self._titles) + 1}"
                self._rows(body, f"block {self._titles[item.block]} {{", rows, "")

    def _rows(self, items: list[Item], opening: str, rows: list[str], indent: str) -> None:
        """Adds the lines of text of a sequence, in braces if there is an opening."""
        inside = indent + _INDENT if opening else indent
        body: list[str] = []
        words: list[str] = []

        def close() -> None:
            if words:
                body.append(inside + " ".join(words))
                words.clear()

        for item in items:
            if item.body is not None:
                count = item.parts[0].numbers[0] if item.parts[0].numbers else 1
                if len(item.body) == 1 and item.body[0].block >= 0:
                    words.append(f"{self._call(item.body[0])} x{count}")
                else:
                    close()
                    self._rows(item.body, f"repeat {count} {{", body, inside)
                continue
            words.append(self._call(item) if item.template is None else self._statement(item, item.template))
            if self._full or item.joins or sum(map(len, words)) + len(words) > _LINE:
                close()
        close()
        if not opening:
            rows.extend(body)
        elif len(body) == 1 and len(body[0]) + len(opening) < _LINE:
            rows.append(f"{indent}{opening} {body[0].strip()} }}")
        else:
            rows.extend([indent + opening, *body, indent + "}"])

    def _call(self, item: Item) -> str:
        arguments = [str(numbers[0]) for numbers, _ in item.parts if numbers]
        return f"{self._titles[item.block]}({' '.join(arguments)})"

    def _statement(self, item: Item, template: Template) -> str:
        line = self._lines[id(item)]
        words = [f"{line.name}:"] if line.name else []
        words.append(template.op)
        refs = [*map(_reference, line.refs)]
        tied = [f"tied={refs.pop()}"] if template.tied else []
        words += ["none"] if template.refs == () else refs
        for (text, _), (numbers, follows) in zip(template.formats, item.parts, strict=True):
            if numbers is not None and not follows:
                listed = text.endswith("(")
                words.append(text + (" " if listed else "x").join(map(str, numbers)) + (")" if listed else ""))
        return " ".join(words + tied)
