"""ONNX-Net's text of a network (Qin et al. 2025), rebuilt on canonical nodes with its defects, to be compared with."""

from __future__ import annotations

from .graph import ArchGraph
from .text_defaults import CONVOLUTIONS


def chain_slim(graph: ArchGraph) -> str:
    """Chains of operators, each fed by the one before; a line for each chain.

    Tensors inside a chain have no name, numbers that stand alone (groups, axes, slopes) are dropped, and the text
    follows the order of the nodes.
    """
    names: dict[int, str] = {}
    rows: list[str] = []
    chain: list[str] = []
    last = -1

    def close() -> None:
        if chain:
            shape = "x".join(map(str, graph.nodes[last].shape))
            names[last] = "Out" if last in graph.outputs else f"Value{len(rows) + 1}"
            rows.append(" --> ".join([*chain, f"{names[last]}:{shape}"]) + "\n")
            chain.clear()

    for position, node in enumerate(graph.nodes):
        if node.op == "Input":
            names[position] = "x".join(map(str, node.shape))
            continue
        single = len(node.inputs) == 1
        if not single or node.inputs[0] != last:
            close()
        weights = [f"Param[{','.join(map(str, weight))}]" for weight in node.weights]
        if node.attribute("bias") and node.shape:
            channels = node.shape[1] if node.op in CONVOLUTIONS and len(node.shape) > 1 else node.shape[-1]
            weights.append(f"Param[{channels}]")
        unnamed = ["prev"] if weights or not single else []
        operands = [part for i in node.inputs for part in ([names[i]] if i in names else unnamed)]
        lists = {name: value for name, value in node.attributes if type(value) is tuple}
        if node.op in CONVOLUTIONS and node.weights:
            lists["kernel_shape"] = node.weights[0][2:]
        said = [
            f"{name}={value[0] if len(set(value)) == 1 else '[' + ','.join(map(str, value)) + ']'}"
            for name, value in sorted(lists.items())
            if value
        ]
        chain.append(f"{node.op}({', '.join([*operands, *weights])})" + (f"({','.join(said)})" if said else ""))
        last = position
        if not single:
            close()
            last = -1
    close()
    return "".join(rows)
