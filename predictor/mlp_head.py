"""A multilayer perceptron as a head."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .head import register_head
from .neural_head import NeuralHead

if TYPE_CHECKING:
    from torch import Tensor


@register_head("mlp")
class MLPHead(NeuralHead):
    """A small multilayer perceptron on scaled features, trained on all rows with AdamW and a squared loss.

    Args:
        width: Units of each hidden layer.
        layers: Hidden layers.
        steps: Gradient steps; None: 200 up to 150 rows, 600 up to 4,000, else 2000.
        batch: Rows per step; all of them when there are fewer.
        learning_rate: Largest learning rate.
        weight_decay: Decoupled weight decay.
        dropout: Share of hidden units dropped in training.
        noise: Standard deviation of the noise added to scaled features in training.
        limit: Scaled features are clipped to ± limit; the smaller, the less is extrapolated.
        seed: Seed of the weights, the batches, the dropout and the noise.
    """

    stream = "mlp"

    def __init__(
        self,
        width: int = 96,
        layers: int = 2,
        steps: int | None = None,
        batch: int = 256,
        learning_rate: float = 4e-3,
        weight_decay: float = 0.3,
        dropout: float = 0.1,
        noise: float = 0.05,
        limit: float = NeuralHead.limit,
        seed: int = 0,
    ) -> None:
        self.width, self.layers, self.steps, self.batch = width, layers, steps, batch
        self.learning_rate, self.weight_decay = learning_rate, weight_decay
        self.dropout, self.noise, self.limit, self.seed = dropout, noise, limit, seed

    def _loss(self, output: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
        return (weights * (output - labels) ** 2).mean()
