"""A graph neural network trained end to end: the k-GNN that GENNAPE compares with, and the other backbones."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from copy import copy, deepcopy
from hashlib import sha256
from pathlib import Path
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..datasets.benchmark import Benchmark
from ..encoders.errors import CheckpointError, ConfigError, DataError, NotFittedError
from ..encoders.files import replacing
from ..encoders.gnn import GraphEncoder
from ..encoders.graph import ArchGraph
from ..encoders.graph_tensors import Batch, NodeTable, batch_of, by_node_budget, tensors_of
from .pairwise_head import pairwise_logistic
from .seeding import generator, integer_seed
from .transforms import space_weights

Floats = NDArray[np.float64]

LOSSES = ("squared", "pairwise")
NODE_BUDGET = 16_000
"""Nodes of one batch when graphs are scored."""
FINETUNE_EPOCHS = 100


class GraphRanker:
    """Graphs → one number each by message passing and a perceptron of four layers, trained together.

    The defaults are those of the baseline in Mills et al. (2023): six rounds of GraphConv with tanh on 32 numbers per
    node, their mean over the nodes, squared loss on standardised accuracies, Adam with a learning rate of 1e-4, batches
    of 32 graphs, 40 epochs. Node features are archgauge's, which are richer than theirs.

    Args:
        backbone: Name of a backbone, see `encoders.gnn.BACKBONES`; all but `kgnn` keep the encoder's own readout.
        loss: "squared", or "pairwise": the logistic loss of pairs of one benchmark within a batch.
        width: Numbers per node.
        epochs: Passes over the training graphs.
        batch: Graphs per step.
        learning_rate: Learning rate.
        seed: Seed of the weights, the batches and the dropout.

    Raises:
        ConfigError: An option has no such value or is out of range.
    """

    def __init__(
        self,
        backbone: str = "kgnn",
        *,
        loss: str = "squared",
        width: int = 32,
        epochs: int = 40,
        batch: int = 32,
        learning_rate: float = 1e-4,
        seed: int = 0,
    ) -> None:
        if loss not in LOSSES:
            raise ConfigError(f"loss is {loss!r}, expected one of {', '.join(LOSSES)}")
        if min(width, epochs, batch) < 1 or not learning_rate > 0 or seed < 0:
            raise ConfigError(
                f"width, epochs, batch, learning_rate and seed are {width}, {epochs}, {batch}, {learning_rate} and "
                f"{seed}, expected at least 1, 1, 1, more than 0 and 0"
            )
        self.backbone, self.loss, self.width, self.epochs = backbone, loss, width, epochs
        self.batch, self.learning_rate, self.seed = batch, learning_rate, seed
        with _seeded(seed, "weights"):
            self._model = _Model(backbone, width)
        self._scale: tuple[float, float] | None = None
        """Mean and deviation of the accuracies trained on; of several benchmarks (0, 1)."""
        self._percent = False

    def __repr__(self) -> str:
        state = "not fitted" if self._scale is None else "fitted"
        return f"GraphRanker({self.backbone!r}, loss={self.loss!r}, width={self.width}, seed={self.seed}, {state})"

    def fit(
        self,
        benchmarks: Benchmark | Sequence[Benchmark],
        *,
        checkpoint: str | os.PathLike[str] | None = None,
        progress: bool = False,
    ) -> Self:
        """Train from new weights. Labels are standardised within each benchmark, one of n networks counts as n^½.

        Args:
            benchmarks: One or several.
            checkpoint: File that is rewritten after every epoch; if it is there already, training goes on from it and
                ends with the weights it would have ended with without the interruption.
            progress: Show a progress bar.

        Raises:
            DataError: There is no benchmark.
            CheckpointError: The checkpoint is damaged, or that of other options or data.
        """
        given = [benchmarks] if isinstance(benchmarks, Benchmark) else list(benchmarks)
        if not given:
            raise DataError("fit needs at least one benchmark, got none")
        with _seeded(self.seed, "weights"):
            self._model = _Model(self.backbone, self.width)
        self._train(given, self.epochs, checkpoint, progress)
        return self

    def finetune(
        self,
        few: Benchmark,
        *,
        epochs: int = FINETUNE_EPOCHS,
        checkpoint: str | os.PathLike[str] | None = None,
        progress: bool = False,
    ) -> GraphRanker:
        """A new ranker for one benchmark that goes on from this one's weights; this one is left as it is.

        Args:
            few: Networks with labels.
            epochs: Passes over them.
            checkpoint: As for `fit`.
            progress: Show a progress bar.

        Raises:
            NotFittedError: This ranker is not fitted.
        """
        self._check_fitted()
        tuned = copy(self)
        tuned._model = deepcopy(self._model)
        tuned._train([few], epochs, checkpoint, progress)
        return tuned

    def rank_scores(self, graphs: Sequence[ArchGraph]) -> Floats:
        """Scores (n,), larger is better; a network's score depends on no other network.

        Raises:
            NotFittedError: This ranker is not fitted.
        """
        self._check_fitted()
        table = NodeTable()
        tensors = [tensors_of(graph, table) for graph in graphs]
        result = np.empty(len(tensors))
        self._model.eval()
        with torch.inference_mode():
            for group in by_node_budget([len(each) for each in tensors], NODE_BUDGET):
                batch = batch_of([tensors[i] for i in group], table.operators, table.kinds, table.features)
                result[group] = self._model(batch).double().numpy()
        return result

    def accuracy(self, graphs: Sequence[ArchGraph]) -> Floats:
        """Accuracies (n,) in percent on the task of the one benchmark trained on.

        Raises:
            NotFittedError: This ranker is not fitted.
            ConfigError: It was trained on several benchmarks, on labels that are no percentages, or on ranks only.
        """
        scores = self.rank_scores(graphs)
        if not self._percent or self._scale is None:
            raise ConfigError(
                "this ranker gives no accuracies: it was trained on several benchmarks, on labels that are not in "
                "percent, or with a pairwise loss; train it on one benchmark with loss='squared'"
            )
        mean, deviation = self._scale
        return np.clip(scores * deviation + mean, 0, 100)

    def _check_fitted(self) -> None:
        if self._scale is None:
            raise NotFittedError("this ranker is not fitted: call fit(benchmarks)")

    def _train(
        self,
        benchmarks: Sequence[Benchmark],
        epochs: int,
        checkpoint: str | os.PathLike[str] | None,
        progress: bool,
    ) -> None:
        table = NodeTable()
        tensors = [tensors_of(graph, table) for bench in benchmarks for graph in bench.graphs]
        operators, kinds, features = table.operators, table.kinds, table.features
        sizes = [len(bench) for bench in benchmarks]
        owner = np.repeat(np.arange(len(benchmarks)), sizes)
        scales = [(float(b.accuracy.mean()), float(b.accuracy.std()) or 1.0) for b in benchmarks]
        labels = np.concatenate([(b.accuracy - m) / s for b, (m, s) in zip(benchmarks, scales, strict=True)])
        weights = np.repeat(space_weights(sizes), sizes)
        y, w = (torch.from_numpy(values.astype(np.float32)) for values in (labels, weights))

        optimizer = torch.optim.Adam(self._model.parameters(), lr=self.learning_rate)
        run = self._fingerprint(benchmarks, epochs)
        done = 0
        if checkpoint is not None and Path(checkpoint).exists():
            done = _resume(Path(checkpoint), self._model, optimizer, run)
        self._model.train()
        for epoch in _tracked(range(done, epochs), self.backbone, progress):
            order = generator(self.seed, "epoch", epoch).permutation(len(tensors))
            with _seeded(self.seed, "dropout", epoch):
                for start in range(0, len(order), self.batch):
                    rows = order[start : start + self.batch]
                    output = self._model(batch_of([tensors[i] for i in rows], operators, kinds, features))
                    loss = self._loss(output, y[rows], w[rows], owner[rows])
                    optimizer.zero_grad()
                    loss.backward()  # type: ignore[no-untyped-call]
                    optimizer.step()
            if checkpoint is not None:
                _save(Path(checkpoint), self._model, optimizer, run, epoch + 1)
        self._model.eval()
        alone = len(benchmarks) == 1
        self._scale = scales[0] if alone else (0.0, 1.0)
        self._percent = alone and benchmarks[0].unit == "percent" and self.loss == "squared"

    def _loss(self, output: Tensor, labels: Tensor, weights: Tensor, owner: NDArray[np.intp]) -> Tensor:
        if self.loss == "squared":
            return (weights * (output - labels) ** 2).mean()
        rows = [torch.from_numpy(np.flatnonzero(owner == each)) for each in np.unique(owner)]
        parts = [len(at) / len(owner) * pairwise_logistic(output[at], labels[at], weights[at]) for at in rows]
        return torch.stack(parts).sum()

    def _fingerprint(self, benchmarks: Sequence[Benchmark], epochs: int) -> str:
        """Hash of everything that decides what training gives."""
        options = [self.backbone, self.loss, self.width, epochs, self.batch, self.learning_rate, self.seed]
        data = [[b.hashes, b.accuracy.tolist()] for b in benchmarks]
        digest = sha256(json.dumps([options, data]).encode())
        for name, value in sorted(self._model.state_dict().items()):
            digest.update(name.encode() + value.numpy().tobytes())
        return digest.hexdigest()


class _Model(nn.Module):
    def __init__(self, backbone: str, width: int) -> None:
        super().__init__()
        paper = backbone == "kgnn"
        self.encoder = GraphEncoder(backbone=backbone, width=width, dropout=0.0 if paper else 0.1)
        layers: list[nn.Module] = []
        if paper:
            self.encoder.readout = _Mean()  # type: ignore[assignment]
            layers += [nn.Linear(width, width), nn.ReLU()]
        else:
            wide = self.encoder.config.embedding
            layers += [nn.LayerNorm(wide), nn.Linear(wide, width), nn.ReLU()]
        for _ in range(2):
            layers += [nn.Linear(width, width), nn.ReLU()]
        self.regressor = nn.Sequential(*layers, nn.Linear(width, 1))

    def forward(self, batch: Batch) -> Tensor:
        return self.regressor(self.encoder(batch))[:, 0]  # type: ignore[no-any-return]


class _Mean(nn.Module):
    """Mean over the nodes of each graph."""

    def forward(self, x: Tensor, batch: Batch) -> Tensor:
        count = torch.from_numpy(np.bincount(batch.owner, minlength=batch.size).astype(np.float32))
        total = x.new_zeros(batch.size, x.shape[1]).index_add(0, torch.from_numpy(batch.owner), x)
        return total / count[:, None]


@contextmanager
def _seeded(seed: int, *names: str | int) -> Iterator[None]:
    """The random numbers of a part of the run, for layers that draw from torch's own; the caller's are left alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(integer_seed(seed, *names))
        yield


def _save(path: Path, model: nn.Module, optimizer: torch.optim.Adam, run: str, epoch: int) -> None:
    from safetensors.torch import save

    tensors = {f"model.{name}": value.contiguous() for name, value in model.state_dict().items()}
    for name, parameter in model.named_parameters():
        moments = optimizer.state.get(parameter, {})
        tensors |= {f"{key}.{name}": value for key, value in moments.items()}
    with replacing(path) as file:
        file.write(save(tensors, metadata={"run": run, "epoch": str(epoch)}))


def _resume(path: Path, model: nn.Module, optimizer: torch.optim.Adam, run: str) -> int:
    """Brings model and optimizer to where the checkpoint left them; returns the epochs done."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as stored:
            metadata = stored.metadata() or {}
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118  (no mapping)
        epoch = int(metadata["epoch"])
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise CheckpointError(f"{path}: not a readable checkpoint ({error}): remove it to start again") from error
    if metadata.get("run") != run:
        raise CheckpointError(
            f"{path}: is a checkpoint of other options, other data or another seed: remove it, or name another file"
        )
    model.load_state_dict({key.removeprefix("model."): t for key, t in tensors.items() if key.startswith("model.")})
    for name, parameter in model.named_parameters():
        keys = ("step", "exp_avg", "exp_avg_sq")
        if all(f"{key}.{name}" in tensors for key in keys):
            optimizer.state[parameter] = {key: tensors[f"{key}.{name}"] for key in keys}
    return epoch


def _tracked(epochs: range, name: str, progress: bool) -> Iterable[int]:
    if not progress:
        return epochs
    from rich.progress import track

    return track(epochs, description=f"{name} (epochs)")
