"""Reads ONNX: path, bytes or `ModelProto` → `ArchGraph`. Weights are never needed and never loaded.

The road: take the structure without the weights (`onnx_file.structure`), give every input a static shape
(`fix_inputs`), visit the operators in topological order, find the shapes of each one's outputs (`shapes`, `inference`)
and what it becomes in canonical form (`rules.translate`), absorb what belongs to linear operators, and put the result
in canonical order (`canonical`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Container, Mapping, Sequence
from functools import lru_cache
from math import prod
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from .canonical import absorb_affine, finish
from .draft import SMALL, Constant, Draft, Operand, RawOperator, Sources
from .errors import LimitError, ReadError
from .folding import fold, known_value
from .graph import ArchGraph, AttributeValue, Shape
from .inference import Dims, InferenceError, infer
from .onnx_file import (
    CONTROL,
    DEFAULT_LIMITS,
    Limits,
    Source,
    captured_names,
    is_uniform,
    structure,
    topological,
    without_functions,
)
from .rules import RULES, keep
from .shapes import SHAPE_RULES, UNCHANGED, VALUE_RULES
from .trace import Trace

__all__ = ["BUFFERS_KEY", "Limits", "Source", "fix_inputs", "read"]

BUFFERS_KEY = "archgauge.buffers"
"""Model metadata: names, one a line, of the initialisers that are not learned (masks, position tables)."""


def read(
    source: Source,
    *,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    limits: Limits = DEFAULT_LIMITS,
    trace: Trace | None = None,
) -> ArchGraph:
    """Reads a network's architecture.

    Conventions where a file leaves something open: the batch size is 1; a size that depends on the data (how many
    numbers are not zero, say) is 1 unless the file states it; sequences, maps and optional values have the shape ();
    the output of an operator that ONNX does not know has the shape that the file states, else that of its first
    operand. An `If` whose condition is known is replaced by the branch that is taken; any other counts as the costlier
    branch. The body of a `Loop` or `Scan` counts once for every turn, once if the number of turns is not known.

    Args:
        source: Path of an ONNX file, its bytes, or a loaded model. External data files need not exist.
        input_shapes: Shapes of inputs whose dimensions are dynamic, by input name, batch included:
            `{"x": (1, 3, 224, 224)}`. A dynamic first dimension (the batch) needs none; batch size is always 1.
        limits: Bounds on size.
        trace: Filled with what reading changed, if given.

    Returns:
        The canonical graph.

    Raises:
        UnreadableFileError: No such file, or the system refuses to open it.
        ReadError: The source is no valid ONNX model, or its shapes cannot be worked out.
        LimitError: The source is larger than `limits` allow.
    """
    label = str(source) if isinstance(source, str | os.PathLike) else ""
    try:
        model = without_functions(structure(source, limits), limits)
        if not model.graph.node:
            raise ReadError("the graph has no nodes; expected a network, so export the model again")
        if not model.graph.output:
            raise ReadError("the graph has no outputs; expected at least one, so export the model again")
        stored = {tensor.name: tensor for tensor in model.graph.initializer}
        fix_inputs(model, input_shapes or {}, stored)
        batch = _single_batch(model, stored)
        try:
            return _Reader(model, limits, trace).read(stored)
        except ReadError:
            if not batch:
                raise
            for dim, size in batch:  # the model only works at the batch size it was exported with
                dim.dim_value = size
            if trace is not None:
                trace.clear()
            return _Reader(model, limits, trace).read(stored)
    except ReadError as error:
        if not label or error.source:
            raise
        raise type(error)(error.reason, source=label, node=error.node) from error
    except _SENSELESS as error:
        raise ReadError(f"the model is malformed ({type(error).__name__}: {error})", source=label) from error


# --- static shapes --------------------------------------------------------------------------------------------------


def fix_inputs(model: onnx.ModelProto, input_shapes: Mapping[str, Sequence[int]], stored: Container[str]) -> None:
    """Gives every input of the model a static shape: the one asked for, or the file's with batch size 1.

    Args:
        model: The model, which is changed.
        input_shapes: Shapes by input name.
        stored: Names of the stored tensors, which old files list among the inputs.

    Raises:
        ReadError: A dimension other than the first is dynamic and no shape was given for that input, or a given
            shape does not fit, or names no input.
    """
    names = [value.name for value in model.graph.input if value.name not in stored]
    for name in input_shapes:
        if name not in names:
            raise ReadError(f"input_shapes names {name!r}, but the model's inputs are {names}")
    for value in model.graph.input:
        if value.name in stored or not value.type.HasField("tensor_type"):
            continue
        tensor = value.type.tensor_type
        asked = input_shapes.get(value.name)
        if asked is not None:
            if tensor.HasField("shape") and len(tensor.shape.dim) != len(asked):
                raise ReadError(
                    f"input {value.name!r} has {len(tensor.shape.dim)} dimensions, input_shapes gives {tuple(asked)}"
                )
            if not all(isinstance(size, int | np.integer) and size > 0 for size in asked):
                raise ReadError(f"input_shapes for {value.name!r}: expected positive integers, got {tuple(asked)}")
            del tensor.shape.dim[:]
            for size in asked:
                tensor.shape.dim.add().dim_value = int(size)
            continue
        if not tensor.HasField("shape"):
            raise ReadError(
                f"input {value.name!r} has no shape; pass input_shapes={{{value.name!r}: (1, ...)}}", node=value.name
            )
        alone = len(tensor.shape.dim) == 1  # an empty list of axes or sizes, not an image
        for axis, dim in enumerate(tensor.shape.dim):
            if dim.HasField("dim_value") and (dim.dim_value > 0 or (dim.dim_value == 0 and (axis or alone))):
                continue
            if axis == 0:
                dim.dim_value = 1
                continue
            shown = tuple(d.dim_value if d.HasField("dim_value") else d.dim_param or "?" for d in tensor.shape.dim)
            raise ReadError(
                f"input {value.name!r} has the dynamic shape {shown}; pass input_shapes={{{value.name!r}: "
                f"{tuple(d if isinstance(d, int) and d > 0 else '...' for d in shown)}}} with numbers",
                node=value.name,
            )


def _single_batch(model: onnx.ModelProto, stored: Container[str]) -> list[tuple[onnx.TensorShapeProto.Dimension, int]]:
    """Makes a fixed batch 1: the first dimension that all inputs share, if one of them looks like images.

    Returns:
        The dimensions that were changed, and what they were.
    """
    inputs = [value.type.tensor_type.shape.dim for value in model.graph.input if value.name not in stored]
    firsts = {dims[0].dim_value for dims in inputs if len(dims)}
    if len(firsts) != 1 or max(firsts) <= 1 or not all(len(dims) for dims in inputs):
        return []
    if max(len(dims) for dims in inputs) < 4:
        return []
    changed = [(dims[0], dims[0].dim_value) for dims in inputs]
    for dim, _ in changed:
        dim.dim_value = 1
    return changed


# --- operators ------------------------------------------------------------------------------------------------------


class _OutOfOrderError(Exception):
    """An operand is not there yet: the file's nodes are not in topological order."""


class _Values(dict[str, "Operand | None"]):
    """Value name → operand; stored tensors become constants when they are first asked for.

    Args:
        graph: The graph or body whose names these are.
        stored: Its stored tensors.
        make: Makes a constant of a stored tensor.
        outside: What a body's captured names mean.
    """

    def __init__(
        self,
        graph: onnx.GraphProto,
        stored: Mapping[str, onnx.TensorProto],
        make: Callable[[onnx.TensorProto], Constant],
        outside: Mapping[str, Operand | None] | None = None,
    ) -> None:
        super().__init__({"": None})
        self.stored, self.make, self.outside = stored, make, outside
        for sparse in graph.sparse_initializer:
            name = sparse.values.name
            self[name] = Constant(tuple(sparse.dims), None, ((name, prod(sparse.values.dims)),))

    def __missing__(self, name: str) -> Operand | None:
        tensor = self.stored.get(name)
        if tensor is not None:
            constant = self[name] = self.make(tensor)
            return constant
        if self.outside is None:
            raise _OutOfOrderError(name)
        return self.outside[name]


class _Captured(dict[str, "Operand | None"]):
    """What names of the graph around a body mean inside it: signals become inputs of the body."""

    def __init__(self, outer: _Values, draft: Draft, inner: Draft) -> None:
        super().__init__()
        self.outer, self.draft, self.inner = outer, draft, inner
        self.inputs: dict[int, int] = {}

    def __missing__(self, name: str) -> Operand | None:
        operand = self.outer[name]
        if isinstance(operand, int):
            if operand not in self.inputs:
                self.inputs[operand] = self.inner.input(self.draft.shape(operand))
            return self.inputs[operand]
        return operand


class _Reader:
    """One pass over a model whose inputs have static shapes."""

    def __init__(self, model: onnx.ModelProto, limits: Limits, trace: Trace | None = None) -> None:
        self.model, self.limits, self.trace = model, limits, trace
        self.opset = max((i.version for i in model.opset_import if i.domain in _STANDARD), default=1)
        self.domains = frozenset(i.domain for i in model.opset_import if i.domain not in _STANDARD)
        buffers = {entry.key: entry.value for entry in model.metadata_props}.get(BUFFERS_KEY, "")
        self.buffers = frozenset(buffers.split("\n"))
        self.draft = Draft()
        self.seen = [0]  # operators visited so far, in all bodies
        self._attributes: dict[Any, dict[str, Any]] = {}
        self._known_shapes: dict[Any, Shape | None] = {}
        self._inferred: dict[Any, list[Dims | None] | None] = {}
        self._stated: dict[str, Dims] | None = None

    def read(self, stored: Mapping[str, onnx.TensorProto]) -> ArchGraph:
        """The canonical graph of the model, whose stored tensors these are."""
        graph = self.model.graph
        values = self._translate(graph, lambda: self._inputs(stored))
        outputs: list[int] = []
        cut: list[int] = []
        for value in graph.output:
            try:
                operand = values[value.name]
            except _OutOfOrderError:
                raise ReadError(f"no node computes the output {value.name!r}", node=value.name) from None
            if operand is None:
                raise ReadError("an output has no name; expected the name of a value")
            if isinstance(operand, int):
                outputs.append(operand)
            else:
                cut.append(self.draft.add("Zero", (), operand.shape))
        result = finish(self.draft, *absorb_affine(self.draft, outputs or cut, self.trace), self.trace)
        if result.macs > self.limits.macs:
            raise LimitError(
                f"{result.macs:,} multiply-accumulates, at most {self.limits.macs:,} are allowed; raise limits.macs"
            )
        return result

    def _inputs(self, stored: Mapping[str, onnx.TensorProto]) -> _Values:
        """The model's inputs, as nodes, and its stored tensors."""
        values = _Values(self.model.graph, stored, self._constant)
        for value in self.model.graph.input:
            if value.name not in stored:
                shape = tuple([dim.dim_value for dim in value.type.tensor_type.shape.dim])
                self._check_size(shape, value.name)
                kind = value.type.tensor_type.elem_type
                numbers = "float" if kind in _FLOATS else "int" if kind in _INTEGERS else "other"
                if numbers == "int" and not prod(shape):  # no axes, no sizes: nothing that could vary
                    values[value.name] = Constant(shape, np.zeros(shape, np.int64))
                    continue
                # Two inputs of one shape are two inputs: the draft never merges them.
                values[value.name] = self.draft.input(shape, () if numbers == "float" else (("type", numbers),))
        return values

    def _translate(self, graph: onnx.GraphProto, begin: Callable[[], _Values]) -> _Values:
        """Translates every operator of the graph or body; what its names have become.

        Args:
            graph: The graph or body.
            begin: Makes the names that are there before the first operator.
        """
        self.seen[0] += len(graph.node)
        if self.seen[0] > self.limits.nodes:
            raise LimitError(
                f"{self.seen[0]:,} nodes and more, at most {self.limits.nodes:,} are allowed; raise limits.nodes"
            )
        values = begin()
        try:
            self._visit(graph.node, values)
        except _OutOfOrderError:
            outside: set[str] = set()
            if values.outside is not None:
                outside = {name for node in graph.node for name in (*node.input, *captured_names(node))}
            nodes = topological(graph, outside)
            values = begin()
            try:
                self._visit(nodes, values)
            except _OutOfOrderError as error:
                raise ReadError(f"the operand {error} does not exist in the graph") from None
        return values

    def _visit(self, nodes: Sequence[onnx.NodeProto], values: _Values) -> None:
        """Translates operators that stand in topological order."""
        draft, opset, stored, trace = self.draft, self.opset, values.stored, self.trace
        drafted, known_shapes = draft.nodes, self._known_shapes
        for node in nodes:
            op, outputs = node.op_type, node.output
            if not isinstance(op, str):
                raise ReadError(f"an operator is called {op!r}, which is no UTF-8 text")
            single = len(outputs) == 1
            name = outputs[0] if outputs else node.name
            try:
                if trace is not None:
                    trace.operators[op] += 1
                if op == "Constant":
                    self._add(values, name, self._constant_node(node))
                    continue
                # The running statistics of batch norm, inputs 3 and 4, say nothing about the architecture.
                operands = [values[i] for i in (node.input if op != "BatchNormalization" else node.input[:3])]
                while operands and operands[-1] is None:
                    operands.pop()
                if op in CONTROL:
                    results: Operand | list[Operand] = self._control(node, operands, values)
                else:
                    attributes = self._attributes_of(node) if node.attribute else _NO_ATTRIBUTES
                    shape: Shape | None = None
                    if self.domains and node.domain not in _STANDARD:
                        op = f"{node.domain}::{op}"
                    elif op in UNCHANGED:
                        if (single or op in _FIRST_ONLY) and operands and operands[0] is not None:
                            shape = draft.shape(operands[0])
                    elif op in SHAPE_RULES and single:
                        of = [o.shape if o.__class__ is Constant else drafted[o].shape for o in operands]  # type: ignore[index]
                        key = (op, id(attributes), *of)
                        shape = known_shapes.get(key)
                        if shape is None:
                            shape = known_shapes[key] = SHAPE_RULES[op](of, attributes)
                            if shape is not None:
                                self._check_size(shape, name)
                    if shape is not None:
                        shapes = [shape]
                    elif single and (value := known_value(op, operands, attributes, name)) is not None:
                        self._check_size(value.shape, name)
                        values[name] = value
                        if trace is not None:
                            trace.folded[op] += 1
                        continue
                    else:
                        shapes = self._find_shapes(node, operands, attributes)
                    raw = RawOperator(op, operands, attributes, shapes, opset, name)
                    for operand in operands:
                        if operand.__class__ is int:
                            results = RULES.get(op, keep)(draft, raw)
                            break
                    else:
                        results = fold(raw)
                if trace is not None:
                    trace.translated(draft, op, operands, results)
            except ReadError as error:
                raise error if error.node else type(error)(error.reason, node=name) from error
            except _SENSELESS as error:
                raise ReadError(
                    f"{op} does not fit its operands or attributes ({type(error).__name__}: {error}); check the model",
                    node=name,
                ) from error
            if single:
                if name in values or name in stored:
                    raise ReadError(f"the value {name!r} is computed twice", node=name)
                values[name] = results[0] if isinstance(results, list) else results
                continue
            several = results if isinstance(results, list) else [results]
            for i, output in enumerate(outputs):
                if output:
                    self._add(values, output, several[i] if i < len(several) else self._further(several[0], i, output))

    def _add(self, values: _Values, name: str, operand: Operand) -> None:
        if name in values or name in values.stored:
            raise ReadError(f"the value {name!r} is computed twice", node=name)
        values[name] = operand

    def _further(self, first: Operand, index: int, name: str) -> Operand:
        """An output that means nothing at inference (the mask of Dropout, say) but may be asked for."""
        shape = self._as_stated(None, name) or ()
        if isinstance(first, int):
            return self.draft.add("Select", (first,), shape, (("index", index),))
        return Constant(shape)

    def _attributes_of(self, node: onnx.NodeProto) -> dict[str, Any]:
        """The attributes of a node that differ from the operator's defaults: one dictionary for equal ones."""
        key = (node.op_type, *[attribute.SerializeToString() for attribute in node.attribute])
        found = self._attributes.get(key)
        if found is None:
            found = self._attributes[key] = _attributes(node, self.opset)
        return found

    def _check_size(self, shape: Shape, name: str) -> None:
        if prod(shape) > self.limits.elements:
            raise LimitError(
                f"a tensor of shape {shape} has {prod(shape):,} elements, at most {self.limits.elements:,} are "
                "allowed; raise limits.elements",
                node=name,
            )

    # --- constants ---

    def _constant(self, tensor: onnx.TensorProto, node_output: str = "") -> Constant:
        """A stored tensor: shape, source if it counts as learned, value if small and inline.

        Zeros inside a Constant operator are the exporter's, for a bias that the layer does not have, and not learned.
        """
        shape, name = tuple(tensor.dims), node_output or tensor.name
        size = prod(shape)
        if size > self.limits.elements or (shape and min(shape) < 0):
            raise LimitError(f"a stored tensor has the shape {shape}", node=name)
        floats = tensor.data_type in _FLOATS
        learned = floats and (size > 1 if node_output else shape != ()) and name not in self.buffers
        if tensor.data_location == _EXTERNAL or size > (SMALL if not floats or node_output else _FEW):
            return Constant(shape, None, ((name, size),) if learned else (), fill=_fill(tensor, size))
        value = _stored_value(tensor, name, size)
        if size == 1 and value is not None:
            size = 0
        if node_output and value is not None and not value.any():
            learned = False
        return Constant(shape, value, ((name, size),) if learned else ())

    def _constant_node(self, node: onnx.NodeProto) -> Constant:
        attribute = node.attribute[0] if node.attribute else None
        if attribute is None:
            raise ReadError("a Constant without a value", node=node.output[0])
        if attribute.name == "value":
            return self._constant(attribute.t, node.output[0])
        if attribute.name == "sparse_value":
            return Constant(tuple(attribute.sparse_tensor.dims))
        found = np.asarray(_value(attribute))
        return Constant(found.shape, found if found.dtype.kind in "fiub" else None)

    # --- shapes ---

    def _find_shapes(
        self, node: onnx.NodeProto, operands: Sequence[Operand | None], attributes: dict[str, Any]
    ) -> list[Shape]:
        """Output shapes that the table does not know; see `read` for what is assumed where nothing is known."""
        op, outputs = node.op_type, node.output
        if op == "Split" and any(a.name == "num_outputs" and a.i > len(outputs) for a in node.attribute):
            raise ReadError(f"Split has {len(outputs)} outputs and promises more")
        if op in _COLLECTIONS:
            return [self._as_stated(None, output) or () for output in outputs]
        shapes = [o if isinstance(o, Constant) or o is None else self.draft.shape(o) for o in operands]
        rule = VALUE_RULES.get(op) if node.domain in _STANDARD and shapes else None
        known = rule(shapes, attributes, len(outputs)) if rule is not None else None
        if known is not None:
            for size, output in zip(known, outputs, strict=True):
                self._check_size(size, output)
            return known
        windowed = op in _WINDOWED and len(outputs) == 1 and None not in shapes[:2]
        if (windowed or op == "Einsum") and node.domain in _STANDARD:
            sizes = ", ".join(str(o.shape if isinstance(o, Constant) else o) for o in shapes)
            raise ReadError(f"{op} with the attributes {attributes} does not fit operands of the shapes {sizes}")
        key = (node.domain, op, id(attributes), len(outputs), *[_content(shape) for shape in shapes])
        if key not in self._inferred:
            try:
                self._inferred[key] = infer(node, shapes, self.model.opset_import)
            except InferenceError as failure:
                stated = [self._as_stated(None, output) for output in outputs]
                if stated[0] is None or not _about_types(str(failure)):
                    given = ", ".join(str(o.shape if isinstance(o, Constant) else o) for o in shapes)
                    raise ReadError(f"{op} does not fit operands of the shapes {given}: {failure}") from failure
                self._inferred[key] = None
        inferred = self._inferred[key]
        found: list[Shape] = []
        for i, output in enumerate(outputs):
            shape = self._as_stated(None if inferred is None else inferred[i], output)
            if shape is None and inferred is not None and i == 0 and node.domain in _STANDARD:
                raise ReadError(
                    f"the shape that {op} puts out depends on the data; state it in the model, or simplify the model"
                )
            if shape is None:
                first = next((o for o in operands if o is not None), None)
                shape = () if i or first is None else self.draft.shape(first)
                self.draft.guessed = True
            self._check_size(shape, output)
            found.append(shape)
        return found

    def _as_stated(self, known: Dims | None, name: str) -> Shape | None:
        """A static shape from what is known and what the file states; None if there is nothing to go by."""
        if known is not None and None not in known:
            return known  # type: ignore[return-value]
        if self._stated is None:
            self._stated = _stated_shapes(self.model)
        stated = self._stated.get(name)
        if known is None:
            return None if stated is None else tuple([1 if n is None else n for n in stated])
        if stated is None or len(stated) != len(known):
            stated = (1,) * len(known)
        return tuple([(1 if s is None else s) if n is None else n for n, s in zip(known, stated, strict=True)])

    # --- control flow ---

    def _control(self, node: onnx.NodeProto, operands: list[Operand | None], values: _Values) -> list[Operand]:
        """If, Loop and Scan; `read` says how their bodies count."""
        bodies = {attribute.name: attribute.g for attribute in node.attribute if attribute.HasField("g")}
        numbers = {attribute.name: _value(attribute) for attribute in node.attribute}
        first = operands[0] if operands else None
        if node.op_type == "If":
            taken, other = bodies["then_branch"], bodies["else_branch"]
            if isinstance(first, Constant) and first.scalar is not None:
                body = taken if first.scalar else other
                inner = self._translate(body, lambda: _Values(body, _stored(body), self._constant, values))
                return [self._result(inner, value.name) for value in body.output]
            costs = [self._body(body, [], values) for body in (taken, other)]
            captured = tuple(dict.fromkeys(i for cost in costs for i in cost.inputs))
            cost = max(costs, key=lambda c: (c.macs, sum(size for _, size in c.sources), c.content))
            return self._control_node(node, cost, captured, operands, cost.shapes, 1)
        body = bodies["body"]
        if node.op_type == "Loop":
            states = [() if o is None else self.draft.shape(o) for o in operands[2:]]
            turns = first.ints() if isinstance(first, Constant) else None
            count = max(turns[0], 0) if turns else 1
            fixed = {
                value.name: operand
                for value, after, operand in zip(body.input[2:], body.output[1:], operands[2:], strict=False)
                if isinstance(operand, Constant) and _unchanged(body, value.name, after.name)
            }
            cost = self._body(body, [(), (), *states], values, fixed)
            shapes = [shape if i < len(states) else (count, *shape) for i, shape in enumerate(cost.shapes[1:])]
            return self._control_node(node, cost, cost.inputs, operands, shapes, count)
        old = self.opset < 9  # the first operand was the lengths of the sequences, and there was a batch axis
        given = [() if o is None else self.draft.shape(o) for o in operands[1 if old else 0 :]]
        scans = int(numbers["num_scan_inputs"])
        axes = list(numbers.get("scan_input_axes") or numbers.get("axes") or [0] * scans)
        inside = [shape[1:] if old else shape for shape in given]
        states, scanned = inside[: len(inside) - scans], inside[len(inside) - scans :]
        axes = [axis % len(shape) for axis, shape in zip(axes, scanned, strict=True)]
        count = scanned[0][axes[0]] if scanned else 1
        slices = [(*s[:axis], *s[axis + 1 :]) for s, axis in zip(scanned, axes, strict=True)]
        cost = self._body(body, [*states, *slices], values)
        places = list(numbers.get("scan_output_axes") or [0] * len(cost.shapes))
        shapes = []
        for i, shape in enumerate(cost.shapes):
            if i >= len(states):
                axis = places[i - len(states)] % (len(shape) + 1)
                shape = (*shape[:axis], count, *shape[axis:])
            shapes.append((given[0][0], *shape) if old else shape)
        return self._control_node(node, cost, cost.inputs, operands, shapes, count)

    def _control_node(
        self,
        node: onnx.NodeProto,
        cost: _Body,
        captured: Sequence[int],
        operands: Sequence[Operand | None],
        shapes: list[Shape],
        turns: int,
    ) -> list[Operand]:
        inputs = tuple(dict.fromkeys([*[o for o in operands if isinstance(o, int)], *captured]))
        for shape in shapes:
            self._check_size(shape, node.output[0])
        if not inputs:
            return [Constant(shape, None, cost.sources) for shape in shapes]
        attributes: list[tuple[str, AttributeValue]] = [("body", cost.content), ("body_macs", cost.macs * turns)]
        if turns != 1:
            attributes.append(("turns", turns))
        op = node.op_type
        first = self.draft.add(op, inputs, shapes[0] if shapes else (), tuple(attributes), (), cost.sources)
        others = [self.draft.add("Select", (first,), s, (("index", i),)) for i, s in enumerate(shapes[1:], 1)]
        return [first, *others]

    def _body(
        self,
        body: onnx.GraphProto,
        inputs: Sequence[Shape],
        values: _Values,
        fixed: Mapping[str, Constant] = MappingProxyType({}),
    ) -> _Body:
        """Reads a body as a network of its own, whose inputs have these shapes; `fixed` ones are constants."""
        reader = _Reader(self.model, self.limits, self.trace)
        reader.seen = self.seen
        captured = _Captured(values, self.draft, reader.draft)

        def begin() -> _Values:
            inner = _Values(body, _stored(body), reader._constant, captured)
            for value, shape in zip(body.input, inputs, strict=False):
                inner[value.name] = fixed.get(value.name) or reader.draft.input(shape)
            return inner

        names = reader._translate(body, begin)
        results = [self._result(names, value.name) for value in body.output]
        outputs, alive = absorb_affine(reader.draft, [result for result in results if isinstance(result, int)])
        graph = finish(reader.draft, outputs, alive)
        sources: list[tuple[str, int]] = []
        for position in alive:
            inner_node = reader.draft.nodes[position]
            for weight in inner_node.weights:
                sources.extend(weight.sources)
            sources.extend(inner_node.bias)
        shapes = [reader.draft.shape(result) for result in results]
        return _Body(graph.hash[:16], graph.macs, tuple(dict.fromkeys(sources)), shapes, tuple(captured.inputs))

    @staticmethod
    def _result(values: _Values, name: str) -> Operand:
        result = values[name]
        if result is None:
            raise ReadError("an output of a body has no name; expected the name of a value")
        return result


def _unchanged(body: onnx.GraphProto, before: str, after: str) -> bool:
    """Whether a state of a loop leaves the body as it came in."""
    copies = {node.output[0]: node.input[0] for node in body.node if node.op_type == "Identity" and node.input}
    while after in copies and after != before:
        after = copies.pop(after)
    return after == before


class _Body:
    """What is known of the body of a control operator: content, cost, weights, output shapes, captured signals."""

    __slots__ = ("content", "inputs", "macs", "shapes", "sources")

    def __init__(self, content: str, macs: int, sources: Sources, shapes: list[Shape], inputs: tuple[int, ...]) -> None:
        self.content, self.macs, self.sources = content, macs, sources
        self.shapes, self.inputs = shapes, inputs


_FEW = 16
"""Stored float tensors with more elements than this are weights, whose values nobody asks for."""
_NO_ATTRIBUTES: dict[str, Any] = {}
_FIRST_ONLY = frozenset({"Dropout", "BatchNormalization"})  # whose further outputs mean nothing at inference
_WINDOWED = frozenset({"Conv", "MaxPool", "AveragePool"})
"""Where the table knows no shape there is none; onnx's inference makes one up."""
_COLLECTION_OPS = (
    "SequenceConstruct SequenceEmpty SequenceInsert SequenceErase SequenceAt SequenceLength SequenceMap "
    "SplitToSequence ConcatFromSequence Optional OptionalGetElement OptionalHasElement ZipMap DictVectorizer CastMap"
)
_COLLECTIONS = frozenset(_COLLECTION_OPS.split())
_EXTERNAL = onnx.TensorProto.EXTERNAL
_STANDARD = frozenset({"", "ai.onnx"})
_SENSELESS = (
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    AssertionError,
    RecursionError,
    MemoryError,
)
"""What malformed attributes and operands make rules raise."""
_TYPES = onnx.TensorProto
_PLAIN: dict[int, np.dtype[Any]] = {
    _TYPES.INT64: np.dtype("<i8"),
    _TYPES.INT32: np.dtype("<i4"),
    _TYPES.FLOAT: np.dtype("<f4"),
}
_FLOATS = frozenset(
    {
        _TYPES.FLOAT,
        _TYPES.FLOAT16,
        _TYPES.BFLOAT16,
        _TYPES.DOUBLE,
        _TYPES.FLOAT8E4M3FN,
        _TYPES.FLOAT8E5M2,
    }
)
_INTEGERS = frozenset(
    {
        _TYPES.INT8,
        _TYPES.INT16,
        _TYPES.INT32,
        _TYPES.INT64,
        _TYPES.UINT8,
        _TYPES.UINT16,
        _TYPES.UINT32,
        _TYPES.UINT64,
    }
)


def _about_types(message: str) -> bool:
    """Whether inference failed for element types, which are not tracked here."""
    return "TypeInferenceError" in message or " type " in message


def _stored(graph: onnx.GraphProto) -> dict[str, onnx.TensorProto]:
    return {tensor.name: tensor for tensor in graph.initializer}


def _content(shape: Shape | Constant | None) -> Any:
    """A shape, or the bytes of a constant's value, for a key."""
    if isinstance(shape, Constant):
        return (shape.shape, None if shape.value is None else shape.value.tobytes())
    return shape


def _fill(tensor: onnx.TensorProto, size: int) -> np.ndarray | None:
    """The number that all elements of a large stored tensor are; None if they differ or the file does not hold them."""
    plain = np.dtype(np.bool_) if tensor.data_type == _TYPES.BOOL else _PLAIN.get(tensor.data_type)
    raw = tensor.raw_data
    if plain is None or len(raw) != size * plain.itemsize or not is_uniform(raw, plain.itemsize):
        return None
    return np.frombuffer(raw[: plain.itemsize], plain).reshape(())


def _stored_value(tensor: onnx.TensorProto, name: str, size: int) -> np.ndarray | None:
    """The numbers of a tensor; None if the file does not hold them."""
    plain = _PLAIN.get(tensor.data_type)
    if plain is not None and len(tensor.raw_data) == size * plain.itemsize and size:
        return np.frombuffer(tensor.raw_data, plain).reshape(tuple(tensor.dims))
    if size and not (
        tensor.raw_data
        or tensor.float_data
        or tensor.int64_data
        or tensor.int32_data
        or tensor.double_data
        or tensor.uint64_data
    ):
        return None
    try:
        value: np.ndarray = numpy_helper.to_array(tensor)
        return value if value.dtype.kind in "fiub" else value.astype(np.float32)
    except Exception as error:  # onnx and numpy raise many types for damaged tensors
        raise ReadError(f"the stored tensor is damaged: {error}", node=name) from error


def _stated_shapes(model: onnx.ModelProto) -> dict[str, Dims]:
    """The shapes that the model states for its values, unknown sizes as None."""
    found: dict[str, Dims] = {}
    for group in (model.graph.value_info, model.graph.output):
        for value in group:
            tensor = value.type.tensor_type
            if tensor.HasField("shape"):
                found[value.name] = tuple(
                    [
                        dim.dim_value if dim.HasField("dim_value") and dim.dim_value >= 0 else None
                        for dim in tensor.shape.dim
                    ]
                )
    return found


def _strings(attribute: onnx.AttributeProto) -> tuple[str, ...]:
    return tuple([s.decode(errors="replace") for s in attribute.strings])


def _tensor(attribute: onnx.AttributeProto) -> tuple[Any, ...] | None:
    if not 0 <= prod(attribute.t.dims) <= SMALL:
        return None
    return tuple(numpy_helper.to_array(attribute.t).reshape(-1).tolist())


_GETTERS: dict[int, Callable[[onnx.AttributeProto], Any]] = {
    onnx.AttributeProto.INT: lambda attribute: attribute.i,
    onnx.AttributeProto.INTS: lambda attribute: tuple(attribute.ints),
    onnx.AttributeProto.FLOAT: lambda attribute: attribute.f,
    onnx.AttributeProto.FLOATS: lambda attribute: tuple(attribute.floats),
    onnx.AttributeProto.STRING: lambda attribute: attribute.s.decode(errors="replace"),
    onnx.AttributeProto.STRINGS: _strings,
    onnx.AttributeProto.TENSOR: _tensor,
}


def _value(attribute: onnx.AttributeProto) -> Any:
    """The attribute as a plain Python value, tensors flat; graphs and types as None."""
    getter = _GETTERS.get(attribute.type)
    return None if getter is None else getter(attribute)


def _attributes(node: onnx.NodeProto, opset: int) -> dict[str, Any]:
    """The attributes of a node that differ from the operator's defaults."""
    defaults = _defaults(node.op_type, node.domain, opset)
    found: dict[str, Any] = {}
    for attribute in node.attribute:
        value, name = _value(attribute), attribute.name
        if not isinstance(name, str):
            raise ValueError(f"an attribute is called {name!r}, which is no UTF-8 text")
        if value is not None and (name not in defaults or value != defaults[name]):
            found[name] = value
    return found


@lru_cache(maxsize=4096)
def _defaults(op: str, domain: str, opset: int) -> dict[str, Any]:
    """Default attribute values of an operator of the standard domain."""
    if domain not in _STANDARD:
        return {}
    try:
        schema = onnx.defs.get_schema(op, opset, "")
    except onnx.defs.SchemaError:
        return {}
    return {name: _value(a.default_value) for name, a in schema.attributes.items() if a.default_value.name}
