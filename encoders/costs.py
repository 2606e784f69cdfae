"""Multiply-accumulates (MACs) of one operator.

The one convention of the package: convolutions, linear layers, matrix products (both of attention included) and
recurrent cells count one multiply-accumulate for every product they add up; everything else (biases, normalisation,
activations, pooling, element-wise arithmetic, look-ups) counts nothing. It is half of what `torch.utils.flop_counter`
counts. Batch size is 1. What depends on no input of the network (position tables computed from weights, say) is worked
out before and counts nothing.
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


def peak_activations(nodes: Sequence[Node], outputs: Sequence[int]) -> int:
    """Elements that signals take up at once, at most, while the nodes run one after the other in the order given.

    A signal is there from the node that makes it until the last node that takes it has run; outputs stay. Reshapes
    share the elements of their operand. Weights and what an operator needs inside count nothing. It is the convention
    of Lin et al. 2020 (MCUNet), sec. 3.1, for one fixed order and without operators that work in place.
    """
    root = list(range(len(nodes)))
    last = list(root)
    for position, node in enumerate(nodes):
        if node.op == "Reshape" and node.inputs:
            root[position] = root[node.inputs[0]]
        for operand in node.inputs:
            last[root[operand]] = position
    for output in outputs:
        last[root[output]] = len(nodes)
    ends: dict[int, list[int]] = {}
    for position, end in enumerate(last):
        if root[position] == position:
            ends.setdefault(end, []).append(position)
    held = peak = 0
    for position, node in enumerate(nodes):
        if root[position] == position:
            held += node.size
        peak = max(peak, held)
        for gone in ends.get(position, ()):
            held -= nodes[gone].size
    return peak
