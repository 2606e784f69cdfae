"""What was understood of a network: stages, costs, operators, and what every pass of the reader changed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

from .graph import ArchGraph, Node
from .onnx_reader import Limits
from .operators import Kind, kind_of
from .reading import Shapes, read
from .trace import Trace

if TYPE_CHECKING:
    from .reading import Source


@dataclass(frozen=True)
class Pass:
    """What one pass changed.

    Attributes:
        name: Its name.
        count: Operators it concerned.
        details: `(what, how often)`, the most frequent first.
    """

    name: str
    count: int
    details: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Stage:
    """The learned layers whose outputs have one number of positions.

    Attributes:
        resolution: Positions of the first one's output: (56, 56) for an image, (197,) for tokens, () for one position.
        layers: How many they are.
        channels: Least and largest number of output channels.
        params: Learned numbers in them.
        macs: Their multiply-accumulates.
    """

    resolution: tuple[int, ...]
    layers: int
    channels: tuple[int, int]
    params: int
    macs: int


@dataclass(frozen=True)
class Explanation:
    """What was understood of a network.

    Attributes:
        graph: The network.
        stages: Its stages, in the order in which they are reached first.
        operators: Canonical operators and how many of each, the most frequent first.
        passes: What reading changed, in the order of the passes.
    """

    graph: ArchGraph
    stages: tuple[Stage, ...]
    operators: tuple[tuple[str, int], ...]
    passes: tuple[Pass, ...]

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain values, for JSON."""
        graph = self.graph
        return {
            "hash": graph.hash,
            "nodes": len(graph),
            "inputs": [list(node.shape) for node in graph.nodes if node.op == "Input"],
            "outputs": [list(graph.nodes[position].shape) for position in graph.outputs],
            "params": graph.params,
            "macs": graph.macs,
            "activations": graph.activations,
            "peak_activations": graph.peak_activations,
            "depth": graph.depth,
            "unknown_ops": list(graph.unknown_ops),
            "unknown_share": graph.unknown_share,
            "stages": [
                {
                    "resolution": list(stage.resolution),
                    "layers": stage.layers,
                    "channels": list(stage.channels),
                    "params": stage.params,
                    "macs": stage.macs,
                }
                for stage in self.stages
            ],
            "operators": dict(self.operators),
            "passes": [{"name": p.name, "count": p.count, "details": dict(p.details)} for p in self.passes],
        }

    def text(self) -> str:
        """All of it for people."""
        graph = self.graph
        about = self.to_dict()
        unknown = "none"
        if graph.unknown_ops:
            unknown = f"{' '.join(graph.unknown_ops)} ({graph.unknown_share:.1%} of all elements put out)"
        lines = [
            f"hash              {graph.hash}",
            f"inputs            {', '.join(_sizes(shape) for shape in about['inputs'])}",
            f"outputs           {', '.join(_sizes(shape) for shape in about['outputs'])}",
            f"nodes             {len(graph):,}",
            f"parameters        {graph.params:,}",
            f"MACs              {graph.macs:,}",
            f"activations       {graph.activations:,} (peak {graph.peak_activations:,})",
            f"depth             {graph.depth} layers",
            f"unknown operators {unknown}",
            "",
            "stages            layers  channels        parameters            MACs",
        ]
        for stage in self.stages:
            low, high = stage.channels
            channels = f"{low}" if low == high else f"{low} to {high}"
            lines.append(
                f"  {_sizes(stage.resolution) or 'one position':15} {stage.layers:6}  {channels:12} "
                f"{stage.params:13,} {stage.macs:15,}"
            )
        lines += ["", "operators         " + _listed(self.operators, 8), "", "passes"]
        lines += [f"  {p.name:22} {p.count:6}  {_listed(p.details, 5)}".rstrip() for p in self.passes]
        return "\n".join(lines)


def _sizes(shape: Sequence[int]) -> str:
    return "×".join(str(size) for size in shape)


def _listed(counts: Sequence[tuple[str, int]], limit: int) -> str:
    shown = ", ".join(f"{what} {count}" for what, count in counts[:limit])
    return shown + (f", and {len(counts) - limit} more" if len(counts) > limit else "")


def explain(
    source: Source,
    *,
    input_shapes: Shapes | None = None,
    dtypes: Mapping[str, str] | str | None = None,
    limits: Limits = Limits(),  # noqa: B008 (immutable)
) -> Explanation:
    """Reads a network and says what was understood of it.

    Args:
        source: See `read`.
        input_shapes: See `read`.
        dtypes: See `read`.
        limits: See `read`.

    Raises:
        ReadError: See `read`.
    """
    trace = Trace()
    graph = read(source, input_shapes=input_shapes, dtypes=dtypes, limits=limits, trace=trace)
    operators = Counter(node.op for node in graph.nodes)
    return Explanation(graph, _stages(graph), tuple(operators.most_common()), _passes(trace))


def _stages(graph: ArchGraph) -> tuple[Stage, ...]:
    members: dict[int, list[tuple[Node, int]]] = {}
    resolutions: dict[int, tuple[int, ...]] = {}
    for node, macs in zip(graph.nodes, graph.node_macs, strict=True):
        kind = kind_of(node.op)
        if kind in (Kind.CONV, Kind.LINEAR, Kind.RECURRENT):
            positions = _positions(node, kind)
            resolutions.setdefault(prod(positions), positions)
            members.setdefault(prod(positions), []).append((node, macs))
    found = []
    for size, layers in members.items():
        resolution = resolutions[size]
        channels = [_channels(node) for node, _ in layers]
        params, macs = sum(node.params for node, _ in layers), sum(macs for _, macs in layers)
        found.append(Stage(resolution, len(layers), (min(channels), max(channels)), params, macs))
    return tuple(found)


def _positions(node: Node, kind: Kind) -> tuple[int, ...]:
    positions = node.shape[2:] if kind is Kind.CONV else node.shape[1:-1]
    return positions if prod(positions) != 1 else ()


def _channels(node: Node) -> int:
    if kind_of(node.op) is Kind.CONV:
        return node.shape[1] if len(node.shape) > 1 else 1
    return node.shape[-1] if node.shape else 1


def _passes(trace: Trace) -> tuple[Pass, ...]:
    def counted(name: str, counts: Mapping[str, int]) -> Pass:
        ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        return Pass(name, sum(counts.values()), tuple(ordered))

    rewritten = {f"{old} → {new}": count for (old, new), count in trace.rewritten.items()}
    absorbed = {f"{old} into {new}": count for (old, new), count in trace.absorbed.items()}
    return (
        counted("operators in the file", trace.operators),
        counted("constants folded", trace.folded),
        counted("no-ops removed", trace.removed),
        counted("synonyms rewritten", rewritten),
        counted("unused left out", trace.unused),
        counted("absorbed into layers", absorbed),
        Pass("sums merged", trace.merged_sums, ()),
    )
