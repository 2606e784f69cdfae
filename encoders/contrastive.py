"""Pretraining of the graph encoder on graphs without labels.

Three objectives, each with a weight:

- `spectral`: GENNAPE's contrastive learning (Mills et al. 2023, sec. 3.1). Two dropout views of every graph; each view
  is to find the other views in the batch in proportion to how near their graphs' spectra are: targets are the softmax
  of the negative Euclidean distance of the 21 smallest eigenvalues of the normalised Laplacian, predictions the softmax
  of the cosine similarity of the projected embeddings over a temperature.
- `statistics`: what `statistics` works out exactly (costs, paths, stages, signal propagation, spectrum), standardised,
  is to be read off the embedding.
- `masked`: a tenth of the nodes is hidden; their operators and numbers are to be told from the states of the nodes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from .errors import CheckpointError, ConfigError
from .files import replacing
from .gnn import GNNConfig, GraphEncoder
from .graph import ArchGraph
from .graph_tensors import (
    FEATURES,
    OPERATORS,
    Batch,
    GraphTensors,
    Ints,
    NodeTable,
    batch_of,
    by_node_budget,
    tensors_of,
)

Floats = NDArray[np.float64]
EIGENVALUES = 21
"""Eigenvalues that spectral distances compare (Mills et al. 2023)."""
OBJECTIVES = ("spectral", "statistics", "masked")
_MASKED = 0.1
_FORMAT = "archgauge.graph_encoder"


@dataclass(frozen=True)
class Corpus:
    """What pretraining looks at.

    Attributes:
        tensors: (n,) graphs as arrays of one table.
        table: That table.
        statistics: (n, d) standardised statistics, clipped to ±4.
        spectra: (n, 21) smallest eigenvalues of the normalised Laplacian.
    """

    tensors: tuple[GraphTensors, ...]
    table: NodeTable
    statistics: NDArray[np.float32]
    spectra: NDArray[np.float32]

    @property
    def identity(self) -> str:
        """Hash of all that training depends on."""
        digest = sha256(self.statistics.tobytes() + self.spectra.tobytes())
        digest.update(self.table.features.tobytes() + self.table.operators.tobytes())
        for graph in self.tensors:
            digest.update(graph.codes.tobytes() + graph.edges.tobytes() + graph.places.tobytes())
        return digest.hexdigest()


def corpus_of(graphs: Sequence[ArchGraph], statistics: Floats) -> Corpus:
    """The corpus of these graphs and their statistics, (n, d) as `statistics` gives them."""
    from .statistics import laplacian_eigenvalues

    table = NodeTable()
    tensors = tuple(tensors_of(graph, table) for graph in graphs)
    scale = statistics.std(axis=0)
    standardised = (statistics - statistics.mean(axis=0)) / np.where(scale > 1e-9, scale, np.inf)
    spectra = np.array([laplacian_eigenvalues(graph, EIGENVALUES) for graph in graphs])
    return Corpus(tensors, table, np.clip(standardised, -4, 4).astype(np.float32), spectra.astype(np.float32))


class Objectives(nn.Module):
    """The heads of the objectives, which are thrown away after pretraining.

    Args:
        config: Of the encoder.
        statistics: Number of statistics.
        temperature: Of the similarities of embeddings.
        softness: Of the spectral targets: a distance of this size makes a target smaller by a factor of e.
    """

    def __init__(self, config: GNNConfig, statistics: int, *, temperature: float = 0.1, softness: float = 0.05) -> None:
        super().__init__()
        self.temperature, self.softness = temperature, softness
        self.common = nn.Sequential(
            nn.LayerNorm(config.embedding), nn.Linear(config.embedding, 256), nn.SiLU(), nn.Linear(256, 128)
        )
        self.project = nn.Sequential(nn.Linear(128, 128), nn.SiLU(), nn.Linear(128, 64))
        self.read = nn.Linear(128, statistics)
        self.operator = nn.Linear(config.width, len(OPERATORS))
        self.numbers = nn.Linear(config.width, len(FEATURES))

    def spectral(self, first: Tensor, second: Tensor, spectra: Tensor) -> Tensor:
        """The contrastive loss of two views (b, embedding) of the same graphs, with spectra (b, 21)."""
        views = functional.normalize(self.project(self.common(torch.cat([first, second]))), dim=1)
        distance = torch.cdist(spectra, spectra).repeat(2, 2)
        own = torch.eye(len(views), dtype=torch.bool)
        targets = (-distance / self.softness).masked_fill(own, -torch.inf).softmax(dim=1)
        found = (views @ views.T / self.temperature).masked_fill(own, -torch.inf).log_softmax(dim=1)
        return -(targets * found.masked_fill(own, 0.0)).sum(dim=1).mean()

    def statistics(self, embedding: Tensor, targets: Tensor) -> Tensor:
        """The error of the statistics (b, d) read off embeddings (b, embedding)."""
        return functional.smooth_l1_loss(self.read(self.common(embedding)), targets, beta=0.5)

    def masked(self, states: Tensor, operators: Tensor, features: Tensor) -> Tensor:
        """The error of operators (m,) and features (m, f) told from the states (m, width) of the hidden nodes."""
        guessed = functional.cross_entropy(self.operator(states), operators)
        return guessed + functional.smooth_l1_loss(self.numbers(states), features)


def pretrain(
    corpus: Corpus,
    config: GNNConfig,
    weights: Mapping[str, float],
    *,
    epochs: int,
    seed: int = 0,
    node_budget: int = 8_000,
    learning_rate: float = 2e-3,
    checkpoint: str | os.PathLike[str] | None = None,
    report: Callable[[str], None] = lambda line: None,
) -> GraphEncoder:
    """Trains a graph encoder on a corpus.

    Graphs of similar depth share a batch. The learning rate rises over the first twentieth of the steps and then falls
    along a cosine. The same seed gives the same weights, also when the run was interrupted and went on.

    Args:
        corpus: Graphs without labels.
        config: Of the encoder.
        weights: Objective → weight; those left out count 0.
        epochs: Times every graph is seen.
        seed: Seed of initial weights, batches, masks and dropout.
        node_budget: Nodes of one batch.
        learning_rate: The highest one.
        checkpoint: File that keeps the state after every epoch, and from which an interrupted run goes on, or None.
        report: Called with a line after every epoch.

    Returns:
        The encoder.

    Raises:
        ConfigError: An unknown objective, or none has a weight.
        CheckpointError: The checkpoint is of another run.
    """
    if wrong := sorted(set(weights) - set(OBJECTIVES)):
        raise ConfigError(f"there is no objective {wrong[0]!r}, expected some of {', '.join(OBJECTIVES)}")
    if not any(weights.values()) or epochs < 1:
        raise ConfigError(f"weights are {dict(weights)} and epochs {epochs}, expected a weight above 0 and an epoch")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_seed(seed, 0))
        encoder = GraphEncoder(config)
        objectives = Objectives(config, corpus.statistics.shape[1])
        both = nn.ModuleDict({"encoder": encoder, "objectives": objectives})
        optimizer = torch.optim.AdamW(both.parameters(), lr=learning_rate, weight_decay=0.01)
        run = _Run(corpus, config, dict(weights), epochs, seed, node_budget, learning_rate)
        start = _resume(checkpoint, run, both, optimizer)
        for epoch in range(start, epochs):
            losses = _epoch(run, epoch, encoder, objectives, optimizer)
            report(f"epoch {epoch + 1} of {epochs}: " + ", ".join(f"{k} {v:.4f}" for k, v in losses.items()))
            if checkpoint is not None:
                _keep(checkpoint, run, both, optimizer, epoch + 1)
    return encoder.eval()


@dataclass(frozen=True)
class _Run:
    corpus: Corpus
    config: GNNConfig
    weights: dict[str, float]
    epochs: int
    seed: int
    node_budget: int
    learning_rate: float

    @property
    def identity(self) -> str:
        parts = (self.corpus.identity, self.config, sorted(self.weights.items()))
        rest = (self.epochs, self.seed, self.node_budget, self.learning_rate)
        return sha256(repr((parts, rest)).encode()).hexdigest()


def _seed(seed: int, part: int) -> int:
    return int(np.random.SeedSequence([seed, part]).generate_state(1, np.uint32)[0])


def _epoch(
    run: _Run, epoch: int, encoder: GraphEncoder, objectives: Objectives, optimizer: torch.optim.Optimizer
) -> dict[str, float]:
    random = np.random.default_rng(_seed(run.seed, 1 + 2 * epoch))
    torch.manual_seed(_seed(run.seed, 2 + 2 * epoch))
    encoder.train()
    corpus, weights = run.corpus, run.weights
    operators, kinds, features = corpus.table.operators, corpus.table.kinds, corpus.table.features
    depth = np.array([int(graph.from_start.max(initial=1)) for graph in corpus.tensors])
    order = np.argsort(np.log(1 + depth) + random.normal(0, 0.4, len(depth)))
    groups = list(by_node_budget([len(graph) for graph in corpus.tensors], run.node_budget, order=order))
    totals: dict[str, list[float]] = {name: [] for name in weights if weights[name] > 0}
    for step, at in enumerate(random.permutation(len(groups))):
        done = (epoch + step / len(groups)) / run.epochs
        for options in optimizer.param_groups:
            options["lr"] = run.learning_rate * min(done / 0.05 + 0.01, 0.5 * (1 + np.cos(np.pi * done)))
        group = groups[at]
        tensors = [corpus.tensors[i] for i in group]
        batch = batch_of(tensors, operators, kinds, features)
        loss = torch.zeros(())
        first: Tensor | None = None
        if weights.get("statistics") or weights.get("spectral"):
            first = encoder(batch)
        if first is not None and (weight := weights.get("statistics", 0.0)):
            part = objectives.statistics(first, torch.from_numpy(corpus.statistics[group]))
            loss = loss + weight * part
            totals["statistics"].append(part.item())
        if first is not None and (weight := weights.get("spectral", 0.0)) and len(group) > 1:
            part = objectives.spectral(first, encoder(batch), torch.from_numpy(corpus.spectra[group]))
            loss = loss + weight * part
            totals["spectral"].append(part.item())
        if weight := weights.get("masked", 0.0):
            part = _masked(random, tensors, corpus.table, (operators, kinds, features), encoder, objectives)
            loss = loss + weight * part
            totals["masked"].append(part.item())
        if not loss.requires_grad:  # a single graph has nobody to be compared with
            continue
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_([*encoder.parameters(), *objectives.parameters()], 1.0)
        optimizer.step()
    return {name: float(np.mean(values)) for name, values in totals.items() if values}


def _masked(
    random: np.random.Generator,
    tensors: Sequence[GraphTensors],
    table: NodeTable,
    columns: tuple[Ints, Ints, NDArray[np.float32]],
    encoder: GraphEncoder,
    objectives: Objectives,
) -> Tensor:
    """The masked loss of a third of the graphs, which is as telling as that of all and cheaper."""
    chosen = [tensors[i] for i in np.sort(random.permutation(len(tensors))[: (len(tensors) + 2) // 3])]
    hidden = [random.random(len(graph)) < _MASKED for graph in chosen]
    codes = [np.where(mask, 0, graph.codes) for graph, mask in zip(chosen, hidden, strict=True)]
    operators, kinds, features = columns
    batch: Batch = batch_of(chosen, operators, kinds, features, codes)
    mask = np.concatenate(hidden)
    if not mask.any():
        mask[0] = True
    true = np.concatenate([graph.codes for graph in chosen])[mask]
    states = encoder.nodes(batch)[torch.from_numpy(mask)]
    return objectives.masked(states, torch.from_numpy(operators[true]), torch.from_numpy(features[true]))


# -- files -------------------------------------------------------------------------------------------------------------


def save_encoder(path: str | os.PathLike[str], encoder: GraphEncoder, about: Mapping[str, Any]) -> None:
    """Writes an encoder's weights (float16) and configuration as safetensors; `about` tells how it was made."""
    from safetensors.torch import save

    arrays = {name: value.to(torch.float16).contiguous() for name, value in encoder.state_dict().items()}
    metadata = {"kind": _FORMAT, "config": json.dumps(encoder.describe()), "about": json.dumps(dict(about))}
    with replacing(path) as file:
        file.write(save(arrays, metadata))


def load_encoder(path: str | os.PathLike[str]) -> GraphEncoder:
    """The encoder that `save_encoder` wrote, ready to encode.

    Raises:
        CheckpointError: The file is missing, damaged or something else.
    """
    from safetensors import SafetensorError, safe_open

    file = Path(path)
    try:
        with safe_open(file, "pt") as stored:
            metadata = stored.metadata() or {}
            arrays = {name: stored.get_tensor(name).float() for name in stored.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{file}: cannot be read as a graph encoder ({error}); make it again") from error
    if metadata.get("kind") != _FORMAT:
        raise CheckpointError(f"{file}: is {metadata.get('kind')!r}, expected {_FORMAT!r}: give a file of save_encoder")
    try:
        encoder = GraphEncoder.described(json.loads(metadata["config"]))
        encoder.load_state_dict(arrays)
    except (RuntimeError, KeyError, ValueError, TypeError, ConfigError) as error:
        raise CheckpointError(f"{file}: does not fit its configuration ({error}); make it again") from error
    return encoder.eval()


def _keep(
    path: str | os.PathLike[str], run: _Run, both: nn.Module, optimizer: torch.optim.Optimizer, epoch: int
) -> None:
    from safetensors.torch import save

    arrays = {f"weights.{name}": value.contiguous() for name, value in both.state_dict().items()}
    for number, state in optimizer.state_dict()["state"].items():
        arrays |= {f"optimizer.{number}.{name}": value.contiguous() for name, value in state.items()}
    with replacing(path) as file:
        file.write(save(arrays, {"run": run.identity, "epoch": str(epoch)}))


def _resume(path: str | os.PathLike[str] | None, run: _Run, both: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Brings back the state that `_keep` wrote; the number of epochs done."""
    from safetensors import SafetensorError, safe_open

    if path is None or not Path(path).exists():
        return 0
    try:
        with safe_open(Path(path), "pt") as stored:
            metadata = stored.metadata() or {}
            arrays = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error}); delete it to start anew") from error
    if metadata.get("run") != run.identity:
        raise CheckpointError(
            f"{path}: is the state of another run (other graphs or options); delete it or name another"
        )
    both.load_state_dict(
        {name.removeprefix("weights."): a for name, a in arrays.items() if name.startswith("weights.")}
    )
    state: dict[int, dict[str, Tensor]] = {}
    for name, array in arrays.items():
        if name.startswith("optimizer."):
            _, number, part = name.split(".")
            state.setdefault(int(number), {})[part] = array
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    return int(metadata["epoch"])
