"""A scorer that learns which of two networks is better, as a head."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .fuzzy_head import FuzzyHead
from .head import Floats, register_head

if TYPE_CHECKING:
    from torch import Tensor


@register_head("pairwise")
class PairwiseHead(FuzzyHead):
    """A multilayer perceptron s(x) with the pairwise logistic loss: P(a is better than b) = σ(s(a) - s(b)).

    The loss is the mean of log(1 + exp(s(b) - s(a))) over the pairs of a batch in which a has the higher label
    (Bradley and Terry 1952; Burges et al. 2005). Scores are brought to the scale of the labels by least squares.

    Args:
        clusters: 1: one perceptron. More, or None (chosen without labels): one per fuzzy cluster, blended.
        fuzzifier: None: chosen without labels.
        width: Units of each hidden layer of each perceptron.
        layers: Hidden layers; 0 makes s linear.
        steps: Gradient steps; None: 200 up to 150 rows, 600 up to 4,000, else 2000.
        batch: Rows per step, all of which are paired; all rows when there are fewer.
        learning_rate: Largest learning rate.
        weight_decay: Decoupled weight decay.
        dropout: Share of hidden units dropped in training.
        noise: Standard deviation of the noise added to scaled features in training.
        seed: Seed of the clusters, the weights, the batches, the dropout and the noise.
    """

    stream = "pairwise"

    def __init__(
        self,
        clusters: int | None = 1,
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
        return pairwise_logistic(output, labels, weights)

    def _rescale(self, output: Floats, labels: Floats, weights: Floats) -> None:
        centre = float(np.average(output, weights=weights))
        apart = weights * (output - centre)
        power = float(apart @ (output - centre))
        self.scale_ = max(float(apart @ labels) / power, 0.0) if power > 1e-12 else 0.0
        self.mean_ = float(np.average(labels, weights=weights)) - self.scale_ * centre


def pairwise_logistic(output: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """Mean over all pairs of different labels, weighted by the product of their weights, of the logistic loss.

    Args:
        output: (n,) scores.
        labels: (n,) labels.
        weights: (n,) weights.
    """
    from torch.nn import functional

    share = (labels[:, None] > labels) * (weights[:, None] * weights)
    loss = functional.softplus(output - output[:, None])
    return (share * loss).sum() / share.sum().clamp_min(1e-12)
