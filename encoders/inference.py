"""Output shapes of one operator by ONNX's own inference, for what the table in `shapes` leaves out.

Only ever one operator at a time, with the operands' shapes and small values that the reader knows: inference over a
whole hostile model was found to crash, to hang and to use up memory (onnx 1.23).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import onnx
import onnx.numpy_helper
from onnx import TensorProto, TypeProto, shape_inference

from .draft import Constant
from .graph import Shape

Dims = tuple[int | None, ...]
"""A shape some of whose sizes are not known."""

_TYPES = {
    "i": (TensorProto.INT64, np.int64),
    "u": (TensorProto.INT64, np.int64),
    "b": (TensorProto.BOOL, np.bool_),
    "f": (TensorProto.FLOAT, np.float32),
}


class InferenceError(Exception):
    """ONNX's shape inference rejects the operator."""


def infer(
    node: onnx.NodeProto, operands: Sequence[Shape | Constant | None], opsets: Sequence[onnx.OperatorSetIdProto]
) -> list[Dims | None] | None:
    """What is known of the shapes of an operator's outputs; None if ONNX does not know the operator.

    Args:
        node: The operator.
        operands: For every input a shape, or a constant whose value may matter.
        opsets: Operator sets of the model.

    Raises:
        InferenceError: Operands and attributes do not fit.
    """
    version = next((o.version for o in opsets if o.domain == node.domain), 1)
    known = _schema(node.op_type, version, node.domain)
    if known is None:
        return None
    schema, expected = known
    types: dict[str, TypeProto] = {}
    values: dict[str, TensorProto] = {}
    variables: dict[str, int] = {}
    unknown: list[tuple[str, str, int, Shape]] = []
    for slot, (name, operand) in enumerate(zip(node.input, operands, strict=False)):
        if operand is None:
            continue
        variable, kind = expected[min(slot, len(expected) - 1)] if expected else ("", TensorProto.FLOAT)
        if isinstance(operand, Constant):
            value = operand.value
            if value is not None and value.dtype.kind in _TYPES:
                kind, dtype = _TYPES[value.dtype.kind]
                variables[variable] = kind
                values[name] = onnx.numpy_helper.from_array(value.astype(dtype))
                types[name] = _type(kind, operand.shape)
                continue
            operand = operand.shape
        unknown.append((name, variable, kind, operand))
    for name, variable, kind, shape in unknown:  # operands that must have one type have that of the constants
        types[name] = _type(variables.get(variable, kind), shape)
    try:
        found = shape_inference.infer_node_outputs(schema, node, types, values, opset_imports=list(opsets))
    except Exception as error:  # onnx raises several unrelated types, RuntimeError among them
        lines = str(error).strip().splitlines()
        raise InferenceError(lines[0] if lines else "no reason given") from error
    return [_dims(found.get(output)) for output in node.output]


@lru_cache(maxsize=4096)
def _schema(op: str, version: int, domain: str) -> tuple[onnx.defs.OpSchema, tuple[tuple[str, int], ...]] | None:
    """The operator's definition, and for every input its type variable and a type that it takes (float if it can)."""
    try:
        schema = onnx.defs.get_schema(op, version, domain)
    except onnx.defs.SchemaError:
        return None
    allowed = {constraint.type_param_str: constraint.allowed_type_strs for constraint in schema.type_constraints}
    kinds: list[tuple[str, int]] = []
    for formal in schema.inputs:
        taken = allowed.get(formal.type_str, [formal.type_str])
        kind = next((kind for name, kind in _PREFERRED if name in taken), TensorProto.FLOAT)
        kinds.append((formal.type_str, kind))
    return schema, tuple(kinds)


_PREFERRED = tuple(
    (f"tensor({name.lower()})", TensorProto.DataType.Value(name))
    for name in ("FLOAT", "INT64", "INT32", "BOOL", "UINT8", "INT8", "STRING")
)


def _type(kind: int, shape: Shape) -> TypeProto:
    result = TypeProto()
    tensor = result.tensor_type
    tensor.elem_type = kind
    tensor.shape.SetInParent()  # a scalar has a shape, too: an empty one
    for size in shape:
        tensor.shape.dim.add().dim_value = size
    return result


def _dims(found: TypeProto | None) -> Dims | None:
    if found is None or not found.HasField("tensor_type") or not found.tensor_type.HasField("shape"):
        return None
    return tuple([dim.dim_value if dim.HasField("dim_value") else None for dim in found.tensor_type.shape.dim])
