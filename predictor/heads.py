"""Heads: small regressors from a row of features to a label, in scikit-learn's contract, saved as arrays and text.

Every head is a scikit-learn regressor: the constructor stores its arguments, `fit(X, y, sample_weight=None)` returns
self, `predict(X)` gives (n,) float64. Beyond that it has `state` and `restore`, which take the fitted model apart into
JSON values, arrays and text, so that nothing is ever pickled. The same seed gives the same bytes.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, ClassVar, Self, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils.validation import (
    _check_sample_weight,
    check_is_fitted,
    validate_data,
)

from ..encoders.errors import ConfigError
from ..encoders.names import look_up, take_name
from .seeding import integer_seed
from .transforms import Scaler

Floats = NDArray[np.float64]
Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class HeadState:
    """A fitted head taken apart.

    Attributes:
        values: JSON values.
        arrays: Arrays of float32, float64 or int32.
        text: A text model (LightGBM), or "".
    """

    values: dict[str, Any] = field(default_factory=dict)
    arrays: dict[str, NDArray[Any]] = field(default_factory=dict)
    text: str = ""


class Head(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """Base of the heads.

    Attributes:
        seeded: Whether members with different seeds differ; an ensemble needs only one member of a head that is not.
        takes_monotone: Whether the constructor takes `monotone`, one 0 or +1 per column.
        n_features_in_: Columns seen by `fit`.
    """

    seeded: ClassVar[bool] = True
    takes_monotone: ClassVar[bool] = False
    n_features_in_: int

    def fit(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:  # noqa: N803
        """Learn from features (n, d), labels (n,) and weights (n,) of which the mean is made 1.

        Raises:
            ValueError: A shape does not fit, or a number is not finite.
        """
        table, labels = validate_data(self, X, y, dtype=np.float64, y_numeric=True)
        weights = _check_sample_weight(sample_weight, table, dtype=np.float64, ensure_non_negative=True)
        total = float(weights.sum())
        weights = weights / (total / len(weights)) if total > 0 else np.ones(len(weights))
        self._fit(table, np.asarray(labels, np.float64), weights)
        self.fitted_ = True
        return self

    def predict(self, X: ArrayLike) -> Floats:  # noqa: N803
        """Labels (n,) of features (n, d).

        Raises:
            sklearn.exceptions.NotFittedError: `fit` has not been called.
            ValueError: A shape does not fit, or a number is not finite.
        """
        check_is_fitted(self, "fitted_")
        return self._predict(validate_data(self, X, dtype=np.float64, reset=False))

    @abstractmethod
    def _fit(self, table: Floats, labels: Floats, weights: Floats) -> None: ...

    @abstractmethod
    def _predict(self, table: Floats) -> Floats: ...

    @abstractmethod
    def _state(self) -> HeadState: ...

    @abstractmethod
    def _restore(self, state: HeadState) -> None: ...

    def state(self) -> HeadState:
        """The fitted head taken apart: constructor arguments, learned values, arrays and text."""
        check_is_fitted(self, "fitted_")
        inner = self._state()
        values = {"params": self.get_params(), "n_features": self.n_features_in_, **inner.values}
        return HeadState(values, inner.arrays, inner.text)

    @classmethod
    def restore(cls, state: HeadState) -> Self:
        """The head that gave `state`; it predicts the same numbers."""
        head = cls(**state.values["params"])
        head.n_features_in_ = int(state.values["n_features"])
        head._restore(state)
        head.fitted_ = True
        return head


AnyHead = TypeVar("AnyHead", bound=type[Head])
HEADS: dict[str, type[Head]] = {}
"""Name → class of head."""


def register_head(name: str) -> Callable[[AnyHead], AnyHead]:
    """Class decorator that enters a head under `name`.

    Raises:
        ConfigError: The name is taken.
    """

    def enter(head: AnyHead) -> AnyHead:
        take_name(HEADS, name, head, "a head")
        return head

    return enter


def head_class(name: str) -> type[Head]:
    """The class of the head called `name`.

    Raises:
        ConfigError: There is none; the message lists those there are.
    """
    return look_up(HEADS, name, "head")


def make_head(
    name: str, *, seed: int = 0, monotone: Sequence[int] | None = None, options: Mapping[str, Any] | None = None
) -> Head:
    """A new head by name, with the constraints if it takes them.

    Raises:
        ConfigError: No such head, or it has no such option.
    """
    kind = head_class(name)
    given = dict(options or {})
    known = set(kind._get_param_names()) - {"seed", "monotone"}
    if wrong := sorted(set(given) - known):
        raise ConfigError(f"head {name!r} has no option {wrong[0]!r}, expected one of {', '.join(sorted(known))}")
    if kind.takes_monotone and monotone is not None and any(monotone):
        given["monotone"] = list(monotone)
    return kind(seed=seed, **given)


@register_head("gbdt")
class GBDTHead(Head):
    """Gradient-boosted trees (LightGBM, Ke et al. 2017) with a squared loss, sized by the number of rows.

    Args:
        n_trees: Boosting rounds; None adapts to the rows.
        leaves: Leaves per tree; None adapts.
        min_leaf: Least rows in a leaf; None adapts.
        learning_rate: Shrinkage.
        columns: Share of the columns each tree may use.
        monotone: One 0 or +1 per column: +1 forces predictions not to fall with it. None: no constraint.
        threads: LightGBM threads for many rows (fewer than 4,000 use one); they change nothing but the speed.
        seed: Seed of the column and row sampling.
    """

    takes_monotone = True

    def __init__(
        self,
        n_trees: int | None = None,
        leaves: int | None = None,
        min_leaf: int | None = None,
        learning_rate: float = 0.03,
        columns: float = 0.2,
        monotone: list[int] | None = None,
        threads: int = 2,
        seed: int = 0,
    ) -> None:
        self.n_trees, self.leaves, self.min_leaf = n_trees, leaves, min_leaf
        self.learning_rate, self.columns, self.monotone = learning_rate, columns, monotone
        self.threads, self.seed = threads, seed

    def _fit(self, table: Floats, labels: Floats, weights: Floats) -> None:
        import lightgbm

        rows, width = table.shape
        if self.monotone is not None and len(self.monotone) != width:
            raise ConfigError(f"monotone has {len(self.monotone)} entries, expected one per column, {width}")
        self.mean_ = float(np.average(labels, weights=weights))
        n_trees, leaves, min_leaf = _tree_sizes(rows)
        parameters = {
            "objective": "regression",
            "num_leaves": self.leaves or leaves,
            "min_data_in_leaf": self.min_leaf or min_leaf,
            "min_sum_hessian_in_leaf": 1e-6,
            "min_data_in_bin": 3 if rows > 200 else 1,
            "learning_rate": self.learning_rate,
            "feature_fraction": max(self.columns, min(1.0, 4 / width)),
            "bagging_fraction": 0.8,
            "bagging_freq": 1,
            "lambda_l2": 1.0,
            "feature_pre_filter": False,
            "boost_from_average": False,
            "deterministic": True,
            "force_row_wise": True,
            "num_threads": self.threads if rows >= 4000 else 1,
            "seed": integer_seed(self.seed, "gbdt"),
            "verbosity": -1,
        }
        if self.monotone is not None and any(self.monotone):
            parameters["monotone_constraints"] = list(self.monotone)
        if rows == 1:  # LightGBM's bagging would leave it no row
            table, labels, weights = np.repeat(table, 2, 0), np.repeat(labels, 2), np.repeat(weights, 2)
        data = lightgbm.Dataset(table, labels - self.mean_, weight=weights, params=parameters, free_raw_data=True)
        booster = lightgbm.train(parameters, data, num_boost_round=self.n_trees or n_trees)
        self._take(booster.model_to_string())

    def _take(self, text: str) -> None:
        import lightgbm

        self.text_ = text
        self.booster_ = lightgbm.Booster(model_str=text)

    def _predict(self, table: Floats) -> Floats:
        raw = self.booster_.predict(table, num_threads=self.threads if len(table) >= 4000 else 1)
        return np.asarray(raw, np.float64) + self.mean_

    def _state(self) -> HeadState:
        return HeadState({"mean": self.mean_}, {}, self.text_)

    def _restore(self, state: HeadState) -> None:
        self.mean_ = float(state.values["mean"])
        self._take(state.text)

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "booster_"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if "text_" in state:
            self._take(state["text_"])


def _tree_sizes(rows: int) -> tuple[int, int, int]:
    """Rounds, leaves and least rows per leaf for a training set of `rows`."""
    if rows <= 120:
        return 400, 6, max(1, min(4, rows // 5))
    if rows <= 2000:
        return 600, 12, 6
    return 600, 15, min(60, rows // 200)


@register_head("mlp")
class MLPHead(Head):
    """A small multilayer perceptron on scaled features, trained on all rows with AdamW.

    SiLU units, squared loss, a fixed number of steps with cosine decay (Loshchilov and Hutter 2017, 2019): there is no
    stopping by a validation set. Prediction is plain numpy and needs no torch.

    Args:
        width: Units of each hidden layer.
        layers: Hidden layers.
        steps: Gradient steps; None: 200 up to 150 rows, 600 up to 4,000, else 2000.
        batch: Rows per step; all of them when there are fewer.
        learning_rate: Largest learning rate.
        weight_decay: Decoupled weight decay.
        dropout: Share of hidden units dropped in training.
        noise: Standard deviation of the noise added to scaled features in training.
        seed: Seed of the weights, the batches, the dropout and the noise.
    """

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
        seed: int = 0,
    ) -> None:
        self.width, self.layers, self.steps, self.batch = width, layers, steps, batch
        self.learning_rate, self.weight_decay = learning_rate, weight_decay
        self.dropout, self.noise, self.seed = dropout, noise, seed

    def _fit(self, table: Floats, labels: Floats, weights: Floats) -> None:
        import torch
        from torch.nn import functional

        self.scaler_ = Scaler.fit(table)
        self.mean_ = float(np.average(labels, weights=weights))
        deviation = float(np.sqrt(np.average((labels - self.mean_) ** 2, weights=weights)))
        self.scale_ = deviation if deviation > 1e-12 else 1.0
        threads = torch.get_num_threads()
        random = torch.Generator().manual_seed(integer_seed(self.seed, "mlp"))
        try:
            torch.set_num_threads(1)  # small products gain nothing from threads, and sums keep one order
            x = torch.from_numpy(self.scaler_(table).astype(np.float32))
            y = torch.from_numpy(((labels - self.mean_) / self.scale_).astype(np.float32))
            w = torch.from_numpy(weights.astype(np.float32))
            sizes = [x.shape[1], *[self.width] * self.layers, 1]
            kernels = [
                (torch.randn(a, b, generator=random) * (0.1 if b == 1 else 1.0) * a**-0.5).requires_grad_()
                for a, b in pairwise(sizes)
            ]
            biases = [torch.zeros(b).requires_grad_() for b in sizes[1:]]
            optimizer = torch.optim.AdamW(
                [
                    {"params": kernels, "weight_decay": self.weight_decay},
                    {"params": biases, "weight_decay": 0.0},
                ],
                lr=self.learning_rate,
            )
            steps = self.steps or (200 if len(x) <= 150 else 600 if len(x) <= 4000 else 2000)
            schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
            order = torch.randperm(len(x), generator=random)
            start = 0
            for _ in range(steps):
                if len(x) <= self.batch:
                    rows = order
                else:
                    if start + self.batch > len(x):
                        order, start = torch.randperm(len(x), generator=random), 0
                    rows = order[start : start + self.batch]
                    start += self.batch
                hidden = x[rows]
                if self.noise:
                    hidden = hidden + self.noise * torch.randn(hidden.shape, generator=random)
                for i, (kernel, bias) in enumerate(zip(kernels, biases, strict=True)):
                    hidden = hidden @ kernel + bias
                    if i < self.layers:
                        hidden = functional.silu(hidden)
                        if self.dropout:
                            keep = torch.rand(hidden.shape, generator=random) >= self.dropout
                            hidden = hidden * keep / (1 - self.dropout)
                loss = (w[rows] * (hidden[:, 0] - y[rows]) ** 2).mean()
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                schedule.step()
            self.kernels_ = [kernel.detach().numpy().copy() for kernel in kernels]
            self.biases_ = [bias.detach().numpy().copy() for bias in biases]
        finally:
            torch.set_num_threads(threads)

    def _predict(self, table: Floats) -> Floats:
        hidden = self.scaler_(table)
        for i, (kernel, bias) in enumerate(zip(self.kernels_, self.biases_, strict=True)):
            hidden = hidden @ kernel + bias
            if i < len(self.kernels_) - 1:
                hidden = hidden / (1 + np.exp(-np.clip(hidden, -60, 60)))
        return np.asarray(hidden[:, 0] * self.scale_ + self.mean_, np.float64)

    def _state(self) -> HeadState:
        arrays: dict[str, NDArray[Any]] = dict(self.scaler_.arrays())
        for i, (kernel, bias) in enumerate(zip(self.kernels_, self.biases_, strict=True)):
            arrays |= {f"kernel_{i}": kernel, f"bias_{i}": bias}
        return HeadState({"mean": self.mean_, "scale": self.scale_, "depth": len(self.kernels_)}, arrays)

    def _restore(self, state: HeadState) -> None:
        self.mean_, self.scale_ = float(state.values["mean"]), float(state.values["scale"])
        self.scaler_ = Scaler.restore(state.arrays)
        depth = range(int(state.values["depth"]))
        self.kernels_ = [np.asarray(state.arrays[f"kernel_{i}"], np.float32) for i in depth]
        self.biases_ = [np.asarray(state.arrays[f"bias_{i}"], np.float32) for i in depth]


@register_head("extra_trees")
class ExtraTreesHead(Head):
    """Extremely randomised trees (Geurts et al. 2006): low variance, the safer head far from the training spaces.

    Args:
        n_trees: Trees.
        min_leaf: Least rows in a leaf; None adapts: 1 up to 50 rows, 2 up to 500, else 5.
        columns: Share of the columns tried at each split.
        monotone: One 0 or +1 per column; None: no constraint.
        seed: Seed of the splits.
    """

    takes_monotone = True

    def __init__(
        self,
        n_trees: int = 120,
        min_leaf: int | None = None,
        columns: float = 0.4,
        monotone: list[int] | None = None,
        seed: int = 0,
    ) -> None:
        self.n_trees, self.min_leaf, self.columns = n_trees, min_leaf, columns
        self.monotone, self.seed = monotone, seed

    def _fit(self, table: Floats, labels: Floats, weights: Floats) -> None:
        from sklearn.ensemble import ExtraTreesRegressor

        rows, width = table.shape
        if self.monotone is not None and len(self.monotone) != width:
            raise ConfigError(f"monotone has {len(self.monotone)} entries, expected one per column, {width}")
        forest = ExtraTreesRegressor(
            self.n_trees,
            min_samples_leaf=self.min_leaf or (1 if rows <= 50 else 2 if rows <= 500 else 5),
            max_features=self.columns,
            monotonic_cst=self.monotone,
            random_state=integer_seed(self.seed, "extra_trees"),
            n_jobs=1,
        ).fit(table, labels, sample_weight=weights)
        trees = [tree.tree_ for tree in forest.estimators_]
        self.roots_ = np.cumsum([0, *[tree.node_count for tree in trees]])[:-1].astype(np.int32)

        def joined(part: Callable[[Any], NDArray[Any]]) -> NDArray[Any]:
            return np.concatenate([part(tree) for tree in trees])

        # A node's left child is the node after it (trees grow depth first): only right children are kept; -1: a leaf.
        shift = np.repeat(self.roots_, [tree.node_count for tree in trees])
        right = joined(lambda tree: tree.children_right)
        self.right_ = np.where(right < 0, -1, right + shift).astype(np.int32)
        self.column_ = joined(lambda tree: tree.feature).astype(np.int16)
        # Values are compared in float32; the next float32 below a threshold splits them as the threshold does.
        threshold = joined(lambda tree: tree.threshold)
        rounded = threshold.astype(np.float32)
        lower = np.nextafter(rounded, np.float32(-np.inf))
        self.threshold_ = np.where(rounded > threshold, lower, rounded).astype(np.float32)
        self.value_ = joined(lambda tree: tree.value[:, 0, 0]).astype(np.float32)

    def _predict(self, table: Floats) -> Floats:
        values = table.astype(np.float32)  # what scikit-learn's trees compare
        total = np.zeros(len(values))
        every = np.arange(len(values))
        for root in self.roots_:
            node = np.full(len(values), root, np.int32)
            active = every
            while len(active):
                at = node[active]
                inner = self.right_[at] >= 0
                active, at = active[inner], at[inner]
                low = values[active, self.column_[at]] <= self.threshold_[at]
                node[active] = np.where(low, at + 1, self.right_[at])
            total += self.value_[node]
        return total / len(self.roots_)

    def _state(self) -> HeadState:
        names = ("roots", "right", "column", "threshold", "value")
        return HeadState({}, {name: getattr(self, f"{name}_") for name in names})

    def _restore(self, state: HeadState) -> None:
        for name, array in state.arrays.items():
            setattr(self, f"{name}_", np.asarray(array))


@register_head("gp")
class GPHead(Head):
    """Gaussian process with an isotropic Matérn 5/2 kernel on scaled features: for few labels.

    k(x, x') = s² (1 + r + r²/3) exp(-r), r = √5 |x - x'| / l (Rasmussen and Williams 2006, eq. 4.17). The length l and
    the ratio of noise to signal are those of highest posterior density on a grid, the signal s² has a closed form
    (ibid. eq. 5.8); log-normal priors keep them sane when there are only a few labels.

    Args:
        max_rows: Rows used at most, drawn with the seed; the cost is cubic in them.
        seed: Seed of that draw.
    """

    seeded = False

    def __init__(self, max_rows: int = 1000, seed: int = 0) -> None:
        self.max_rows, self.seed = max_rows, seed

    def _fit(self, table: Floats, labels: Floats, weights: Floats) -> None:
        if len(table) > self.max_rows:
            random = np.random.default_rng(integer_seed(self.seed, "gp"))
            rows = np.sort(random.choice(len(table), self.max_rows, replace=False))
            table, labels, weights = table[rows], labels[rows], weights[rows]
        weights = np.maximum(weights, 1e-6)
        self.scaler_ = Scaler.fit(table)
        self.points_ = self.scaler_(table)
        self.mean_ = float(np.average(labels, weights=weights))
        root = np.sqrt(weights)
        residual = root * (labels - self.mean_)
        distance = _distances(self.points_, self.points_)
        apart = distance[distance > 0]
        typical = float(np.median(apart)) if len(apart) else 1.0
        best = np.inf
        self.length_, self.weights_ = typical, np.zeros(len(labels))
        if not residual.any():
            return
        for stretch in np.geomspace(0.4, 12.0, 10):
            kernel = _matern(distance, stretch * typical)
            values, vectors = np.linalg.eigh(root[:, None] * kernel * root)
            rotated = vectors.T @ residual
            for ratio in np.geomspace(1e-3, 3.0, 12):
                spread = np.maximum(values, 0.0) + ratio
                signal = float(np.mean(rotated**2 / spread))
                loss = 0.5 * len(labels) * np.log(signal) + 0.5 * float(np.log(spread).sum())
                loss += 0.5 * np.log(stretch / 2.0) ** 2 + 0.5 * (np.log(ratio / 0.1) / 1.5) ** 2
                if loss < best:
                    best = loss
                    self.length_ = float(stretch * typical)
                    self.weights_ = root * (vectors @ (rotated / spread))

    def _predict(self, table: Floats) -> Floats:
        scaled = self.scaler_(table)
        blocks = [scaled[i : i + 4096] for i in range(0, len(scaled), 4096)]
        parts = [_matern(_distances(block, self.points_), self.length_) @ self.weights_ for block in blocks]
        return np.asarray(np.concatenate(parts) + self.mean_, np.float64)

    def _state(self) -> HeadState:
        arrays: dict[str, NDArray[Any]] = {**self.scaler_.arrays(), "points": self.points_, "weights": self.weights_}
        return HeadState({"mean": self.mean_, "length": self.length_}, arrays)

    def _restore(self, state: HeadState) -> None:
        self.mean_, self.length_ = float(state.values["mean"]), float(state.values["length"])
        self.scaler_ = Scaler.restore(state.arrays)
        self.points_ = np.asarray(state.arrays["points"], np.float64)
        self.weights_ = np.asarray(state.arrays["weights"], np.float64)


def _distances(a: Floats, b: Floats) -> Floats:
    """Euclidean distances (n, m) between the rows of a (n, d) and b (m, d)."""
    squared = (a * a).sum(1)[:, None] + (b * b).sum(1) - 2 * a @ b.T
    return np.asarray(np.sqrt(np.maximum(squared, 0.0)), np.float64)


def _matern(distance: Floats, length: float) -> Floats:
    r = np.sqrt(5.0) * distance / length
    return np.asarray((1 + r + r * r / 3) * np.exp(-r), np.float64)
