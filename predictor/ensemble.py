"""Several heads, several seeds each, blended by how well each ranked networks it had not seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..encoders.errors import ConfigError
from .heads import Head, HeadState, head_class, make_head
from .metrics import kendall
from .seeding import generator, integer_seed

Floats = NDArray[np.float64]
Integers = NDArray[np.int32]
HeadOptions = Mapping[str, Mapping[str, Any]]
"""Head name → options of its constructor."""


CORE = "core"
"""What stands behind the @ for the core columns of the first encoder."""


@dataclass(frozen=True)
class Columns:
    """Columns of an encoder within the table of all encoders.

    Attributes:
        name: Name of the encoder.
        positions: Its columns.
        core: Those of them that mean the same in every space; empty if the encoder names none.
    """

    name: str
    positions: tuple[int, ...]
    core: tuple[int, ...] = ()


@dataclass(frozen=True)
class View:
    """A kind of head and the columns it sees: those of one encoder, and all that stand behind the encoders'.

    Attributes:
        head: Name of the head.
        columns: Positions of the encoders' columns that it sees.
        width: Columns of all encoders together.
        name: `head`, or `head@encoder` where there are several encoders.
    """

    head: str
    columns: tuple[int, ...]
    width: int
    name: str

    def of(self, table: Floats) -> Floats:
        """The columns it sees of a table (n, d)."""
        if len(self.columns) == self.width:
            return table
        return np.hstack([np.take(table, self.columns, axis=1), table[:, self.width :]])

    def among(self, monotone: Sequence[int] | None) -> list[int] | None:
        """The entries, one per column, for the columns it sees."""
        if monotone is None:
            return None
        return [*(monotone[at] for at in self.columns), *monotone[self.width :]]


def views_of(heads: Sequence[str], encoders: Sequence[Columns]) -> tuple[View, ...]:
    """The views that names of heads stand for.

    Args:
        heads: `gbdt` (one view for each encoder), `gbdt@statistics` (of that encoder only) or `gbdt@core` (of the core
            columns of the first encoder).
        encoders: The encoders, in the order of the table.

    Raises:
        ConfigError: A head names an encoder that is not there, or a view is named twice.
    """
    width, known = sum(len(encoder.positions) for encoder in encoders), {each.name: each for each in encoders}
    views = []
    for entry in heads:
        head, _, chosen = entry.partition("@")
        if chosen == CORE:
            if not encoders[0].core:
                raise ConfigError(f"head {entry!r}: the encoder {encoders[0].name!r} names no core columns")
            views.append(View(head, encoders[0].core, width, entry))
            continue
        if chosen and chosen not in known:
            names = ", ".join((*known, CORE))
            raise ConfigError(f"head {entry!r} wants the encoder {chosen!r}, expected one of {names}")
        for encoder in (chosen,) if chosen else known:
            name = head if len(known) == 1 else f"{head}@{encoder}"
            views.append(View(head, known[encoder].positions, width, name))
    names_of_views = [view.name for view in views]
    if twice := [name for name in names_of_views if names_of_views.count(name) > 1]:
        raise ConfigError(f"heads are {', '.join(heads)}: {twice[0]} is there twice")
    return tuple(views)


@dataclass(frozen=True)
class HeadBlend:
    """How a head's outputs enter the blend: weight · (slope · (output - centre) + share · size).

    Attributes:
        weight: Weight of the head near the training set; those of all heads sum to 1.
        far: The same far from it.
        centre: Mean out-of-fold output.
        slope: Slope of the labels on the out-of-fold outputs, so that a head that learnt nothing says little.
        kendall: Mean over benchmarks of the out-of-fold Kendall τ-b, with the head's share of size; nan: not measured.
        share: What one standard deviation of size is worth; it was taken off the labels that the head learnt.
    """

    weight: float
    far: float
    centre: float
    slope: float
    kendall: float
    share: float = 0.0


@dataclass(frozen=True)
class MemberOutputs:
    """What the m members of an ensemble say of n networks.

    Attributes:
        learnt: (m, n) without size; 0 where a member does not count.
        shares: (m,) what one standard deviation of size is worth to each.
        weights: (m, n) weight of each; they sum to 1 for every network.
        counts: How many members each head has, in their order.
    """

    learnt: Floats
    shares: Floats
    weights: Floats
    counts: tuple[int, ...]

    def scores(self, size: Floats | None) -> Floats:
        """Scores (m, n) of networks of these sizes (n,), in standard deviations; None: 0."""
        return self.learnt if size is None else self.learnt + np.outer(self.shares, size)

    def by_head(self) -> Floats:
        """Mean over the members of each head of what they say without size: (h, n)."""
        heads = np.split(self.learnt, np.cumsum(self.counts)[:-1])
        return np.stack([members.mean(axis=0) for members in heads])


@dataclass(frozen=True)
class Ensemble:
    """Fitted members and their blend.

    Attributes:
        views: Heads and what they see.
        members: Fitted members of each view, in the order of `views`.
        blends: Blend of each view.
    """

    views: tuple[View, ...]
    members: tuple[tuple[Head, ...], ...]
    blends: tuple[HeadBlend, ...]

    def member_outputs(self, table: Floats, away: Floats | None = None, trust: Floats | None = None) -> MemberOutputs:
        """What every member says of networks.

        Args:
            table: (n, d) features.
            away: (n,) how far away the networks are, 0 to 1, for the weights; None: 0.
            trust: (n,) what share of what was learnt counts; None: all.
        """
        away = np.zeros(len(table)) if away is None else away
        blends = [blend for blend, members in zip(self.blends, self.members, strict=True) for _ in members]
        counts = np.array([len(members) for members in self.members for _ in members])
        weights = weights_of(blends, away) / counts[:, None]
        learnt = np.zeros(weights.shape)
        row = 0
        for view, members in zip(self.views, self.members, strict=True):
            rows = np.flatnonzero(weights[row] > 0)
            seen = view.of(table[rows])
            for member in members:
                if len(rows):
                    learnt[row, rows] = blends[row].slope * (member.predict(seen) - blends[row].centre)
                row += 1
        if trust is not None:
            learnt *= trust
        sizes = tuple(len(members) for members in self.members)
        return MemberOutputs(learnt, np.array([blend.share for blend in blends]), weights, sizes)

    def states(self) -> list[list[HeadState]]:
        """Every member taken apart, by head."""
        return [[member.state() for member in members] for members in self.members]

    @classmethod
    def restore(
        cls, views: Sequence[View], states: Sequence[Sequence[HeadState]], blends: Sequence[HeadBlend]
    ) -> Ensemble:
        """The ensemble that gave `states`."""
        members = tuple(
            tuple(head_class(view.head).restore(state) for state in parts)
            for view, parts in zip(views, states, strict=True)
        )
        return cls(tuple(views), members, tuple(blends))


def fit_members(
    views: Sequence[View],
    table: Floats,
    labels: Floats,
    weights: Floats,
    *,
    n_seeds: int,
    seed: int,
    monotone: Sequence[int] | None = None,
    options: HeadOptions | None = None,
) -> tuple[tuple[Head, ...], ...]:
    """Fit `n_seeds` members of every view (one, where the seed changes nothing)."""
    return tuple(
        tuple(
            make_head(
                view.head,
                seed=integer_seed(seed, view.name, i),
                monotone=view.among(monotone),
                options=(options or {}).get(view.head),
            ).fit(view.of(table), labels, weights)
            for i in range(n_seeds if head_class(view.head).seeded else 1)
        )
        for view in views
    )


def out_of_fold(
    views: Sequence[View],
    table: Floats,
    labels: Floats,
    weights: Floats,
    folds: Integers,
    *,
    seed: int,
    monotone: Sequence[int] | None = None,
    options: HeadOptions | None = None,
) -> Floats:
    """Output of every view for every row by a member that did not see the row's fold: (h, n).

    With a single fold there is nothing to learn from, and every output is 0.
    """
    result = np.zeros((len(views), len(table)))
    if len(np.unique(folds)) < 2:
        return result
    for fold in np.unique(folds):
        held = folds == fold
        members = fit_members(
            views,
            table[~held],
            labels[~held],
            weights[~held],
            n_seeds=1,
            seed=integer_seed(seed, "fold", int(fold)),
            monotone=monotone,
            options=options,
        )
        for row, (view, (member,)) in enumerate(zip(views, members, strict=True)):
            result[row, held] = member.predict(view.of(table[held]))
    return result


def blend_heads(
    outputs: Floats,
    labels: Floats,
    owner: Integers,
    *,
    alike_far: bool = False,
    share: float = 0.0,
    size: Floats | None = None,
) -> list[HeadBlend]:
    """Blend of the heads from their out-of-fold outputs.

    Weights near the training set are proportional to exp(mean Kendall / temperature), where the temperature is .1 +
    3 / rows: what a handful of labels says of a head is mostly chance.

    Args:
        outputs: (h, n) out-of-fold outputs.
        labels: (n,) labels.
        owner: (n,) benchmark of each row; correlations are taken inside each benchmark.
        alike_far: Let all heads count alike far from the training set, instead of as near it.
        share: Share of size that was taken off the labels.
        size: (n,) the size that was taken off; heads are compared after its share is put back. None: 0.

    Returns:
        One blend per head.
    """
    term = np.zeros(len(owner)) if size is None else share * size

    centres = outputs.mean(axis=1)
    deviations = outputs - centres[:, None]
    power, common = (deviations**2).sum(axis=1), (deviations * labels).sum(axis=1)
    slopes = np.where(power > 1e-12, common / np.maximum(power, 1e-12), 1.0).clip(0.1, 1.5)
    truth, said = labels + term, outputs + term
    each = [[kendall(truth[owner == o], row[owner == o]) for o in np.unique(owner)] for row in said]
    taus = np.nan_to_num(each).mean(axis=1)
    near = np.exp((taus - taus.max()) / (0.1 + 3 / len(owner)))
    near /= near.sum()
    away = np.full(len(near), 1 / len(near)) if alike_far else near
    parts = np.stack([near, away, centres, slopes, taus, np.full(len(near), share)], axis=1)
    return [HeadBlend(*head) for head in parts.tolist()]


def weights_of(blends: Sequence[HeadBlend], away: Floats) -> Floats:
    """Weights (h, n) of the heads for networks that are so far away (n,), 0 to 1."""
    near, far = np.array([[blend.weight, blend.far] for blend in blends]).T
    return np.asarray(near[:, None] + (far - near)[:, None] * away, np.float64)


def weighted_mean(outputs: Floats, weights: Floats) -> Floats:
    """Weighted mean (n,) over the members of outputs (m, n) with weights (m, n)."""
    return np.asarray((weights * outputs).sum(axis=0), np.float64)


def weighted_deviation(outputs: Floats, weights: Floats) -> Floats:
    """Weighted standard deviation (n,) over the members of outputs (m, n) with weights (m, n)."""
    squares = (outputs - weighted_mean(outputs, weights)) ** 2
    return np.asarray(np.sqrt(weighted_mean(squares, weights)), np.float64)


def scaled(outputs: Floats, blends: Sequence[HeadBlend], size: Floats, trust: Floats | float = 1.0) -> Floats:
    """Scores (h, n) of the heads from outputs (h, n), of which the share `trust` counts, and sizes (n,) of networks."""
    heads = zip(outputs, blends, strict=True)
    return np.stack([trust * (b.slope * (row - b.centre)) + b.share * size for row, b in heads])


def combine(
    outputs: Floats, blends: Sequence[HeadBlend], size: Floats, away: Floats, trust: Floats | float = 1.0
) -> Floats:
    """Blend head outputs (h, n) into scores (n,); `size` and `trust` as for `scaled`, `away` as for `weights_of`."""
    return weighted_mean(scaled(outputs, blends, size, trust), weights_of(blends, away))


def assign_folds(keys: Sequence[Sequence[str]], n_folds: int, seed: int) -> Integers:
    """Folds (n,) such that rows that share any key are in one fold.

    Args:
        keys: (n,) keys of each row, such as its group and its graph's hash.
        n_folds: Folds wanted; fewer when there are fewer connected groups.
        seed: Seed of the assignment.

    Returns:
        (n,) fold of each row, 0 up; folds are about equally large.
    """
    component = components(keys)
    sizes = np.bincount(component)
    order = generator(seed, "folds").permutation(len(sizes))
    order = order[np.argsort(-sizes[order], kind="stable")]
    fold_of, load = np.zeros(len(sizes), np.int32), np.zeros(min(n_folds, len(sizes)))
    for group in order:
        fold_of[group] = int(np.argmin(load))
        load[fold_of[group]] += sizes[group]
    return fold_of[component]


def components(keys: Sequence[Sequence[str]]) -> NDArray[np.intp]:
    """Number (n,) of the connected component of each row, where rows that share a key are connected."""
    parent = list(range(len(keys)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    first: dict[str, int] = {}
    for row, names in enumerate(keys):
        for name in names:
            other = first.setdefault(name, row)
            a, b = root(row), root(other)
            if a != b:
                parent[max(a, b)] = min(a, b)
    return np.unique([root(i) for i in range(len(keys))], return_inverse=True)[1]
