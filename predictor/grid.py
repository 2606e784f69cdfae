"""Results of a protocol: one cell for each ranker, mode, target and seed, and the table they make."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from math import isfinite, isnan, nan
from pathlib import Path
from typing import Any

import numpy as np

from ..encoders.errors import DataError
from .metrics import RANK_METRICS
from .tables import aligned

SMALLER_IS_BETTER = frozenset({"regret_top_1_percent", "mae", "width"})
"""Metrics of which less is better."""
BEST_OF = {
    "best size": ("macs", "params", "depth", "convolutions"),
    "best trivial": ("macs", "params", "depth", "convolutions", "nwot"),
}
"""Rows made of others: in every cell the best of them, picked with hindsight."""


@dataclass(frozen=True)
class Cell:
    """How well one ranker did on one target.

    Attributes:
        ranker: Name of the ranker.
        mode: `single`, or `pool`: the candidates enter each other's scores (transductive).
        target: What it was measured on.
        seed: Seed of the ranker; with few labels, of their draw.
        labels: Labels of the target that it was given.
        n: Networks measured on.
        metrics: Metric → value; `nan` where it is undefined.
        counted: Whether the target enters the means; a part of another target does not.
        training: Benchmarks it was fitted on.
        scores: SHA-256 of the scores.
        seconds: Time of fitting and scoring.
    """

    ranker: str
    mode: str
    target: str
    seed: int
    labels: int
    n: int
    metrics: Mapping[str, float]
    counted: bool = True
    training: tuple[str, ...] = ()
    scores: str = ""
    seconds: float = 0.0

    @property
    def row(self) -> str:
        """Name of its row: the ranker, and the mode if it is not the usual one."""
        return self.ranker if self.mode == "single" else f"{self.ranker}, {self.mode}"

    @property
    def place(self) -> tuple[str, int]:
        """Target and number of labels."""
        return self.target, self.labels

    def to_dict(self) -> dict[str, Any]:
        """JSON values; undefined numbers are None."""
        metrics = {name: value if isfinite(value) else None for name, value in self.metrics.items()}
        return {**asdict(self), "metrics": metrics, "training": list(self.training)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Cell:
        """The cell that `to_dict` wrote.

        Raises:
            DataError: The values are none of a cell.
        """
        try:
            metrics = {name: nan if value is None else float(value) for name, value in values["metrics"].items()}
            return cls(**{**values, "metrics": metrics, "training": tuple(values["training"])})
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise DataError(f"this is no cell of a grid ({type(error).__name__}: {error}): delete the file") from error


@dataclass(frozen=True)
class Published:
    """A number somebody published.

    Attributes:
        protocol: Protocol it compares with.
        target: Target, as cells call it.
        labels: Labels of the target used.
        metric: Metric.
        method: What was measured.
        value: The number.
        source: Where it stands.
        same_test: Whether it was measured on networks and labels that we have.
        networks: How many those are; a part of them is another test set.
        note: What differs.
    """

    protocol: str
    target: str
    labels: int
    metric: str
    method: str
    value: float
    source: str
    same_test: bool
    networks: int = 0
    note: str = ""


@cache
def published_rows() -> tuple[Published, ...]:
    """All published numbers that are known, from `published.toml`."""
    with Path(__file__).with_name("published.toml").open("rb") as file:
        content = tomllib.load(file)
    defaults = {"labels": 0}
    return tuple(Published(**{**defaults, **row}) for row in content["row"])


@dataclass(frozen=True)
class Grid:
    """All cells of one protocol.

    Attributes:
        protocol: Name of the protocol.
        cells: The cells.
        about: What was run: spaces, networks taken of each, seeds, versions.
    """

    protocol: str
    cells: tuple[Cell, ...]
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def rows(self) -> tuple[str, ...]:
        """Names of the rows: rankers and modes first, trivial ones and the best of those last."""
        found = list(dict.fromkeys(cell.row for cell in self.cells))
        return (*found, *(name for name, parts in BEST_OF.items() if set(parts) <= set(found)))

    @property
    def places(self) -> tuple[tuple[str, int], ...]:
        """Targets and numbers of labels, in the order they were run."""
        return tuple(dict.fromkeys(cell.place for cell in self.cells))

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the metrics of a ranking, then of the others that any cell has."""
        return tuple(dict.fromkeys([*RANK_METRICS, *(name for cell in self.cells for name in cell.metrics)]))

    def values(self, row: str, place: tuple[str, int], metric: str) -> tuple[float, ...]:
        """The metric of a row at a place, one number per seed, in their order; `nan` where it is undefined."""
        if row in BEST_OF:
            each = [self.values(part, place, metric) for part in BEST_OF[row]]
            pick = min if metric in SMALLER_IS_BETTER else max
            best = [pick((v for v in seeds if not isnan(v)), default=nan) for seeds in zip(*each, strict=True)]
            return tuple(best)
        cells = [cell for cell in self.cells if cell.row == row and cell.place == place]
        return tuple(cell.metrics.get(metric, nan) for cell in sorted(cells, key=lambda cell: cell.seed))

    def mean(self, row: str, place: tuple[str, int], metric: str) -> float:
        """Mean over the seeds; `nan` if there is no defined number."""
        defined = [value for value in self.values(row, place, metric) if not isnan(value)]
        return float(np.mean(defined)) if defined else nan

    def over_targets(self, row: str, metric: str, labels: int = 0) -> tuple[float, ...]:
        """Mean over the targets that count, one per seed; a ranking that is constant in a space counts as 0 there.

        Metrics other than correlations and NDCG skip what is undefined. A row with fewer seeds than others (one that no
        seed changes) has fewer numbers.
        """
        counted = {cell.target for cell in self.cells if cell.counted and cell.labels == labels}
        parts = [self.values(row, place, metric) for place in self.places if place[0] in counted and place[1] == labels]
        parts = [part for part in parts if part]
        if not parts:
            return ()
        seeds = min(map(len, parts))
        table = np.array([part[:seeds] for part in parts])
        if metric in ("spearman", "kendall", "ndcg_at_10"):
            return tuple(np.nan_to_num(table).mean(0).tolist())
        return tuple(float(np.mean(c[~np.isnan(c)])) if (~np.isnan(c)).any() else nan for c in table.T)

    def published(self) -> tuple[Published, ...]:
        """Published numbers for the targets that were run."""
        places = set(self.places)
        return tuple(
            row for row in published_rows() if row.protocol == self.protocol and (row.target, row.labels) in places
        )

    def table(self, metrics: Sequence[str] | None = None) -> str:
        """Plain text: for each metric a line per target, a column per row of the grid, and the means."""
        return "\n\n".join([*(self._block(metric) for metric in metrics or self.metrics), *self._published_lines()])

    def _block(self, metric: str) -> str:
        rows = self.rows
        lines = [[metric, "n", *rows]]
        for place in self.places:
            sizes = {cell.n for cell in self.cells if cell.place == place}
            n = str(max(sizes)) if len(sizes) == 1 else f"{min(sizes)}-{max(sizes)}"
            lines.append([_title(place), n, *(_cell(self.values(row, place, metric)) for row in rows)])
        for labels in dict.fromkeys(labels for _, labels in self.places):
            targets = {cell.target for cell in self.cells if cell.counted and cell.labels == labels}
            if len(targets) > 1:
                means = [_cell(self.over_targets(row, metric, labels)) for row in rows]
                lines.append([_title((f"mean of {len(targets)}", labels)), "", *means])
                if metric in ("spearman", "kendall"):
                    for other in ("macs", "best size"):
                        if other in rows:
                            wins = [self._wins(row, other, metric, labels) for row in rows]
                            lines.append([_title((f"above {other} in", labels)), "", *wins])
        return aligned(lines)

    def _wins(self, row: str, other: str, metric: str, labels: int) -> str:
        if row == other:
            return ""
        counted = {cell.target for cell in self.cells if cell.counted and cell.labels == labels}
        places = [place for place in self.places if place[0] in counted and place[1] == labels]
        pairs = [np.nan_to_num([self.mean(name, place, metric) for name in (row, other)]) for place in places]
        return str(sum(bool(a > b) for a, b in pairs))

    def _published_lines(self) -> list[str]:
        rows = self.published()
        if not rows:
            return []
        lines = [["published", "metric", "target", "value", "", "source"]]
        for row in rows:
            measured = {cell.n for cell in self.cells if cell.place == (row.target, row.labels)}
            mark = "" if row.same_test and measured == {row.networks} else "*"
            note = f"{row.source}{'; ' if row.note else ''}{row.note}"
            lines.append([row.method, row.metric, _title((row.target, row.labels)), f"{row.value:.3f}", mark, note])
        return [f"{aligned(lines)}\n* not the same test set, labels or information; the last column says what differs"]

    def to_dict(self) -> dict[str, Any]:
        """JSON values: what was run, all cells, mean and standard deviation over the seeds, published numbers."""
        means = []
        for labels in dict.fromkeys(labels for _, labels in self.places):
            for row in self.rows:
                values = {name: self.over_targets(row, name, labels) for name in self.metrics}
                means.append({"row": row, "labels": labels, "metrics": {k: _spread(v) for k, v in values.items()}})
        summary = [
            {
                "row": row,
                "target": place[0],
                "labels": place[1],
                "metrics": {name: _spread(self.values(row, place, name)) for name in self.metrics},
            }
            for row in self.rows
            for place in self.places
        ]
        return {
            "protocol": self.protocol,
            "about": dict(self.about),
            "mean_over_targets": means,
            "summary": summary,
            "published": [asdict(row) for row in self.published()],
            "cells": [cell.to_dict() for cell in self.cells],
        }

    def __str__(self) -> str:
        return self.table()


def _title(place: tuple[str, int]) -> str:
    target, labels = place
    return f"{target}, {labels} labels" if labels else target


def _spread(values: Sequence[float]) -> dict[str, float | int | None]:
    defined = [value for value in values if not isnan(value)]
    if not defined:
        return {"mean": None, "std": None, "seeds": len(values)}
    return {"mean": float(np.mean(defined)), "std": float(np.std(defined)), "seeds": len(values)}


def _cell(values: Sequence[float]) -> str:
    defined = [value for value in values if not isnan(value)]
    if not defined:
        return "-"
    mean = f"{np.mean(defined):.3f}"
    return f"{mean} ± {np.std(defined):.3f}" if len(defined) > 1 and np.ptp(defined) > 0 else mean
