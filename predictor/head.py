"""The contract of heads: small regressors from a row of features to a label, saved as numbers and arrays.

Every head is a scikit-learn regressor: the constructor stores its arguments, `fit(X, y, sample_weight=None)` returns
self, `predict(X)` gives (n,) float64. Beyond that it has `state` and `restore`, which take the fitted model apart into
JSON values and arrays, so that nothing is ever pickled. The same seed gives the same bytes.

Importing scikit-learn takes most of a second, so nothing here does before it is needed: a restored head predicts on a
clean table without it. This is why `Head` does not inherit from `sklearn.base.BaseEstimator`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from inspect import signature
from typing import Any, ClassVar, Self, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..encoders.errors import ConfigError
from ..encoders.names import look_up, take_name

Floats = NDArray[np.float64]
Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class HeadState:
    """A fitted head taken apart.

    Attributes:
        values: JSON values.
        arrays: Arrays of float32, float64, int16 or int32.
    """

    values: dict[str, Any] = field(default_factory=dict)
    arrays: dict[str, NDArray[Any]] = field(default_factory=dict)


class Head:
    """Base of the heads; a scikit-learn regressor by its methods, not by inheritance.

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
        from sklearn.utils.validation import _check_sample_weight, validate_data

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
        self._check_fitted()
        if not self._is_clean(X):
            from sklearn.utils.validation import validate_data

            X = validate_data(self, X, dtype=np.float64, reset=False)  # noqa: N806
        return self._predict(X)  # type: ignore[arg-type]

    def _check_fitted(self) -> None:
        if not hasattr(self, "fitted_"):
            from sklearn.utils.validation import check_is_fitted

            check_is_fitted(self, "fitted_")

    def _is_clean(self, table: ArrayLike) -> bool:
        """Whether scikit-learn's checks would return the table itself, without a word."""
        return (
            type(table) is np.ndarray
            and table.dtype == np.float64
            and table.ndim == 2
            and len(table) > 0
            and table.shape[1] == self.n_features_in_
            and not hasattr(self, "feature_names_in_")
            and bool(np.isfinite(table).all())
        )

    def score(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> float:  # noqa: N803
        """R² of the predictions for features (n, d) and labels (n,), 1 at best."""
        from sklearn.metrics import r2_score

        return float(r2_score(y, self.predict(X), sample_weight=sample_weight))

    @classmethod
    def _get_param_names(cls) -> list[str]:
        return sorted(signature(cls).parameters)

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The constructor's arguments; `deep` changes nothing, since none has arguments of its own."""
        return {name: getattr(self, name) for name in self._get_param_names()}

    def set_params(self, **params: Any) -> Self:
        """Change arguments of the constructor.

        Raises:
            ValueError: There is no such argument.
        """
        names = self._get_param_names()
        for name, value in params.items():
            if name not in names:
                raise ValueError(f"invalid parameter {name!r} for {self!r}, expected one of {', '.join(names)}")
            setattr(self, name, value)
        return self

    def __repr__(self) -> str:
        defaults = {name: each.default for name, each in signature(type(self)).parameters.items()}
        changed = (f"{name}={getattr(self, name)!r}" for name in defaults)
        usual = {f"{name}={value!r}" for name, value in defaults.items()}
        return f"{type(self).__name__}({', '.join(each for each in changed if each not in usual)})"

    def __sklearn_tags__(self) -> Any:
        from sklearn.utils import RegressorTags, Tags, TargetTags

        return Tags("regressor", TargetTags(required=True), regressor_tags=RegressorTags())

    @abstractmethod
    def _fit(self, table: Floats, labels: Floats, weights: Floats) -> None: ...

    @abstractmethod
    def _predict(self, table: Floats) -> Floats: ...

    @abstractmethod
    def _state(self) -> HeadState: ...

    @abstractmethod
    def _restore(self, state: HeadState) -> None: ...

    def state(self) -> HeadState:
        """The fitted head taken apart: constructor arguments, learned values and arrays."""
        self._check_fitted()
        inner = self._state()
        values = {"params": self.get_params(), "n_features": self.n_features_in_, **inner.values}
        return HeadState(values, inner.arrays)

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
    return kind(**given, **{"seed": seed})
