"""The graph encoder: a batch of graphs → one embedding each, with several backbones by name.

Every backbone starts from the same node features (`graph_tensors`) and ends in states of nodes, which are pooled into
an embedding. `flow` is ours: a few rounds of message passing worked out once for nodes that it cannot tell apart, then
recurrences along all paths in both directions. `kgnn`, `gin` and `gps` are the field's, made with PyTorch Geometric.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from .errors import ConfigError
from .flow import run, sweeps
from .graph import ArchGraph
from .graph_tensors import (
    FEATURES,
    KIND_NAMES,
    OPERATORS,
    POSITIONS,
    Batch,
    NodeTable,
    batch_of,
    by_node_budget,
    shared_classes,
    tensors_of,
)
from .names import look_up, take_name

NODE_BUDGET = 16_000
"""Nodes of one batch when graphs are encoded; a larger graph is a batch of its own."""


@dataclass(frozen=True)
class GNNConfig:
    """Size and kind of a graph encoder.

    Attributes:
        backbone: Name of the backbone, see `BACKBONES`.
        width: Numbers per node.
        rounds: Rounds of message passing.
        dropout: Share of the nodes' numbers that is zeroed in training.
    """

    backbone: str = "flow"
    width: int = 96
    rounds: int = 3
    dropout: float = 0.1

    @property
    def embedding(self) -> int:
        """Numbers per graph."""
        return _POOLINGS * self.width


_POOLINGS = 7


class NodeInputs(nn.Module):
    """Signatures of nodes → numbers: features, operator and kind of operator."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.operator = nn.Embedding(len(OPERATORS), width)
        self.kind = nn.Embedding(len(KIND_NAMES), width)
        self.features = nn.Linear(len(FEATURES), width)
        self.mixed = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, batch: Batch) -> Tensor:
        """(s, width) for the signatures of the batch."""
        operators, kinds = torch.from_numpy(batch.operators), torch.from_numpy(batch.kinds)
        x = self.operator(operators) + self.kind(kinds) + self.features(torch.from_numpy(batch.features))
        return x + self.mixed(x)  # type: ignore[no-any-return]


Backbone = Callable[[GNNConfig], nn.Module]
BACKBONES: dict[str, Backbone] = {}
"""Name → class of a module that turns numbers of signatures (s, width) and a batch into states of nodes (n, width)."""


def register_backbone(name: str) -> Callable[[Backbone], Backbone]:
    """Decorator that enters a backbone under `name`.

    Raises:
        ConfigError: The name is taken.
    """

    def enter(backbone: Backbone) -> Backbone:
        take_name(BACKBONES, name, backbone, "a backbone")
        return backbone

    return enter


class SharedRounds(nn.Module):
    """Message passing along and against the edges, worked out once for all nodes it cannot tell apart.

    x_v ← x_v + MLP(x_v, Σ_u x_u / √|u| over operands, the same over consumers), normalised before.
    """

    def __init__(self, width: int, rounds: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(rounds))
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Linear(3 * width, width), nn.SiLU(), nn.Linear(width, width)) for _ in range(rounds)
        )

    def forward(self, x: Tensor, batch: Batch) -> Tensor:
        """States (n, width) of the nodes from numbers (s, width) of the signatures."""
        source, target = batch.edges
        classes = shared_classes(batch, len(self.layers))
        x = x[torch.from_numpy(batch.codes[classes[0][0]])]
        for layer, norm, (_, old), (chosen, _) in zip(self.layers, self.norms, classes, classes[1:], strict=False):
            row = np.full(len(batch), -1)
            row[chosen] = np.arange(len(chosen))
            state = norm(x)
            parts = [state[torch.from_numpy(old[chosen])]]
            for near, far in ((target, source), (source, target)):
                kept = row[near] >= 0
                to, start = row[near[kept]], old[far[kept]]
                share = np.bincount(to, minlength=len(chosen)).astype(np.float32)
                total = x.new_zeros(len(chosen), x.shape[1]).index_add(
                    0, torch.from_numpy(to), state[torch.from_numpy(start)]
                )
                parts.append(total / torch.from_numpy(np.sqrt(np.maximum(share, 1.0)))[:, None])
            x = x[torch.from_numpy(old[chosen])] + layer(torch.cat(parts, dim=1))
        return x[torch.from_numpy(classes[-1][1])]


@register_backbone("flow")
class FlowBackbone(nn.Module):
    """Shared rounds of message passing, then recurrences along all paths, forwards and backwards; see `flow`."""

    def __init__(self, config: GNNConfig) -> None:
        super().__init__()
        width, self.gated, self.tropical = config.width, config.width // 2, config.width // 4
        self.near = SharedRounds(width, config.rounds)
        self.norm = nn.LayerNorm(width)
        self.gates = nn.Linear(width, 2 * self.gated)
        self.inputs = nn.Linear(width, 2 * self.gated)
        self.lengths = nn.Linear(width, 2 * self.tropical)
        nn.init.uniform_(self.gates.bias, 0.0, 5.0)  # memories of 2 to 150 nodes
        signs = torch.ones(2 * self.tropical)
        signs[::2] = -1.0
        self.register_buffer("signs", signs, persistent=False)
        self.signs: Tensor
        self.out = nn.Sequential(
            nn.Linear(width + 2 * (self.gated + self.tropical) + len(POSITIONS), width),
            nn.SiLU(),
            nn.Linear(width, width),
        )

    def forward(self, x: Tensor, batch: Batch) -> Tensor:
        """States (n, width) of the nodes from numbers (s, width) of the signatures."""
        x = self.near(x, batch)
        state = self.norm(x)
        keep = torch.sigmoid(self.gates(state))
        add = (1 - keep) * self.inputs(state)
        length = functional.softplus(self.lengths(state)) * self.signs
        parts = [x]
        for side, sweep in enumerate(sweeps(batch)):
            g = slice(side * self.gated, (side + 1) * self.gated)
            t = slice(side * self.tropical, (side + 1) * self.tropical)
            gated, tropical = run(sweep, keep[:, g], add[:, g], length[:, t])
            parts += [gated, torch.sign(tropical) * torch.log1p(tropical.abs())]
        return x + self.out(torch.cat([*parts, torch.from_numpy(batch.places)], dim=1))  # type: ignore[no-any-return]


class _Geometric(nn.Module):
    """Rounds of one of PyTorch Geometric's layers on all nodes, edges in both directions unless said."""

    def __init__(self, config: GNNConfig) -> None:
        super().__init__()
        self.places = nn.Linear(len(POSITIONS), config.width)

    def start(self, x: Tensor, batch: Batch) -> Tensor:
        """Numbers (n, width) of the nodes, with their places."""
        return x[torch.from_numpy(batch.codes)] + self.places(torch.from_numpy(batch.places))  # type: ignore[no-any-return]


def _both_ways(batch: Batch) -> Tensor:
    edges = torch.from_numpy(batch.edges)
    return torch.cat([edges, edges.flip(0)], dim=1)


@register_backbone("kgnn")
class KGNNBackbone(nn.Module):
    """The k-GNN that GENNAPE compares with: six rounds of GraphConv (Morris et al. 2019) along the edges, tanh.

    It sees the node's features but not its place (Mills et al. 2023, and their published baseline).
    """

    def __init__(self, config: GNNConfig) -> None:
        super().__init__()
        from torch_geometric.nn import GraphConv

        self.layers = nn.ModuleList(GraphConv(config.width, config.width) for _ in range(6))

    def forward(self, x: Tensor, batch: Batch) -> Tensor:
        """States (n, width) of the nodes from numbers (s, width) of the signatures."""
        edges = torch.from_numpy(batch.edges)
        x = x[torch.from_numpy(batch.codes)]
        for layer in self.layers:
            x = torch.tanh(layer(x, edges))
        return x


@register_backbone("gin")
class GINBackbone(_Geometric):
    """A graph isomorphism network (Xu et al. 2019), residual and normalised, without directions."""

    def __init__(self, config: GNNConfig) -> None:
        super().__init__(config)
        from torch_geometric.nn import GINConv

        width = config.width
        self.layers = nn.ModuleList(
            GINConv(nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width)), train_eps=True)
            for _ in range(config.rounds + 2)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(config.rounds + 2))

    def forward(self, x: Tensor, batch: Batch) -> Tensor:
        """States (n, width) of the nodes from numbers (s, width) of the signatures."""
        edges = _both_ways(batch)
        x = self.start(x, batch)
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x = x + layer(norm(x), edges)
        return x


@register_backbone("gps")
class GPSBackbone(_Geometric):
    """A graph transformer in GPS's form (Rampášek et al. 2022): message passing beside attention, then a perceptron.

    Attention is linear (Katharopoulos et al. 2020), so that memory is too, and never looks across graphs. The
    positional encoding is a node's depth from both ends, as Luo et al. (2023) have it for directed acyclic graphs.
    """

    def __init__(self, config: GNNConfig) -> None:
        super().__init__(config)
        from torch_geometric.nn import GINConv

        width = config.width
        self.depth = nn.Linear(4 * _WAVES, width)
        self.near = nn.ModuleList(
            GINConv(nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width)))
            for _ in range(config.rounds)
        )
        self.far = nn.ModuleList(LinearAttention(width) for _ in range(config.rounds))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3 * config.rounds))
        self.mixed = nn.ModuleList(
            nn.Sequential(nn.Linear(width, 2 * width), nn.SiLU(), nn.Linear(2 * width, width))
            for _ in range(config.rounds)
        )

    def forward(self, x: Tensor, batch: Batch) -> Tensor:
        """States (n, width) of the nodes from numbers (s, width) of the signatures."""
        edges, owner = _both_ways(batch), torch.from_numpy(batch.owner)
        x = self.start(x, batch) + self.depth(torch.cat([_waves(batch.from_start), _waves(batch.to_end)], dim=1))
        for i, (near, far, mixed) in enumerate(zip(self.near, self.far, self.mixed, strict=True)):
            first, second, third = self.norms[3 * i : 3 * i + 3]
            x = x + near(first(x), edges) + far(second(x), owner, batch.size)
            x = x + mixed(third(x))
        return x


class LinearAttention(nn.Module):
    """Attention within each graph at linear cost: softmax's kernel is replaced by φ(q)·φ(k) with φ = elu + 1."""

    def __init__(self, width: int, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.project = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, owner: Tensor, graphs: int) -> Tensor:
        """(n, width) from (n, width); `owner` is the graph of every row."""
        query, key, value = self.project(x).reshape(len(x), 3, self.heads, -1).unbind(1)
        query, key = functional.elu(query) + 1, functional.elu(key) + 1
        total = x.new_zeros(graphs, *key.shape[1:]).index_add(0, owner, key)
        pairs = x.new_zeros(graphs, *key.shape[1:], key.shape[2])
        pairs = pairs.index_add(0, owner, key[:, :, :, None] * value[:, :, None, :])
        weight = (query * total[owner]).sum(-1, keepdim=True)
        mixed = torch.einsum("nhk,nhkv->nhv", query, pairs[owner]) / weight.clamp_min(1e-6)
        return self.out(mixed.reshape(len(x), -1))  # type: ignore[no-any-return]


_WAVES = 8


def _waves(depth: np.ndarray[Any, np.dtype[np.int64]]) -> Tensor:
    """Sines and cosines (n, 16) of depths (Vaswani et al. 2017, sec. 3.5), wavelengths from 6 to 6,000."""
    angles = torch.from_numpy(depth)[:, None] * torch.logspace(0, -3, _WAVES)
    return torch.cat([angles.sin(), angles.cos()], dim=1)


class Readout(nn.Module):
    """States of nodes → embedding: mean, sum on a log scale and maximum over all, mean over each third, the outputs.

    Nothing is learnt here: behind a narrow layer, networks of one space can hardly be told apart.
    """

    def forward(self, x: Tensor, batch: Batch) -> Tensor:
        """(graphs, embedding)."""
        owner = torch.from_numpy(batch.owner)
        count = torch.from_numpy(np.bincount(batch.owner, minlength=batch.size).astype(np.float32))[:, None]
        total = x.new_zeros(batch.size, x.shape[1]).index_add(0, owner, x)
        lowest = x.new_full((batch.size, x.shape[1]), -torch.inf)
        most = lowest.scatter_reduce(0, owner[:, None].expand_as(x), x, "amax")
        parts = [total / count, torch.asinh(total / 8), most]
        share = batch.places[:, POSITIONS.index("share")]
        ends = batch.places[:, POSITIONS.index("is_output")] > 0
        thirds = np.minimum((share * 3).astype(np.int64), 2)
        for chosen in (*(np.flatnonzero(thirds == i) for i in range(3)), np.flatnonzero(ends)):
            to = torch.from_numpy(batch.owner[chosen])
            number = torch.from_numpy(np.bincount(batch.owner[chosen], minlength=batch.size).astype(np.float32))
            summed = x.new_zeros(batch.size, x.shape[1]).index_add(0, to, x[torch.from_numpy(chosen)])
            parts.append(summed / number.clamp_min(1.0)[:, None])
        return torch.cat(parts, dim=1)


class GraphEncoder(nn.Module):
    """Graphs → embeddings.

    Args:
        config: Kind and size; or give its fields by name.

    Raises:
        ConfigError: There is no such backbone.
    """

    def __init__(self, config: GNNConfig | None = None, **fields: Any) -> None:
        super().__init__()
        self.config = config if config is not None else GNNConfig(**fields)
        self.inputs = NodeInputs(self.config.width)
        self.backbone = look_up(BACKBONES, self.config.backbone, "backbone")(self.config)
        self.dropout = nn.Dropout(self.config.dropout)
        self.readout = Readout()

    def nodes(self, batch: Batch) -> Tensor:
        """States (n, width) of the nodes."""
        return self.backbone(self.dropout(self.inputs(batch)), batch)  # type: ignore[no-any-return]

    def forward(self, batch: Batch) -> Tensor:
        """Embeddings (graphs, embedding)."""
        return self.readout(self.dropout(self.nodes(batch)), batch)  # type: ignore[no-any-return]

    def embed(self, graphs: Sequence[ArchGraph], *, node_budget: int = NODE_BUDGET) -> np.ndarray[Any, Any]:
        """Embeddings (n, embedding) float64 of graphs, without dropout, in batches of at most `node_budget` nodes."""
        result = np.empty((len(graphs), self.config.embedding))
        training = self.training
        self.eval()
        table = NodeTable()
        tensors = [tensors_of(graph, table) for graph in graphs]
        operators, kinds, features = table.operators, table.kinds, table.features
        deep = np.array([int(graph.from_start.max(initial=0)) for graph in tensors])
        with torch.inference_mode():
            for group in by_node_budget([len(t) for t in tensors], node_budget, order=np.argsort(deep, kind="stable")):
                batch = batch_of([tensors[i] for i in group], operators, kinds, features)
                result[group] = self(batch).double().numpy()
        self.train(training)
        return result

    def describe(self) -> dict[str, Any]:
        """The configuration as JSON values."""
        return asdict(self.config)

    @classmethod
    def described(cls, values: dict[str, Any]) -> GraphEncoder:
        """A new encoder of the configuration that `describe` gave.

        Raises:
            ConfigError: The values are no configuration.
        """
        try:
            return cls(GNNConfig(**values))
        except TypeError as error:
            raise ConfigError(f"no configuration of a graph encoder: {error}") from error
