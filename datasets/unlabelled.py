"""What the spaces that are known by definition only have in common: they have no labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..encoders.errors import DataError
from .raw_files import check_task

Labels = tuple[list[str], NDArray[np.float64]]


def no_labels(space: str, tasks: tuple[str, ...]) -> Callable[[Mapping[str, Path], str], Labels]:
    """The `read_labels` of a space without labels: it always raises a `DataError` that says what can be done instead.

    Args:
        space: Name of the space for the message.
        tasks: The tasks that its networks can be built for.
    """

    def read_labels(paths: Mapping[str, Path], task: str) -> Labels:
        check_task(task, tasks, space)
        raise DataError(
            f"{space} is known by its definition only, archgauge has no labels of it: sample() and build() give its "
            "networks, and Benchmark.from_csv reads labels of your own"
        )

    return read_labels


def shown(spec: str) -> str:
    """A spec for an error message: quoted, and cut where it is long."""
    return repr(spec) if len(spec) <= 160 else f"{spec[:120]!r}... ({len(spec):,} characters)"
