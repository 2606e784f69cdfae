"""A network in a few lines, for people: costs, and what every stage is made of."""

from __future__ import annotations

from collections import Counter
from math import prod

from .graph import ArchGraph, Node, Shape
from .operators import Kind, kind_of
from .text_defaults import CONVOLUTIONS


def summary(graph: ArchGraph) -> str:
    """Size and costs, then a line for every stage: operators of one spatial size (or number of tokens)."""
    inputs = sorted({_by(node.shape) for node in graph.nodes if node.op == "Input"})
    outputs = [_by(graph.nodes[output].shape) or "scalar" for output in graph.outputs]
    rows = [
        f"archgauge summary: input {', '.join(inputs) or 'none'}, output {', '.join(outputs) or 'none'}",
        f"{len(graph):,} operators, depth {graph.depth}, {graph.params:,} parameters, "
        f"{graph.macs:,} multiply-accumulates",
    ]
    stages: dict[str, list[int]] = {}
    for position, node in enumerate(graph.nodes):
        space = node.shape[2:] if len(node.shape) > 3 else node.shape[1:-1]
        stages.setdefault(_by(space) if prod(space) > 1 else "vector", []).append(position)
    for size, positions in stages.items():
        nodes = [graph.nodes[position] for position in positions]
        counts = Counter(map(_called, nodes))
        learned = [node for node in nodes if kind_of(node.op) in (Kind.CONV, Kind.LINEAR) and node.weights]
        widths = {node.shape[1] if len(node.shape) > 3 else node.shape[-1] if node.shape else 0 for node in learned}
        said = ", ".join([f"{count} {name}" for name, count in sorted(counts.items(), key=lambda c: (-c[1], c[0]))])
        width = f"; width {' to '.join(map(str, sorted({min(widths), max(widths)})))}" if widths else ""
        share = 100 * sum([graph.node_macs[position] for position in positions]) / max(1, graph.macs)
        rows.append(f"{size}: {said}{width}; {share:.1f} % of the multiply-accumulates")
    return "".join([row + "\n" for row in rows])


def _by(sizes: Shape) -> str:
    return "x".join(map(str, sizes))


def _called(node: Node) -> str:
    """The operator; of a convolution with its kernel and whether it has groups."""
    if node.op not in CONVOLUTIONS or not node.weights:
        return node.op
    kernel = node.weights[0][2:]
    group = node.attribute("group", 1)
    groups = "" if group == 1 else " depthwise" if node.weights[0][1] == 1 else " grouped"
    return f"{node.op} {kernel[0] if len(set(kernel)) == 1 else _by(kernel)}{groups}"
