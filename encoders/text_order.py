"""Statements of a description, and the canonical graph they stand for.

Statements stand in an order of their own: depth first from the outputs, the deepest operand first. Cells that are alike
are written alike in it, whatever their canonical order, so more of them fold. The parser puts nodes into canonical
order again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from .canonical import finish, live, merge_sums
from .draft import COMMUTATIVE, Constant, Draft, DraftNode
from .graph import ArchGraph, Node
from .text_defaults import MOST_TERMS


def assembled(statements: Sequence[Node], outputs: Sequence[int]) -> ArchGraph:
    """The canonical graph of statements in any topological order; all of them must be alive.

    `tied` is the position of any earlier statement with the same weight.
    """
    draft = Draft()
    root: list[int] = []
    for position, node in enumerate(statements):
        root.append(position if node.tied < 0 else root[node.tied])
    shared = Counter(root)
    for position, node in enumerate(statements):
        weights = tuple([Constant(shape) for shape in node.weights])
        if weights and shared[root[position]] > 1:
            weights[0].sources = ((f"weight {root[position]}", 0),)
        stored = ((f"stored {position}", node.params),) if node.params else ()
        draft.nodes.append(DraftNode(node.op, node.inputs, node.shape, node.attributes, weights, stored))
    return finish(draft, outputs, list(range(len(statements))))


def unused(statements: Sequence[Node], outputs: Sequence[int]) -> int | None:
    """The first statement that no output depends on, if there is one."""
    alive = set(outputs)
    for position in range(len(statements) - 1, -1, -1):
        if position in alive:
            alive.update(statements[position].inputs)
    return next((position for position in range(len(statements)) if position not in alive), None)


def longest_sum(nodes: Sequence[Node]) -> int:
    """Terms of the largest sum that a chain or tree of Adds makes."""
    uses: Counter[int] = Counter(operand for node in nodes for operand in node.inputs)
    terms: list[int] = []
    for node in nodes:
        added = [terms[i] if uses[i] == 1 else 1 for i in node.inputs] if node.op == "Add" else [1]
        terms.append(sum(added))
    return max(terms, default=0)


def in_text_order(graph: ArchGraph) -> tuple[list[Node], list[int]] | None:
    """The statements of a graph and its outputs in the order of the text; None if the parser would get another graph.

    Sums of several terms are one statement. Sharing nodes are `tied` to the latest earlier one.
    """
    nodes, outputs = graph.nodes, list(graph.outputs)
    draft = Draft()
    draft.nodes = [DraftNode(node.op, node.inputs, node.shape, node.attributes, (), ()) for node in nodes]
    if not nodes or unused(nodes, outputs) is not None or longest_sum(nodes) > MOST_TERMS:
        return None
    alive = merge_sums(draft, outputs, live(draft, outputs))
    order = _order(graph, draft.nodes, alive)
    place = {position: at for at, position in enumerate(order)}
    latest: dict[int, int] = {}
    statements: list[Node] = []
    for at, position in enumerate(order):
        node = nodes[position]
        inputs = tuple([place[i] for i in draft.nodes[position].inputs])
        if len(inputs) > 1 and node.op in COMMUTATIVE:
            inputs = tuple(sorted(inputs, reverse=True))
        root = position if node.tied < 0 else node.tied
        statements.append(node._replace(inputs=inputs, tied=latest.get(root, -1)))
        latest[root] = at
    places = [place[output] for output in outputs]
    again = assembled(statements, places)
    return (statements, places) if again.nodes == nodes and again.outputs == graph.outputs else None


def _order(graph: ArchGraph, nodes: list[DraftNode], alive: list[int]) -> list[int]:
    """Operands before consumers, the deepest first; of equally deep ones by what they are, widths aside."""
    keys: dict[int, tuple[int, str, int]] = {}
    for position in alive:
        node = nodes[position]
        depth = min([keys[i][0] for i in node.inputs], default=0) - 1
        attributes = [pair for pair in node.attributes if pair[0] != "group"]
        content = repr((node.op, attributes, [weight[2:] for weight in graph.nodes[position].weights]))
        keys[position] = depth, content, position
    order: list[int] = []
    placed: set[int] = set()
    for output in graph.outputs:
        stack = [output]
        while stack:
            position = stack[-1]
            waiting = [] if position in placed else [i for i in nodes[position].inputs if i not in placed]
            if waiting:
                stack.extend(sorted(waiting, key=keys.__getitem__, reverse=True))
                continue
            stack.pop()
            if position not in placed:
                placed.add(position)
                order.append(position)
    return order
