"""Protocols: how rankers are measured on networks they have not seen. One function runs each; all give a `Grid`.

What a ranker is given of a target are graphs, and with few labels those few. Training networks whose graph occurs in
the target are removed, and so are the target's relatives. Nothing is chosen by a target's accuracies.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import json
import os
import platform
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import import_module
from importlib.metadata import version
from math import inf, nan
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..datasets.benchmark import Benchmark
from ..datasets.registry import load_benchmark
from ..encoders.errors import ConfigError, DataError
from ..encoders.files import replacing
from ..encoders.names import look_up
from ..encoders.registry import SHIPPED_GRAPH, SHIPPED_READINGS, SHIPPED_TEXT
from .baselines import TRIVIAL_ROWS
from .grid import Cell, Grid
from .metrics import RANK_METRICS, kendall, mean_absolute_error
from .ranker import EstimatingRanker, PoolRanker, Ranker, RankerEntry, TunableRanker, ranker_entry
from .tables import json_text

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]
Report = Callable[[Cell], None]
Lessons = Callable[[Benchmark], tuple[tuple[Benchmark, ...], "Benchmark | None"]]
"""The few labelled networks → what to fit on, and what to fine-tune on."""
Rankers = Sequence[str] | Mapping[str, Callable[[int], Ranker]]
"""Names of rankers, or name → function of a seed that makes one. The name stands for it in saved cells."""

SPACES = (
    "imagenet_zoo",
    "nas_bench_201:cifar10",
    "nas_bench_macro",
    "nas_bench_101",
    "nats_bench_sss",
    "transnas_bench_101/micro:class_object",
    "transnas_bench_101/macro:class_object",
    "channel_bench_macro/resnet",
    "channel_bench_macro/mobilenet",
    "accel_nasbench",
    "ofa_mbv3",
    "darts_trained/oncenas",
)
"""Image classification spaces with trained networks: the targets of `leave_one_space_out`."""
MORE_SOURCES = (
    "nas_bench_201:cifar100",
    "nas_bench_201:imagenet16_120",
    "enas_dvae",
)
"""Labels on other tasks, and of another space; they only teach."""
SOURCES = (
    *("imagenet_zoo/all@0" if spec == "imagenet_zoo" else spec for spec in SPACES),
    *MORE_SOURCES,
)
"""What is learnt from by default, and what the predictor that ships has learnt from."""
SETS: Mapping[str, tuple[str, ...]] = {
    "default": SPACES,
    "study": (
        "nas_bench_101",
        "nas_bench_101/ec_nas_4v",
        *(spec for spec in SPACES if spec not in ("imagenet_zoo", "nas_bench_101", "nats_bench_sss")),
        "darts_trained/nas_efh",
    ),
}
"""Names that stand for several specs: the default targets, and those of the study that the recipe grew out of."""
FAMILIES: Mapping[str, str] = {
    "nas_bench_101": "cells of NAS-Bench-101",
    "nas_bench_101/ec_nas_4v": "cells of NAS-Bench-101",
    "nas_bench_101/ec_nas_5v": "cells of NAS-Bench-101",
    "nas_bench_201": "cells of NAS-Bench-201",
    "nas_bench_201/robustness": "cells of NAS-Bench-201",
    "hnas_bench_201": "cells of NAS-Bench-201",
    "nats_bench_sss": "cells of NAS-Bench-201",
    "transnas_bench_101/micro": "cells of NAS-Bench-201",
    "nas_bench_suite_zero_extra/nas_bench_201": "cells of NAS-Bench-201",
    "nas_bench_suite_zero_extra/transnas_bench_101_micro": "cells of NAS-Bench-201",
    "darts_trained/oncenas": "cells of DARTS",
    "darts_trained/nas_efh": "cells of DARTS",
    "darts_trained/swap": "cells of DARTS",
    "nas_bench_suite_zero_extra/nas_bench_301": "cells of DARTS",
    "enas_dvae": "cells of DARTS",
    "nas_bench_macro": "inverted bottlenecks",
    "channel_bench_macro/mobilenet": "inverted bottlenecks",
    "accel_nasbench": "inverted bottlenecks",
    "ofa_mbv3": "inverted bottlenecks",
    "channel_bench_macro/resnet": "residual stages",
    "transnas_bench_101/macro": "residual stages",
    "imagenet_zoo": "real models",
    "imagenet_zoo/all": "real models",
    "imagenet_zoo/pytorchcv": "real models",
    "imagenet_zoo/timm": "real models",
    "imagenet_zoo/torchvision": "real models",
    "lemur": "real models",
    "cvpr2022_nas_track2_vit": "transformers",
}
"""Benchmark → broad family (transfer by likeness of the networks); one that is not here is a family of its own."""
FEW_LABELS = (16, 39, 78, 156, 781)
"""Numbers of labels that papers use on NAS-Bench-201 (781 are 5 %)."""


@dataclass(frozen=True)
class Part:
    """Networks of a target, and what a ranker may learn before it scores them.

    Attributes:
        train: Benchmarks to fit on.
        few: Labelled networks of the target to fine-tune on, or None.
        rows: (m,) positions in the target of the networks to score.
    """

    train: tuple[Benchmark, ...]
    few: Benchmark | None
    rows: Indices


@dataclass(frozen=True)
class Split:
    """One column of a grid: a target and who may learn what before scoring which of its networks.

    Attributes:
        name: Name of the target in the grid.
        target: All networks of the target.
        parts: Who scores which networks; the parts' networks are measured together.
        labels: Labels of the target that are given.
        draw: Number of the draw of those labels.
        copies: (n,) whether a network's graph is among those learnt from; such networks are scored, as papers do, but
            count only in `kendall_copies_kept`. None if there are none.
        counted: Whether the target enters the means.
    """

    name: str
    target: Benchmark
    parts: tuple[Part, ...]
    labels: int = 0
    draw: int = 0
    copies: NDArray[np.bool_] | None = None
    counted: bool = True


@dataclass
class Run:
    """What all protocols share.

    Attributes:
        rankers: See `Rankers`; trivial rankers are added.
        seeds: Seeds of the rankers, 0 up; with few labels, draws of those.
        limit: Networks taken of each space, drawn at random, unless its spec says otherwise; 0: all.
        accuracy: Also measure estimated accuracies and the coverage of their intervals, where a ranker gives some.
        trivial: Add the trivial rankers.
        folder: Folder that keeps every finished cell, so that a second run goes on where the first stopped; or None.
        root: Folder that holds benchmarks.
        download: Fetch missing benchmark files.
        report: Is told every cell when it is finished.
    """

    rankers: Rankers = ("archgauge",)
    seeds: int = 1
    limit: int = 400
    accuracy: bool = False
    trivial: bool = True
    folder: str | os.PathLike[str] | None = None
    root: str | os.PathLike[str] | None = None
    download: bool = False
    report: Report | None = None
    _trivial: dict[tuple[str, tuple[str, ...]], Floats] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if self.seeds < 1 or self.limit < 0:
            raise ConfigError(f"seeds is {self.seeds} and limit {self.limit}, expected at least 1 and 0")

    def entries(self) -> dict[str, RankerEntry]:
        """The rankers to run, by name, trivial ones last."""
        if isinstance(self.rankers, Mapping):
            chosen = {name: RankerEntry(make) for name, make in self.rankers.items()}
        else:
            chosen = {name: ranker_entry(name) for name in self.rankers}
        rest = {name: ranker_entry(name) for name in TRIVIAL_ROWS if self.trivial and name not in chosen}
        return chosen | rest


def leave_one_space_out(run: Run, *, spaces: Sequence[str] = SPACES, sources: Sequence[str] | None = None) -> Grid:
    """Every space in turn is ranked by what learnt from the others, its relatives left out with it.

    Args:
        run: Rankers, seeds and so on.
        spaces: Targets, each `name`, `name:task` or `name:task@networks`.
        sources: What to learn from; default: `SOURCES`.
    """
    return _leave_out("leave-one-space-out", run, spaces, sources, lambda one, other: False)


def families_out(run: Run, *, spaces: Sequence[str] = SPACES, sources: Sequence[str] | None = None) -> Grid:
    """As `leave_one_space_out`, but the target's whole broad family (`FAMILIES`) is left out too."""

    def kin(one: Benchmark, other: Benchmark) -> bool:
        return FAMILIES.get(one.name, one.name) == FAMILIES.get(other.name, other.name)

    return _leave_out("families-out", run, spaces, sources, kin)


def train_on(run: Run, *, sources: Sequence[str] = ("nas_bench_101@0",), spaces: Sequence[str] | None = None) -> Grid:
    """What learnt from `sources` alone ranks all `spaces` that are no relatives of theirs.

    Args:
        run: Rankers, seeds and so on.
        sources: Spaces to learn from.
        spaces: Targets; default: `SPACES`, NAS-Bench-201 with all of its networks.
    """
    if spaces is None:
        spaces = [f"{spec}@0" if spec.startswith("nas_bench_201") else spec for spec in SPACES]
    taught = load_spaces(run, sources)
    relatives = {bench.relatives for bench in taught}
    targets = [bench for bench in load_spaces(run, spaces) if bench.relatives not in relatives]
    if not targets:
        raise ConfigError(f"all targets are relatives of {', '.join(sources)}: name other spaces")
    train = without_graphs(teaching(taught, run.accuracy), [key for bench in targets for key in bench.hashes])
    splits = [split for target in targets for split in _views(target, train)]
    return _grid("train-on", run, splits, {"sources": list(sources), "spaces": list(spaces)})


def few_shot(
    run: Run,
    *,
    spaces: Sequence[str] = ("nas_bench_201:cifar10@0",),
    sources: Sequence[str] | None = None,
    labels: Sequence[int] = FEW_LABELS,
) -> Grid:
    """What learnt from other spaces gets a few labels of the target and ranks all the rest of it.

    Rankers that cannot be fine-tuned keep to what they learnt elsewhere.

    Args:
        run: Rankers, draws (as `seeds`) and so on.
        spaces: Targets.
        sources: What to learn from before.
        labels: Numbers of labels.
    """
    taught = load_spaces(run, _sources(sources))
    splits = []
    for target in load_spaces(run, spaces):
        lessons = _after(training_for(target, taught, run.accuracy), run)
        splits += [split for view in _with_views(target) for split in _draws(*view, labels, run.seeds, lessons)]
    about = {"sources": list(_sources(sources)), "spaces": list(spaces), "labels": list(labels)}
    return _grid("few-shot", run, splits, about)


def in_space(
    run: Run, *, spaces: Sequence[str] = ("nas_bench_201:cifar10@0",), labels: Sequence[int] = FEW_LABELS
) -> Grid:
    """A ranker learns from a few labels of the target alone and ranks all the rest of it; arguments as `few_shot`."""
    splits = [
        split
        for target in load_spaces(run, spaces)
        for view in _with_views(target)
        for split in _draws(*view, labels, run.seeds, lambda few: ((_untasked(few, run),), None))
    ]
    return _grid("in-space", run, splits, {"spaces": list(spaces), "labels": list(labels)})


def zoo(run: Run, *, spaces: Sequence[str] = ("imagenet_zoo@0",), sources: Sequence[str] = (), folds: int = 10) -> Grid:
    """Families of real models are left out, fold by fold, and ranked by what learnt from the rest.

    Args:
        run: Rankers, seeds and so on; the accuracies are measured too.
        spaces: Targets with families in their groups.
        sources: Other spaces to learn from as well.
        folds: Folds of families; 0 leaves out one family at a time.
    """
    run = replace(run, accuracy=True)
    taught = load_spaces(run, sources)
    splits = []
    for target in load_spaces(run, spaces):
        place = {name: at for at, name in enumerate(target.names)}
        count = len(set(target.groups))
        if count < 2:
            raise DataError(f"{target.name}: one family cannot be left out of itself, expected several groups")
        parts = []
        for train, test in target.group_folds(None if not folds else min(folds, count)):
            others = without_graphs(unrelated(target, taught), target.hashes)
            rows = np.array([place[name] for name in test.names], np.int64)
            parts.append(Part(teaching((train, *others), True), None, rows))
        splits.append(Split(_name(target), target, tuple(parts)))
    return _grid("zoo", run, splits, {"sources": list(sources), "spaces": list(spaces), "folds": folds})


PROTOCOLS: Mapping[str, Callable[..., Grid]] = {
    "leave-one-space-out": leave_one_space_out,
    "families-out": families_out,
    "train-on": train_on,
    "few-shot": few_shot,
    "in-space": in_space,
    "zoo": zoo,
}
"""Protocols by name."""


def run_protocol(name: str, run: Run, **options: Any) -> Grid:
    """Run the protocol called `name`; `options` that are None keep their defaults.

    Raises:
        ConfigError: There is no such protocol, or it has no such option.
    """
    function = look_up(PROTOCOLS, name, "protocol")
    given = {key: value for key, value in options.items() if value is not None}
    known = function.__kwdefaults__ or {}
    if unknown := [key for key in given if key not in known]:
        raise ConfigError(f"protocol {name!r} takes no {unknown[0]}, expected some of {', '.join(known)}")
    return function(run, **given)


# -- data ------------------------------------------------------------------------------------------------------------


def load_spaces(run: Run, specs: Iterable[str]) -> list[Benchmark]:
    """Benchmarks by spec: `name`, `name:task`, `name:task@networks`, or the name of one of the `SETS`.

    Without a number of networks of its own, each has at most `run.limit`.
    """
    found = []
    for spec in dict.fromkeys(part for given in specs for part in SETS.get(given, (given,))):
        rest, _, count = spec.partition("@")
        name, _, task = rest.partition(":")
        if count and not count.isdecimal():
            raise ConfigError(f"{spec!r}: expected a number of networks after the @, such as {rest}@400 or {rest}@0")
        limit = int(count) if count else run.limit
        # Seed 1: the draw that `evaluate BENCHMARK --limit` makes by default is another one.
        found.append(
            load_benchmark(name, task or None, root=run.root, download=run.download, limit=limit or None, seed=1)
        )
    return found


def training_for(
    target: Benchmark,
    sources: Sequence[Benchmark],
    accuracy: bool = False,
    kin: Callable[[Benchmark, Benchmark], bool] = lambda one, other: False,
) -> tuple[Benchmark, ...]:
    """What may be learnt from before the target is scored: no relatives, no graph of the target, no label of it.

    Args:
        target: The target.
        sources: All spaces at hand; the target may be among them.
        accuracy: See `teaching`.
        kin: Whether a source is to be left out too.

    Raises:
        DataError: Nothing is left.
    """
    apart = [source for source in unrelated(target, sources) if not kin(target, source)]
    train = without_graphs(teaching(apart, accuracy), target.hashes)
    if not train:
        raise DataError(f"without {target.name!r} and its relatives there is nothing to learn from: name more sources")
    return train


def unrelated(target: Benchmark, sources: Iterable[Benchmark]) -> tuple[Benchmark, ...]:
    """Those of `sources` that are no relatives of the target."""
    return tuple(s for s in sources if s.relatives != target.relatives and s.name != target.name)


def without_graphs(sources: Iterable[Benchmark], hashes: Iterable[str]) -> tuple[Benchmark, ...]:
    """The sources without networks of these hashes; those with nothing left are dropped."""
    taken = set(hashes)
    result = []
    for source in sources:
        kept = [at for at, key in enumerate(source.hashes) if key not in taken]
        if kept:
            result.append(source if len(kept) == len(source) else source.select(kept))
    return tuple(result)


def teaching(sources: Sequence[Benchmark], accuracy: bool) -> tuple[Benchmark, ...]:
    """The sources with only those tasks that may teach accuracies: labels of different budgets are never mixed.

    Args:
        sources: Benchmarks.
        accuracy: The first benchmark of a task teaches its accuracies, others of the task teach ranks. If False, all
            teach ranks only, which is quicker.
    """
    result: list[Benchmark] = []
    tasks: set[str] = set()
    for source in sources:
        keeps = accuracy and source.task not in tasks
        if keeps:
            tasks.add(source.task)
        result.append(source if keeps else replace(source, name=_name(source), task=""))
    return tuple(result)


def _sources(sources: Sequence[str] | None) -> Sequence[str]:
    return SOURCES if sources is None else sources


def _untasked(few: Benchmark, run: Run) -> Benchmark:
    return few if run.accuracy else replace(few, task="")


def _after(train: tuple[Benchmark, ...], run: Run) -> Lessons:
    """Fit on `train`, then fine-tune on the few."""
    return lambda few: (train, _untasked(few, run))


def _name(bench: Benchmark) -> str:
    """Name with the task, where the benchmark has several."""
    from ..datasets.registry import list_benchmarks

    record = next((record for record in list_benchmarks() if record.name == bench.name), None)
    several = record is not None and len(record.tasks) > 1
    return f"{bench.name}:{bench.task}" if several else bench.name


def _with_views(target: Benchmark) -> list[tuple[str, Benchmark, bool]]:
    """The target, and a part of it that papers measure on: name, networks, whether it enters the means."""
    views = [(_name(target), target, True)]
    if target.name == "nas_bench_201":
        live = [at for at, name in enumerate(target.names) if "none" not in name]
        if len(live) > 1:
            views.append((f"{_name(target)} without none", target.select(live), False))
    return views


def _views(target: Benchmark, train: tuple[Benchmark, ...]) -> list[Split]:
    return [
        Split(name, part, (Part(train, None, np.arange(len(part))),), counted=counted)
        for name, part, counted in _with_views(target)
    ]


def _leave_out(
    protocol: str,
    run: Run,
    spaces: Sequence[str],
    sources: Sequence[str] | None,
    kin: Callable[[Benchmark, Benchmark], bool],
) -> Grid:
    taught = load_spaces(run, _sources(sources))
    splits = [
        split
        for target in load_spaces(run, spaces)
        for split in _views(target, training_for(target, taught, run.accuracy, kin))
    ]
    return _grid(protocol, run, splits, {"sources": list(_sources(sources)), "spaces": list(spaces)})


def _draws(
    name: str,
    target: Benchmark,
    counted: bool,
    labels: Sequence[int],
    draws: int,
    lessons: Lessons,
) -> Iterator[Split]:
    """Random networks of the target to learn from, and all others to rank."""
    if min(labels, default=0) < 1:
        raise ConfigError(f"labels are {list(labels)}, expected numbers of at least 1")
    place = {key: at for at, key in enumerate(target.names)}
    for size in labels:
        if size >= len(target):
            continue
        for draw in range(draws):
            few, _ = target.split(size, seed=draw)
            taken = np.array([place[key] for key in few.names])
            seen = set(few.hashes)
            copies = np.array([key in seen for key in target.hashes])
            rows = np.setdiff1d(np.arange(len(target)), taken)
            train, tuned_on = lessons(few)
            yield Split(name, target, (Part(train, tuned_on, rows),), size, draw, copies, counted)


# -- running ---------------------------------------------------------------------------------------------------------


def run_splits(run: Run, splits: Sequence[Split], protocol: str) -> Grid:
    """Run all rankers on splits of one's own; see `Split`."""
    return _grid(protocol, run, splits, {})


def _grid(protocol: str, run: Run, splits: Sequence[Split], about: Mapping[str, Any]) -> Grid:
    cells: list[Cell] = []
    for name, entry in run.entries().items():
        code = _code_of(entry) if run.folder is not None else {}
        given = any(split.labels for split in splits)
        for seed in range(run.seeds if entry.seeded and entry.learns and not given else 1):
            fits = _Fits(entry.make, seed)
            for split in splits:
                cells += _cells_of(run, protocol, name, entry, seed, split, fits, code)
    packages = ("archgauge", "numpy", "lightgbm", "scikit-learn", "torch")
    versions = {package: version(package) for package in packages} | {"python": platform.python_version()}
    facts = {"seeds": run.seeds, "limit": run.limit, "rankers": list(run.entries()), "versions": versions}
    return Grid(protocol, tuple(cells), {**about, **facts})


class _Fits:
    """Fits a ranker; keeps the last one, since splits in a row often share what is learnt from."""

    def __init__(self, make: Callable[[int], Ranker], seed: int) -> None:
        self.make, self.seed = make, seed
        self._train: tuple[Benchmark, ...] | None = None
        self._ranker: Ranker | None = None

    def on(self, train: tuple[Benchmark, ...]) -> Ranker:
        if self._ranker is None or self._train is not train:
            self._train, self._ranker = train, self.make(self.seed).fit(train)
        return self._ranker


def _cells_of(
    run: Run,
    protocol: str,
    name: str,
    entry: RankerEntry,
    seed: int,
    split: Split,
    fits: _Fits,
    code: Mapping[str, str],
) -> list[Cell]:
    file = None
    if run.folder is not None:
        key = _key(protocol, name, seed, run.accuracy, split, code, entry.learns)
        file = Path(run.folder) / "cells" / f"{key}.json"
        if file.exists():
            try:
                return [Cell.from_dict(values) for values in json.loads(file.read_bytes())]
            except ValueError as error:
                raise DataError(f"{file}: not what a run wrote ({error}): delete the file") from error
    start = time.perf_counter()
    if not entry.learns:
        scores, estimates = {"single": _untaught(run, name, entry, split)}, None
    else:
        scores, estimates = _learnt(run, split, fits)
    seconds = time.perf_counter() - start
    rows = np.concatenate([part.rows for part in split.parts])
    training = tuple(dict.fromkeys(bench.name for part in split.parts for bench in part.train))
    cells = [
        Cell(
            ranker=name,
            mode=mode,
            target=split.name,
            seed=split.draw if split.labels else seed,
            labels=split.labels,
            n=int((~split.copies[rows]).sum()) if split.copies is not None else len(rows),
            metrics=_measured(split, rows, values, estimates if mode == "single" else None),
            counted=split.counted,
            training=training if entry.learns else (),
            scores=hashlib.sha256(np.ascontiguousarray(values, np.float64).tobytes()).hexdigest(),
            seconds=round(seconds, 3),
        )
        for mode, values in scores.items()
    ]
    if file is not None:
        with replacing(file) as stream:
            stream.write(json_text([cell.to_dict() for cell in cells]).encode())
    if run.report is not None:
        for cell in cells:
            run.report(cell)
    return cells


def _untaught(run: Run, name: str, entry: RankerEntry, split: Split) -> Floats:
    """Scores of a ranker that learns nothing, of the split's rows; computed once for each target."""
    key = name, split.target.hashes
    if key not in run._trivial:
        run._trivial[key] = entry.make(0).fit(()).rank_scores(split.target.graphs)
    rows = np.concatenate([part.rows for part in split.parts])
    return np.asarray(run._trivial[key][rows], np.float64)


def _learnt(run: Run, split: Split, fits: _Fits) -> tuple[dict[str, Floats], Floats | None]:
    """Scores by mode, and estimates, of the split's rows."""
    found: dict[str, list[Floats]] = {}
    estimates: list[Floats] = []
    for part in split.parts:
        ranker = fits.on(part.train)
        if part.few is not None and isinstance(ranker, TunableRanker):
            ranker = ranker.finetune(part.few)
        graphs = split.target.select(part.rows).graphs
        found.setdefault("single", []).append(ranker.rank_scores(graphs))
        if isinstance(ranker, PoolRanker) and len(split.parts) == 1:
            pooled = ranker.pool_scores(graphs)
            if pooled is not None:
                found.setdefault("pool", []).append(pooled)
        if run.accuracy and isinstance(ranker, EstimatingRanker):
            epochs = split.target.epochs  # where they are unknown, results as published: trained to the end
            estimate = ranker.estimates(graphs, split.target.task, inf if epochs is None else epochs)
            if estimate is not None:
                estimates.append(estimate)
    whole = np.concatenate(estimates) if len(estimates) == len(split.parts) else None
    return {mode: np.concatenate(values) for mode, values in found.items()}, whole


def _measured(split: Split, rows: Indices, values: Floats, estimates: Floats | None) -> dict[str, float]:
    truth = split.target.accuracy[rows]
    apart = np.ones(len(rows), bool) if split.copies is None else ~split.copies[rows]
    if not np.isfinite(values).all():
        raise DataError(f"{split.name}: {(~np.isfinite(values)).sum()} of {len(values)} scores are no finite numbers")
    found = {name: metric(truth[apart], values[apart]) for name, metric in RANK_METRICS.items()}
    if split.copies is not None:
        found["kendall_copies_kept"] = kendall(truth, values)
    if estimates is not None and split.target.unit == "percent":
        told, low, high = estimates[apart].T
        found["mae"] = mean_absolute_error(truth[apart], told)
        found["coverage"] = float(((low <= truth[apart]) & (truth[apart] <= high)).mean()) if apart.any() else nan
        found["width"] = float((high - low).mean()) if apart.any() else nan
    return found


def _code_of(entry: RankerEntry) -> dict[str, str]:
    """SHA-256 of every module a ranker's scores depend on; code outside of this package is not looked at."""
    root, registry = __name__.partition(".")[0], f"{__package__}.ranker"
    module = str(getattr(entry.make, "__module__", ""))
    own = module if module.startswith(f"{root}.") else registry
    hashes: dict[str, str] = {}
    waiting = [own, f"{__package__}.metrics"]
    while waiting:
        module = waiting.pop()
        package, _, name = module.rpartition(".")
        if module in hashes or package not in {f"{root}.{part}" for part in ("predictor", "datasets", "encoders")}:
            continue
        file = Path(import_module(package).__path__[0]) / f"{name}.py"
        if not file.is_file() or (module == registry != own):  # a ranker is registered there, and no more
            continue
        source = file.read_bytes()
        hashes[module] = hashlib.sha256(source).hexdigest()
        waiting += _imports(source, package)
    if f"{root}.encoders.registry" in hashes:
        for weights in (SHIPPED_GRAPH, SHIPPED_READINGS, SHIPPED_TEXT):
            hashes[weights.name] = hashlib.sha256(weights.read_bytes()).hexdigest()
    return dict(sorted(hashes.items()))


@cache
def _imports(source: bytes, package: str) -> tuple[str, ...]:
    """What the source of a module in `package` imports from elsewhere when it runs: modules, and what may be one."""
    found: list[str] = []
    nodes: list[ast.AST] = [ast.parse(source)]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.ImportFrom):
            base = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            found += [base, *(f"{base}.{alias.name}" for alias in node.names)]
        elif not (isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"):
            nodes += ast.iter_child_nodes(node)
    return tuple(found)


def _key(
    protocol: str, name: str, seed: int, accuracy: bool, split: Split, code: Mapping[str, str], learns: bool
) -> str:
    """Hash of all that a cell depends on: names, seed, data and the source code of the ranker."""
    lessons = [[*part.train, *([part.few] if part.few else [])] if learns else [] for part in split.parts]
    parts = [
        [list(map(_digest, taught)), part.rows.tolist()] for taught, part in zip(lessons, split.parts, strict=True)
    ]
    whole = [protocol, name, seed, accuracy, split.name, split.labels, split.draw, _digest(split.target), parts]
    return hashlib.sha256(json.dumps([whole, dict(code)]).encode()).hexdigest()[:24]


def _digest(bench: Benchmark) -> str:
    about = [bench.name, bench.task, bench.epochs]
    content = json.dumps([*about, bench.hashes, bench.accuracy.tolist(), bench.groups])
    return hashlib.sha256(content.encode()).hexdigest()
