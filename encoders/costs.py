"""Multiply-accumulates (MACs) of one operator.

The one convention of the package: convolutions, linear layers, matrix products (both of attention included) and
recurrent cells count one multiply-accumulate for every product they add up; everything else (biases, normalisation,
activations, pooling, element-wise arithmetic, look-ups) counts nothing. It is half of what `torch.utils.flop_counter`
counts. Batch size is 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .graph import Node

COUNTED = frozenset(
    {"Conv", "DeformConv", "ConvTranspose", "Linear", "MatMul", "Attention", "LSTM", "GRU", "RNN", "If", "Loop", "Scan"}
)
"""Operators that cost anything."""


def macs_of(node: Node, operands: Sequence[Node]) -> int:
    """Multiply-accumulates of `node`, whose operands are `operands` (in the order of `node.inputs`)."""
    match node.op:
        case "Conv" | "DeformConv":
            kernel = node.weights[0] if node.weights else operands[-1].shape
            return prod(node.shape) * prod(kernel[1:])
        case "ConvTranspose" if node.weights and operands:
            return prod(operands[0].shape) * prod(node.weights[0][1:])
        case "Linear" if node.weights:
            return prod(node.shape) * fan_in(node)
        case "MatMul" if operands:
            return prod(node.shape) * (operands[0].shape[-1] if operands[0].shape else 1)
        case "Attention" if len(operands) >= 3:
            return (prod(operands[0].shape) + prod(node.shape)) * operands[1].shape[-2]
        case "LSTM" | "GRU" | "RNN" if node.weights and operands:
            steps = prod(operands[0].shape[:-1])
            return steps * sum(prod(shape) for shape in node.weights[:2])
        case "If" | "Loop" | "Scan":
            return int(node.attribute("body_macs", 0))
    return 0


def fan_in(node: Node) -> int:
    """Products added up for one output element of a convolution or linear layer (k·k·C_in / groups); else 0."""
    if not node.weights or not node.weights[0]:
        return 0
    kernel = node.weights[0]
    match node.op:
        case "Conv" | "DeformConv":
            return prod(kernel[1:])
        case "ConvTranspose":
            strides: tuple[int, ...] = node.attribute("strides", ())
            return kernel[0] * prod(kernel[2:]) // max(1, prod(strides))
        case "Linear":
            return kernel[-1] if node.attribute("left") or len(kernel) == 1 else kernel[-2]
    return 0
