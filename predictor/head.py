"""The contract of heads: small regressors from a row of features to a label, saved as arrays and text.

Every head is a scikit-learn regressor: the constructor stores its arguments, `fit(X, y, sample_weight=None)` returns
self, `predict(X)` gives (n,) float64. Beyond that it has `state` and `restore`, which take the fitted model apart into
JSON values, arrays and text, so that nothing is ever pickled. The same seed gives the same bytes.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
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
        self._fit(*self._checked(X, y, sample_weight, reset=True))
        self.fitted_ = True
        return self

    def _checked(
        self,
        X: ArrayLike,  # noqa: N803
        y: ArrayLike,
        sample_weight: ArrayLike | None,
        *,
        reset: bool,
    ) -> tuple[Floats, Floats, Floats]:
        """Features, labels and weights as arrays; the columns are those of `fit`, or the new ones if `reset`."""
        table, labels = validate_data(self, X, y, dtype=np.float64, y_numeric=True, reset=reset)
        weights = _check_sample_weight(sample_weight, table, dtype=np.float64, ensure_non_negative=True)
        total = float(weights.sum())
        weights = weights / (total / len(weights)) if total > 0 else np.ones(len(weights))
        return table, np.asarray(labels, np.float64), weights

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
