"""ONNX files as they lie on disk: opened safely, stripped of their weights, checked for size, put in order."""

from __future__ import annotations

import mmap
import os
from collections import deque
from collections.abc import Container, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import onnx.inliner
from google.protobuf.message import DecodeError

from .draft import SMALL
from .errors import LimitError, ReadError, UnreadableFileError

Source = str | os.PathLike[str] | bytes | onnx.ModelProto
"""What `read` takes."""


@dataclass(frozen=True)
class Limits:
    """Bounds that protect the reader from absurd or hostile files; crossing one raises `LimitError`.

    Args:
        nodes: Operators in the file.
        elements: Elements of any one tensor.
        macs: Multiply-accumulates of the whole network.
        structure_bytes: Size of the file without its weights.
    """

    nodes: int = 200_000
    elements: int = 1 << 44
    macs: int = 1 << 60
    structure_bytes: int = 512 << 20


DEFAULT_LIMITS = Limits()
_WHOLE = 4 << 20
"""Files up to this size are parsed whole; larger ones are first stripped of their weights."""


def structure(source: Source, limits: Limits = DEFAULT_LIMITS) -> onnx.ModelProto:
    """The model without the values of large tensors, as a copy that may be changed.

    Raises:
        UnreadableFileError: No such file, or it cannot be opened.
        ReadError: Not an ONNX model.
        LimitError: Larger than `limits` allow.
    """
    if isinstance(source, onnx.ModelProto):
        model = _copy(source)
    elif isinstance(source, bytes | bytearray | memoryview):
        model = _parse(memoryview(source), limits)
    elif isinstance(source, str | os.PathLike):
        path = Path(source)
        try:
            with path.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                if size <= _WHOLE:
                    model = _parse(memoryview(file.read()), limits)
                else:
                    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped, memoryview(mapped) as view:
                        model = _parse(view, limits)
        except OSError as error:
            hint = "check the path" if isinstance(error, FileNotFoundError) else "is it a readable file?"
            raise UnreadableFileError(f"{error.strerror or error}; {hint}", source=str(path)) from error
    else:
        raise ReadError(f"expected a path, bytes or onnx.ModelProto, got {type(source).__name__}")
    return model


def _copy(source: onnx.ModelProto) -> onnx.ModelProto:
    """The model without the values of its large initialisers."""
    model = onnx.ModelProto()
    for field, value in source.ListFields():
        if field.name != "graph":
            if hasattr(value, "extend"):
                getattr(model, field.name).extend(value)
            else:
                setattr(model, field.name, value)
    for field, value in source.graph.ListFields():
        if field.name == "name":
            model.graph.name = value
        elif field.name == "initializer":
            for tensor in value:
                if len(tensor.raw_data) <= _KEEP_VALUES and len(tensor.float_data) <= SMALL:
                    model.graph.initializer.add().CopyFrom(tensor)
                else:
                    model.graph.initializer.add(name=tensor.name, dims=tensor.dims, data_type=tensor.data_type)
        elif field.name not in ("doc_string", "quantization_annotation", "metadata_props"):
            getattr(model.graph, field.name).extend(value)
    return model


def _parse(data: memoryview, limits: Limits) -> onnx.ModelProto:
    if not len(data):
        raise ReadError("the file is empty; expected an ONNX model")
    try:
        content = bytes(data) if len(data) <= _WHOLE else b"".join(_stripped(data, _MODEL))
        if len(content) > limits.structure_bytes:
            raise LimitError(
                f"{len(content):,} bytes without the weights, at most {limits.structure_bytes:,} are allowed; "
                "raise limits.structure_bytes"
            )
        model = onnx.ModelProto()
        model.ParseFromString(content)
    except (DecodeError, IndexError, UnicodeDecodeError, RecursionError) as error:
        raise ReadError(f"not an ONNX model ({error}); expected a protobuf file written by an ONNX exporter") from error
    if not model.HasField("graph"):
        raise ReadError("the file holds no ONNX graph; expected a model written by an ONNX exporter")
    return model


# Protobuf field numbers on the way to tensors (onnx.proto): message → {field: message it holds}.
_TENSOR: dict[int, Any] = {}
_ATTRIBUTE: dict[int, Any] = {5: _TENSOR}
_NODE: dict[int, Any] = {5: _ATTRIBUTE}
_GRAPH: dict[int, Any] = {1: _NODE, 5: _TENSOR}
_ATTRIBUTE[6] = _GRAPH
_FUNCTION: dict[int, Any] = {7: _NODE}
_MODEL: dict[int, Any] = {7: _GRAPH, 25: _FUNCTION}
_VALUES = frozenset({4, 5, 6, 7, 9, 10, 11})  # float, int32, string, int64, raw, double, uint64 data of a tensor
_RAW = 9
_KEEP_VALUES = 8 * SMALL


def is_uniform(data: bytes, width: int) -> bool:
    """Whether the bytes are the first `width` of them again and again."""
    return data[:-width] == data[width:] if data[width : 2 * width] == data[:width] else False


def _stripped(data: memoryview, message: dict[int, Any]) -> Iterator[bytes]:
    """The protobuf message without the values of tensors larger than `_KEEP_VALUES` bytes, in pieces."""
    position, end = 0, len(data)
    while position < end:
        start = position
        tag, position = _varint(data, position)
        field, wire = tag >> 3, tag & 7
        if wire == 2:
            length, position = _varint(data, position)
            stop = position + length
            if stop > end:
                raise DecodeError("truncated message")
            inner = message.get(field)
            if inner is not None and length > _KEEP_VALUES:
                body = b"".join(_stripped(data[position:stop], inner))
                yield bytes(_to_varint(tag) + _to_varint(len(body)))
                yield body
            elif (
                message is not _TENSOR
                or field not in _VALUES
                or length <= _KEEP_VALUES
                or (field == _RAW and length <= _WHOLE and is_uniform(bytes(data[position:stop]), 8))
            ):
                yield bytes(data[start:stop])
            position = stop
            continue
        if wire == 0:
            _, position = _varint(data, position)
        elif wire in (1, 5):
            position += 8 if wire == 1 else 4
        else:
            raise DecodeError(f"unknown wire type {wire}")
        if position > end:
            raise DecodeError("truncated message")
        yield bytes(data[start:position])


def _varint(data: memoryview, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
        if shift > 63:
            raise DecodeError("number longer than 64 bits")


def _to_varint(value: int) -> bytearray:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return encoded


# --- functions and subgraphs ----------------------------------------------------------------------------------------


CONTROL = frozenset({"If", "Loop", "Scan"})
"""Operators with subgraphs that are read."""


def without_functions(model: onnx.ModelProto, limits: Limits) -> onnx.ModelProto:
    """The model with its local functions written out.

    Raises:
        LimitError: That makes more than `limits.nodes` operators.
        ReadError: A function calls itself, or they cannot be written out.
    """
    if not model.functions:
        return model
    functions = {(function.domain, function.name): function for function in model.functions}
    sizes: dict[tuple[str, str], int] = {}

    def size(nodes: Any, calling: tuple[tuple[str, str], ...]) -> int:
        """Operators, bodies of control flow included, once all is written out."""
        total = len(nodes)
        for node in nodes:
            key = (node.domain, node.op_type)
            if key in functions:
                if key in calling:
                    raise ReadError(f"the function {key[1]!r} calls itself", node=node.name)
                if key not in sizes:
                    sizes[key] = size(functions[key].node, (*calling, key))
                total += sizes[key]
            for attribute in node.attribute:
                if attribute.HasField("g"):
                    total += size(attribute.g.node, calling)
        return total

    count = size(model.graph.node, ())
    if count > limits.nodes:
        raise LimitError(f"{count:,} nodes, at most {limits.nodes:,} are allowed; raise limits.nodes")
    try:
        return onnx.inliner.inline_local_functions(model)
    except Exception as error:  # onnx raises several unrelated types, RuntimeError among them
        raise ReadError(f"the functions of the model cannot be written out: {error}") from error


def topological(graph: onnx.GraphProto, outside: Container[str] = ()) -> list[onnx.NodeProto]:
    """The nodes in topological order.

    Args:
        graph: The graph or body.
        outside: Names that a body may use of the graph around it.

    Raises:
        ReadError: A cycle, or an operand that nothing computes.
    """
    nodes = list(graph.node)
    producer = {output: i for i, node in enumerate(nodes) for output in node.output if output}
    known = {tensor.name for tensor in graph.initializer}
    known.update(value.name for value in graph.input)
    known.update(sparse.values.name for sparse in graph.sparse_initializer)
    known.update(producer)
    known.add("")
    consumers: list[list[int]] = [[] for _ in nodes]
    waiting: list[int] = []
    for i, node in enumerate(nodes):
        used = set(node.input) | captured_names(node)
        for name in sorted(used):
            if name not in known and name not in outside:
                raise ReadError(f"operand {name!r} of {node.op_type} does not exist in the graph", node=_called(node))
        before = {producer[name] for name in used if name in producer}
        waiting.append(len(before))
        for j in before:
            consumers[j].append(i)
    ready = deque(i for i, count in enumerate(waiting) if not count)
    ordered: list[onnx.NodeProto] = []
    while ready:
        position = ready.popleft()
        ordered.append(nodes[position])
        for i in consumers[position]:
            waiting[i] -= 1
            if not waiting[i]:
                ready.append(i)
    if len(ordered) < len(nodes):
        stuck = next(node for node, count in zip(nodes, waiting, strict=True) if count)
        raise ReadError("the graph has a cycle through this node; expected a feed-forward graph", node=_called(stuck))
    return ordered


def _called(node: onnx.NodeProto) -> str:
    return str(node.output[0] if node.output else node.name)


def captured_names(node: onnx.NodeProto) -> set[str]:
    """Names that the bodies of a control operator use without computing them."""
    if node.op_type not in CONTROL:
        return set()
    names: set[str] = set()
    for attribute in node.attribute:
        if attribute.HasField("g"):
            body = attribute.g
            own = {tensor.name for tensor in body.initializer} | {value.name for value in body.input}
            own.update(output for inner in body.node for output in inner.output)
            used = {value.name for value in body.output}
            for inner in body.node:
                used.update(inner.input)
                used |= captured_names(inner)
            names |= used - own
    names.discard("")
    return names
