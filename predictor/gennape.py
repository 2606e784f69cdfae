"""The ensemble of GENNAPE (Mills et al. 2023), with all of its six members, as a preset.

Its published code has neither the contrastive encoder nor the fuzzy or pairwise heads. What the paper leaves open
(sizes, number of clusters, optimiser) is archgauge's choice, and so is the encoder.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self, cast

import numpy as np
from numpy.typing import NDArray

from ..datasets.benchmark import Benchmark
from ..datasets.cache import default_cache_dir
from ..datasets.graph_store import GraphStore
from ..encoders.errors import ConfigError, DataError, NotFittedError
from ..encoders.graph import ArchGraph
from ..encoders.names import look_up
from ..encoders.registry import Encoder, encode_table, get_encoder
from .heads import make_head
from .label_transform import FlopsTransform
from .metrics import kendall
from .ranker import register_ranker
from .seeding import integer_seed
from .transforms import space_weights

if TYPE_CHECKING:
    from .graph_ranker import GraphRanker
    from .neural_head import NeuralHead

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Embedded:
    """A member that is a head on embeddings.

    Attributes:
        head: Name of the head.
        clusters: Fuzzy clusters, each with its own perceptron: 1, or None for a number chosen without labels.
        transformed: Whether it learns accuracies transformed by FLOPs.
    """

    head: str
    clusters: int | None
    transformed: bool


EMBEDDED: Mapping[str, Embedded] = {
    "cl_fcm_t": Embedded("fuzzy_mlp", None, True),
    "cl_t": Embedded("fuzzy_mlp", 1, True),
    "cl_pairwise": Embedded("pairwise", 1, False),
    "cl_pairwise_fcm": Embedded("pairwise", None, False),
    "cl_fcm": Embedded("fuzzy_mlp", None, False),
    "cl": Embedded("fuzzy_mlp", 1, False),
}
"""Members on embeddings; the last two are not among the six, and are there to compare with."""
MEMBERS = ("cl_fcm_t", "cl_t", "cl_pairwise", "cl_pairwise_fcm", "kgnn", "flops")
"""The six members of the paper's ensemble."""
_KNOWN = dict.fromkeys((*EMBEDDED, "kgnn", "flops"))


class Gennape:
    """Six predictors, averaged.

    Two perceptrons on embeddings with FLOPs-transformed labels, one of them per fuzzy cluster (`cl_fcm_t`, `cl_t`); two
    pairwise classifiers on embeddings (`cl_pairwise`, `cl_pairwise_fcm`); a graph neural network trained end to end
    (`kgnn`); and the FLOPs alone (`flops`), as multiply-accumulates.

    Args:
        encoder: Name of the encoder whose rows are the embeddings, or an encoder.
        members: Names of the members, see `MEMBERS` and `EMBEDDED`.
        seed: Seed of everything.
        cache: Folder that keeps encoded networks between runs, or None.

    Raises:
        ConfigError: There is no such encoder or member, or a member is named twice.
    """

    def __init__(
        self,
        encoder: str | Encoder = "graph",
        seed: int = 0,
        members: Sequence[str] = MEMBERS,
        *,
        cache: str | os.PathLike[str] | None = None,
    ) -> None:
        for name in members:
            look_up(_KNOWN, name, "member")
        if not members or len(set(members)) < len(members):
            raise ConfigError(f"members are {tuple(members)}, expected one or more different names")
        if seed < 0:
            raise ConfigError(f"seed is {seed}, expected 0 or more")
        self.encoder = get_encoder(encoder) if isinstance(encoder, str) else encoder
        self.seed, self.members, self.cache = seed, tuple(members), cache
        self._heads: dict[str, NeuralHead] = {}
        self._ranker: GraphRanker | None = None
        self._transforms: tuple[FlopsTransform, ...] = ()
        self._centres, self._scales = np.zeros(len(self.members)), np.ones(len(self.members))
        self._weights = np.full(len(self.members), 1 / len(self.members))
        self._percent = False

    @property
    def weights(self) -> dict[str, float]:
        """Share of every member; they sum to 1."""
        return dict(zip(self.members, self._weights.tolist(), strict=True))

    def fit(self, benchmarks: Benchmark | Sequence[Benchmark], *, progress: bool = False) -> Self:
        """Train the members; their scores count equally.

        Of several benchmarks, labels are standardised within each, and one of n networks counts as n^½.

        Args:
            benchmarks: One, as in the paper, or several.
            progress: Show progress bars.

        Raises:
            DataError: There is no benchmark.
        """
        given = [benchmarks] if isinstance(benchmarks, Benchmark) else list(benchmarks)
        if not given:
            raise DataError("fit needs at least one benchmark, got none")
        self._learn(given, None, progress)
        self._weights = np.full(len(self.members), 1 / len(self.members))
        return self

    def finetune(self, few: Benchmark, *, progress: bool = False) -> Gennape:
        """A new ensemble for one benchmark, its members trained on from this one's; this one is left as it is.

        The members' shares are the softmax of their Kendall τ-b on the few (ibid., sec. 5.3).

        Args:
            few: Networks with labels; 50 in the paper.
            progress: Show progress bars.

        Raises:
            NotFittedError: This ensemble is not fitted.
        """
        self._check_fitted()
        tuned = copy(self)
        scores = tuned._learn([few], self, progress)
        quality = np.nan_to_num([kendall(few.accuracy, row) for row in scores])
        shares = np.exp(quality)
        tuned._weights = shares / shares.sum()
        return tuned

    def rank_scores(self, graphs: Sequence[ArchGraph]) -> Floats:
        """Scores (n,), larger is better; a network's score depends on no other network.

        The members' scores are standardised by their mean and deviation on the training networks.

        Raises:
            NotFittedError: This ensemble is not fitted.
        """
        return self._blended(self.member_scores(graphs), self._centres, self._scales)

    def pool_scores(self, graphs: Sequence[ArchGraph]) -> Floats:
        """Scores (n,) within this pool (transductive): the members' scores are standardised over these networks.

        All members then count alike among them, however far they are from the training networks.

        Raises:
            NotFittedError: This ensemble is not fitted.
        """
        scores = self.member_scores(graphs)
        return self._blended(scores, *_spread(scores)) if len(graphs) else np.zeros(0)

    def member_scores(self, graphs: Sequence[ArchGraph]) -> Floats:
        """Score of every member, (m, n), each on its own scale, in the order of `members`.

        Raises:
            NotFittedError: This ensemble is not fitted.
        """
        self._check_fitted()
        return self._scores(graphs, self._table(graphs), self._macs(graphs))

    def accuracy(self, graphs: Sequence[ArchGraph]) -> Floats:
        """Accuracies (n,) in percent on the task of the one benchmark trained on: mean of the members that give them.

        Raises:
            NotFittedError: This ensemble is not fitted.
            ConfigError: It was trained on several benchmarks, on labels that are not in percent, or no member gives
                accuracies.
        """
        scores = self.member_scores(graphs)
        found = [row for name, row in zip(self.members, scores, strict=True) if _transformed(name)]
        if not self._percent or not (found or self._ranker):
            raise ConfigError(
                "this ensemble gives no accuracies: train it on one benchmark with labels in percent, and keep one of "
                "the members cl_fcm_t, cl_t and kgnn"
            )
        if self._ranker is not None:
            found.append(self._ranker.accuracy(graphs))
        return np.asarray(np.clip(np.mean(found, axis=0), 0, 100), np.float64)

    def _blended(self, scores: Floats, centres: Floats, scales: Floats) -> Floats:
        return np.asarray(self._weights @ ((scores - centres[:, None]) / scales[:, None]), np.float64)

    def _check_fitted(self) -> None:
        if not self._transforms:
            raise NotFittedError("this ensemble is not fitted: call fit(benchmarks)")

    def _learn(self, benchmarks: Sequence[Benchmark], before: Gennape | None, progress: bool) -> Floats:
        """Trains the members, from those of `before` if given; returns their scores on the training networks (m, n)."""
        graphs = [graph for bench in benchmarks for graph in bench.graphs]
        macs = self._macs(graphs)
        sizes = [len(bench) for bench in benchmarks]
        parts = np.split(macs, np.cumsum(sizes)[:-1])
        transforms = [FlopsTransform.fit(b.accuracy, part) for b, part in zip(benchmarks, parts, strict=True)]
        transformed = [t(b.accuracy, part) for t, b, part in zip(transforms, benchmarks, parts, strict=True)]
        plain = [(b.accuracy - b.accuracy.mean()) / (float(b.accuracy.std()) or 1.0) for b in benchmarks]
        labels = {True: np.concatenate(transformed), False: np.concatenate(plain)}
        weights = np.repeat(space_weights(sizes), sizes)
        table = self._table(graphs, [key for bench in benchmarks for key in bench.hashes], progress)
        heads: dict[str, NeuralHead] = {}
        for name in self.members:
            if name in EMBEDDED:
                target = labels[EMBEDDED[name].transformed]
                if before is None:
                    heads[name] = _new_head(name, self.seed).fit(table, target, weights)
                else:
                    heads[name] = before._heads[name].finetune(table, target, weights)
        ranker = None
        if "kgnn" in self.members:
            from .graph_ranker import GraphRanker

            if before is None or before._ranker is None:
                ranker = GraphRanker(seed=integer_seed(self.seed, "kgnn")).fit(benchmarks, progress=progress)
            else:
                ranker = before._ranker.finetune(benchmarks[0], progress=progress)
        self._heads, self._ranker, self._transforms = heads, ranker, tuple(transforms)
        self._percent = len(benchmarks) == 1 and benchmarks[0].unit == "percent"
        scores = self._scores(graphs, table, macs)
        self._centres, self._scales = _spread(scores)
        return scores

    def _scores(self, graphs: Sequence[ArchGraph], table: Floats, macs: Floats) -> Floats:
        rows = []
        for name in self.members:
            if name == "flops":
                row = np.log10(macs + 1)
            elif name == "kgnn":
                assert self._ranker is not None
                row = self._ranker.rank_scores(graphs)
            else:
                row = self._heads[name].predict(table) if len(table) else np.zeros(0)
                if EMBEDDED[name].transformed:  # of several benchmarks: the mean of what each says
                    row = np.mean([transform.inverse(row, macs) for transform in self._transforms], axis=0)
            rows.append(row)
        return np.stack(rows)

    def _table(
        self, graphs: Sequence[ArchGraph], hashes: Sequence[str] | None = None, progress: bool = False
    ) -> Floats:
        if not any(name in EMBEDDED for name in self.members):
            return np.zeros((len(graphs), 0))
        if hashes is None and isinstance(graphs, GraphStore):  # which are not read if their rows are in the cache
            hashes = graphs.hashes
        return encode_table(graphs, self.encoder, hashes=hashes, cache=self.cache, progress=progress)

    @staticmethod
    def _macs(graphs: Sequence[ArchGraph]) -> Floats:
        return np.array([graph.macs for graph in graphs], np.float64)


@register_ranker("gennape")
def _gennape(seed: int) -> Gennape:
    """The preset on the graph encoder."""
    return Gennape(seed=seed, cache=default_cache_dir())


@register_ranker("k-gnn")
def _kgnn(seed: int) -> GraphRanker:
    """The end-to-end baseline with the paper's settings."""
    from .graph_ranker import GraphRanker

    return GraphRanker(seed=seed)


def _transformed(name: str) -> bool:
    return name in EMBEDDED and EMBEDDED[name].transformed


def _new_head(name: str, seed: int) -> NeuralHead:
    member = EMBEDDED[name]
    head = make_head(member.head, seed=integer_seed(seed, name), options={"clusters": member.clusters})
    return cast("NeuralHead", head)


def _spread(scores: Floats) -> tuple[Floats, Floats]:
    """Mean and standard deviation (m,) of every member's scores (m, n); 1 for those that are constant."""
    deviations = scores.std(axis=1)
    return scores.mean(axis=1), np.where(deviations > 1e-12, deviations, 1.0)
