"""Networks as text: `describe` writes an `ArchGraph` for people and language models, `parse` reads it back.

The grammar is published in docs/description.md. Four ideas keep the text short without losing anything:

- What follows from the rest is not written: an operand that is the statement before, a shape that follows from operands
  and attributes, "same" padding, the kernels of a convolution that keeps its channels (`text_defaults`).
- The parser puts nodes into canonical order itself, so statements may stand in an order in which cells that are alike
  are written alike (`text_order`). If a graph is not what the parser would make of it, it is written in its own order,
  and the header says so.
- What repeats is written once, in repetitions and in blocks with parameters (`text_folding`).
- A name means the latest statement that carries it, so a repeated body can refer to what stands before it
  (`text_writer`, `text_parser`).

`Node.params` is written too, where it does not follow from the weights: equal graphs whose files store different
numbers of parameters have different texts.
"""

from __future__ import annotations

import os
import re
import stat
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

from .chain_slim import chain_slim
from .errors import ConfigError, LimitError, ReadError, UnreadableFileError
from .graph import ArchGraph, Node
from .onnx_file import DEFAULT_LIMITS, Limits
from .text_defaults import CONVOLUTIONS, MOST_TERMS, params
from .text_order import assembled, in_text_order, longest_sum, unused
from .text_parser import statements_of, syntax_error
from .text_summary import summary
from .text_writer import written

TEXT_VERSION = 1
"""Version of the grammar and of what is derived; it stands in the header of every description."""

Level = Literal["full", "compact", "summary", "chain_slim"]
"""How much `describe` says; `full` and `compact` lose nothing."""

_FIRST_LINE = re.compile(r"[\s\ufeff]*archgauge (\d{1,6})((?: [a-z0-9]{1,20}){0,9})[ \t\r]*(?:#[^\n]*)?(?:\n|\Z)")
_FIRST_BYTES = re.compile(rb"(?:\xef\xbb\xbf)?\s*archgauge \d")
_SNIFFED = 16


def is_description(text: str) -> bool:
    """Whether a text starts with the header of a description, of any version."""
    return _FIRST_LINE.match(text) is not None


def describe(graph: ArchGraph, level: Level = "compact") -> str:
    """The network as text.

    Args:
        graph: Any graph.
        level: `full`: one statement a line, with widths and with shapes where they change. `compact`: what repeats is
            written once. `parse` gives the graph back from both. `summary`: stages, counts and costs in a few lines.
            `chain_slim`: the text that ONNX-Net uses (Qin et al. 2025), for comparison; see docs/description.md for
            what it loses.

    Returns:
        The text, lines ended by newlines; the same for the same graph and the same `Node.params`.

    Raises:
        ConfigError: No such level.
        GraphError: An attribute is no int, float, str or tuple, is not sorted by name, or is beyond 63 bits.
    """
    if level not in get_args(Level):
        raise ConfigError(f"level {level!r} does not exist; choose one of {', '.join(get_args(Level))}")
    if level == "summary":
        return summary(graph)
    if level == "chain_slim":
        return chain_slim(graph)
    found = in_text_order(graph)
    statements, outputs = found or (graph.nodes, list(graph.outputs))
    bias = _usual_bias(statements)
    header = f"archgauge {TEXT_VERSION}{f' b{bias}' if bias != 1 else ''}{'' if found else ' ordered'}\n"
    return header + written(statements, outputs, bias, level == "full")


def _usual_bias(statements: Sequence[Node]) -> int:
    """Numbers a channel that most convolutions with a bias store beyond their weights, 1 to 9."""
    seen: Counter[int] = Counter()
    for node in statements:
        if node.op in CONVOLUTIONS and node.attribute("bias") == 1:
            base, channels, _ = params(node.op, node.shape, {}, node.weights, node.tied >= 0, 1)
            if channels and node.params - base in range(channels, 10 * channels, channels):
                seen[(node.params - base) // channels] += 1
    return min(seen, key=lambda more: (-seen[more], more), default=1)


def parse(text: str, limits: Limits = DEFAULT_LIMITS) -> ArchGraph:
    """The network that a description of level `full` or `compact` stands for.

    Args:
        text: The description; people and programs may write one, too (grammar: docs/description.md).
        limits: Bounds; `nodes` counts statements after all repetition is carried out, `structure_bytes` characters.

    Raises:
        ReadError: The text breaks the grammar, or something cannot be derived and is not written.
        LimitError: It is longer, or stands for more operators or larger tensors, than `limits` allow.
    """
    if len(text) > limits.structure_bytes:
        raise LimitError(
            f"{len(text):,} characters, expected at most {limits.structure_bytes:,} (limits.structure_bytes)",
            source="description",
        )
    match = _FIRST_LINE.match(text)
    if match is None:
        raise syntax_error(1, f"the header 'archgauge {TEXT_VERSION}'", repr(text[:20].split("\n")[0]))
    if int(match[1]) != TEXT_VERSION:
        raise syntax_error(
            1, f"version {TEXT_VERSION}; write the text again, or update archgauge", f"version {match[1]}"
        )
    options = match[2].split()
    bias = 1
    for option in options:
        if re.fullmatch(r"b[0-9]", option):
            bias = int(option[1])
        elif option != "ordered":
            raise syntax_error(1, "the options b0 to b9 and ordered only", repr(option))
    statements, outputs, last = statements_of(text, match.end(), limits, bias)
    graph = (
        ArchGraph(tuple(statements), tuple(outputs)) if "ordered" in options else _canonical(statements, outputs, last)
    )
    try:
        macs = graph.macs
    except (TypeError, ValueError, IndexError) as error:
        raise ReadError(
            "operands, weights and attributes of an operator do not fit one another, so its costs cannot be told "
            f"({error}); check the statements of matrix products, attention and recurrent cells",
            source="description",
        ) from error
    if macs > limits.macs:
        raise LimitError(f"{macs:,} multiply-accumulates, more than limits.macs allows", source="description")
    return graph


def _canonical(statements: Sequence[Node], outputs: Sequence[int], last_line: int) -> ArchGraph:
    dead = unused(statements, outputs)
    if dead is not None:
        raise syntax_error(
            last_line,
            "statements that an output depends on (name more outputs with 'out', or leave the statement out)",
            f"statement {dead + 1} ({statements[dead].op}) that nothing uses",
        )
    if longest_sum(statements) > MOST_TERMS:
        raise LimitError(
            f"a sum of more than {MOST_TERMS:,} terms; write the statements in canonical order and 'archgauge "
            f"{TEXT_VERSION} ordered' in the first line if that is meant",
            source="description",
        )
    return assembled(statements, outputs)


def read_file(path: str | os.PathLike[str], limits: Limits = DEFAULT_LIMITS) -> ArchGraph | None:
    """The network in a file that holds a description; None if the file does not start with the header of one.

    Of a file that does not, 16 bytes are read; of what is no regular file, such as a pipe, nothing.

    Raises:
        UnreadableFileError: No such file, or the system refuses to open it.
        ReadError: As for `parse`, or the file is not UTF-8.
        LimitError: As for `parse`.
    """
    name = os.fspath(path)
    try:
        if not stat.S_ISREG(Path(path).stat().st_mode):
            return None
        with Path(path).open("rb", buffering=0) as file:
            if not _FIRST_BYTES.match(file.read(_SNIFFED)):
                return None
        with Path(path).open("rb") as whole:
            content = whole.read(limits.structure_bytes + 1)
    except OSError as error:
        raise UnreadableFileError(f"cannot be read ({error.strerror or error}); check the path", source=name) from error
    if len(content) > limits.structure_bytes:
        raise LimitError(f"more than {limits.structure_bytes:,} bytes (limits.structure_bytes)", source=name)
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        raise ReadError(f"expected UTF-8, found other bytes at {error.start}; convert the file", source=name) from error
    try:
        return parse(text, limits)
    except ReadError as error:
        raise type(error)(error.reason, source=name) from error
