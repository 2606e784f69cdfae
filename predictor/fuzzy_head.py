"""One multilayer perceptron per cluster of networks, blended by membership, as a head."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .fuzzy import FuzzyMeans
from .head import Floats, HeadState, register_head
from .neural_head import NeuralHead

if TYPE_CHECKING:
    from torch import Tensor


class FuzzyHead(NeuralHead):
    """Base of the neural heads that may have a perceptron per fuzzy cluster: Σ_j u_j(x) f_j(x), trained jointly.

    Mills et al. (2023, sec. 4.2) have one for each cluster of the embeddings of their training space; networks of other
    spaces belong to the same clusters.
    """

    clusters: int | None
    fuzzifier: float | None
    fuzzy_: FuzzyMeans | None

    def _cluster(self, table: Floats) -> None:
        self.fuzzy_ = None
        if self.clusters != 1:
            self.fuzzy_ = FuzzyMeans.fit(table, clusters=self.clusters, fuzzifier=self.fuzzifier, seed=self.seed)

    def _shares(self, table: Floats) -> Floats | None:
        return None if self.fuzzy_ is None else self.fuzzy_.memberships(table)

    def _state(self) -> HeadState:
        state = super()._state()
        if self.fuzzy_ is not None:
            state.arrays.update({f"fuzzy_{key}": array for key, array in self.fuzzy_.arrays().items()})
        return state

    def _restore(self, state: HeadState) -> None:
        super()._restore(state)
        arrays = {key.removeprefix("fuzzy_"): a for key, a in state.arrays.items() if key.startswith("fuzzy_")}
        self.fuzzy_ = FuzzyMeans.restore(arrays) if arrays else None


@register_head("fuzzy_mlp")
class FuzzyMLPHead(FuzzyHead):
    """One perceptron per fuzzy cluster of the training rows, blended by membership, with a squared loss.

    Args:
        clusters: Number of clusters; None: chosen without labels, see `FuzzyMeans.fit`.
        fuzzifier: None: chosen without labels.
        width: Units of each hidden layer of each perceptron.
        layers: Hidden layers.
        steps: Gradient steps; None: 200 up to 150 rows, 600 up to 4,000, else 2000.
        batch: Rows per step; all of them when there are fewer.
        learning_rate: Largest learning rate.
        weight_decay: Decoupled weight decay.
        dropout: Share of hidden units dropped in training.
        noise: Standard deviation of the noise added to scaled features in training.
        seed: Seed of the clusters, the weights, the batches, the dropout and the noise.
    """

    stream = "fuzzy_mlp"

    def __init__(
        self,
        clusters: int | None = None,
        fuzzifier: float | None = None,
        width: int = 96,
        layers: int = 2,
        steps: int | None = None,
        batch: int = 256,
        learning_rate: float = 4e-3,
        weight_decay: float = 0.3,
        dropout: float = 0.1,
        noise: float = 0.05,
        seed: int = 0,
    ) -> None:
        self.clusters, self.fuzzifier = clusters, fuzzifier
        self.width, self.layers, self.steps, self.batch = width, layers, steps, batch
        self.learning_rate, self.weight_decay = learning_rate, weight_decay
        self.dropout, self.noise, self.seed = dropout, noise, seed

    def _loss(self, output: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
        return (weights * (output - labels) ** 2).mean()
