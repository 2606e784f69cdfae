"""What the neural heads share: layers, their training with AdamW, their way to disk."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .head import Floats, Head, HeadState
from .seeding import integer_seed
from .transforms import Scaler

if TYPE_CHECKING:
    import torch

Floats32 = NDArray[np.float32]
Loss = Callable[["torch.Tensor", "torch.Tensor", "torch.Tensor"], "torch.Tensor"]
"""Outputs (n,), labels (n,) and weights (n,) of a batch → the loss."""


@dataclass(frozen=True)
class Layers:
    """A multilayer perceptron with SiLU units, or c of them side by side, in plain numpy.

    Attributes:
        kernels: One (a, b) per layer, or (c, a, b).
        biases: One (b,) per layer, or (c, 1, b).
    """

    kernels: tuple[Floats32, ...]
    biases: tuple[Floats32, ...]

    def __call__(self, table: Floats) -> Floats:
        """Outputs (n,), or (c, n), of scaled rows (n, d)."""
        hidden = table
        for i, (kernel, bias) in enumerate(zip(self.kernels, self.biases, strict=True)):
            hidden = hidden @ kernel + bias
            if i < len(self.kernels) - 1:
                hidden = hidden / (1 + np.exp(-np.clip(hidden, -60, 60)))
        return np.asarray(hidden[..., 0], np.float64)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """What `restore` needs, as arrays."""
        pairs = enumerate(zip(self.kernels, self.biases, strict=True))
        return {f"{name}_{i}": array for i, pair in pairs for name, array in zip(("kernel", "bias"), pair, strict=True)}

    @classmethod
    def restore(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """The layers that wrote `arrays`."""
        depth = range(sum(key.startswith("kernel_") for key in arrays))
        parts = [tuple(np.asarray(arrays[f"{name}_{i}"], np.float32) for i in depth) for name in ("kernel", "bias")]
        return cls(parts[0], parts[1])


class NeuralHead(Head):
    """Base of the heads that are multilayer perceptrons on scaled features.

    SiLU units, a fixed number of steps with cosine decay (Loshchilov and Hutter 2017, 2019): there is no stopping by a
    validation set. Prediction is plain numpy and needs no torch.

    Attributes:
        stream: Name of the head's random numbers.
        limit: Scaled features are clipped to ± limit.
    """

    stream: ClassVar[str]
    width: int
    layers: int
    steps: int | None
    batch: int
    learning_rate: float
    weight_decay: float
    dropout: float
    noise: float
    limit: float = 4.0
    seed: int

    def _cluster(self, table: Floats) -> None:
        """Find clusters in the training rows, if the head has any."""

    def _shares(self, table: Floats) -> Floats | None:
        """Share (n, c) of each perceptron in each row's output; None: there is only one."""
        return None

    @abstractmethod
    def _loss(self, output: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor) -> torch.Tensor: ...

    def _rescale(self, output: Floats, labels: Floats, weights: Floats) -> None:
        """Bring outputs (n,) on the training rows to the scale of the labels, where the loss does not."""

    def _fit(self, table: Floats, labels: Floats, weights: Floats) -> None:
        self.scaler_ = Scaler.fit(table, limit=self.limit)
        self._cluster(table)
        self._train(table, labels, weights, None, self.steps, self.learning_rate)

    def finetune(
        self,
        X: ArrayLike,  # noqa: N803
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        *,
        steps: int = 100,
    ) -> Self:
        """A new head that goes on from this one's weights on other rows; scaling and clusters stay.

        Args:
            X: (n, d) features.
            y: (n,) labels; their scale may differ from that of the labels seen before.
            sample_weight: (n,) weights.
            steps: Gradient steps, at a quarter of the learning rate.

        Raises:
            sklearn.exceptions.NotFittedError: `fit` has not been called.
            ValueError: A shape does not fit, or a number is not finite.
        """
        self._check_fitted()
        table, labels, weights = self._checked(X, y, sample_weight, reset=False)
        tuned = copy(self)
        tuned._train(table, labels, weights, self.layers_, steps, self.learning_rate / 4)
        return tuned

    def _train(
        self,
        table: Floats,
        labels: Floats,
        weights: Floats,
        start: Layers | None,
        steps: int | None,
        learning_rate: float,
    ) -> None:
        self.mean_ = float(np.average(labels, weights=weights))
        deviation = float(np.sqrt(np.average((labels - self.mean_) ** 2, weights=weights)))
        self.scale_ = deviation if deviation > 1e-12 else 1.0
        scaled = self.scaler_(table)
        shares = self._shares(table)
        self.layers_ = self._descend(
            scaled, (labels - self.mean_) / self.scale_, weights, shares, start, steps, learning_rate
        )
        self._rescale(self._blended(scaled, shares), labels, weights)

    def _descend(
        self,
        scaled: Floats,
        labels: Floats,
        weights: Floats,
        shares: Floats | None,
        start: Layers | None,
        steps: int | None,
        learning_rate: float,
    ) -> Layers:
        import torch
        from torch.nn import functional

        threads = torch.get_num_threads()
        names = (self.stream,) if start is None else (self.stream, "finetune")
        random = torch.Generator().manual_seed(integer_seed(self.seed, *names))
        try:
            torch.set_num_threads(1)  # small products gain nothing from threads, and sums keep one order
            x, y, w = (torch.from_numpy(part.astype(np.float32)) for part in (scaled, labels, weights))
            share = None if shares is None else torch.from_numpy(shares.T.astype(np.float32))
            if start is None:
                kernels, biases = self._drawn(x.shape[1], None if share is None else len(share), random)
            else:
                kernels, biases = ([torch.from_numpy(a.copy()) for a in part] for part in (start.kernels, start.biases))
            for part in (*kernels, *biases):
                part.requires_grad_()
            optimizer = torch.optim.AdamW(
                [
                    {"params": kernels, "weight_decay": self.weight_decay},
                    {"params": biases, "weight_decay": 0.0},
                ],
                lr=learning_rate,
            )
            steps = steps or (200 if len(x) <= 150 else 600 if len(x) <= 4000 else 2000)
            schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
            order = torch.randperm(len(x), generator=random)
            at = 0
            for _ in range(steps):
                if len(x) <= self.batch:
                    rows = order
                else:
                    if at + self.batch > len(x):
                        order, at = torch.randperm(len(x), generator=random), 0
                    rows = order[at : at + self.batch]
                    at += self.batch
                hidden = x[rows]
                if self.noise:
                    hidden = hidden + self.noise * torch.randn(hidden.shape, generator=random)
                for i, (kernel, bias) in enumerate(zip(kernels, biases, strict=True)):
                    hidden = hidden @ kernel + bias
                    if i < len(kernels) - 1:
                        hidden = functional.silu(hidden)
                        if self.dropout:
                            keep = torch.rand(hidden.shape, generator=random) >= self.dropout
                            hidden = hidden * keep / (1 - self.dropout)
                output = hidden[..., 0] if share is None else (share[:, rows] * hidden[..., 0]).sum(0)
                loss = self._loss(output, y[rows], w[rows])
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                schedule.step()
            return Layers(
                tuple(kernel.detach().numpy().copy() for kernel in kernels),
                tuple(bias.detach().numpy().copy() for bias in biases),
            )
        finally:
            torch.set_num_threads(threads)

    def _drawn(
        self, columns: int, clusters: int | None, random: torch.Generator
    ) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Kernels and biases to start from."""
        import torch

        sizes = [columns, *[self.width] * self.layers, 1]
        several = () if clusters is None else (clusters,)
        row = () if clusters is None else (clusters, 1)
        kernels = [
            torch.randn(*several, a, b, generator=random) * (0.1 if b == 1 else 1.0) * a**-0.5
            for a, b in pairwise(sizes)
        ]
        return kernels, [torch.zeros(*row, b) for b in sizes[1:]]

    def _blended(self, scaled: Floats, shares: Floats | None) -> Floats:
        output = self.layers_(scaled)
        return output if shares is None else np.asarray((shares.T * output).sum(0), np.float64)

    def _predict(self, table: Floats) -> Floats:
        return self._blended(self.scaler_(table), self._shares(table)) * self.scale_ + self.mean_

    def _state(self) -> HeadState:
        return HeadState({"mean": self.mean_, "scale": self.scale_}, {**self.scaler_.arrays(), **self.layers_.arrays()})

    def _restore(self, state: HeadState) -> None:
        self.mean_, self.scale_ = float(state.values["mean"]), float(state.values["scale"])
        self.scaler_ = Scaler.restore(state.arrays)
        self.layers_ = Layers.restore(state.arrays)
