"""Readers of the official distributions of benchmarks that researchers have on disk.

* NAS-Bench-101: `nasbench_only108.tfrecord` and `nasbench_full.tfrecord` (Ying et al. 2019), without TensorFlow.
* NAS-Bench-201: `NAS-Bench-201-v1_0-e61699.pth` and `-v1_1-096897.pth` (Dong & Yang 2020), without torch.
* NATS-Bench: `NATS-tss-v1_0-3ffb9` and `NATS-sss-v1_0-50262` (Dong et al. 2021), as one `.pickle.pbz2` file or as the
  folder `...-simple` with `meta.pickle.pbz2` and a file a network.

`load_official` makes a `Benchmark` of any of them; the functions below it give the labels alone, for any budget, split
and mean over trainings. The pickles go through `restricted_pickle`: nothing in them is ever called. A single large
pickle must be held in memory as a whole (the folders of NATS-Bench need not).

The layouts are those that the official readers expect; this module is tested on small files that the tests write in
exactly these layouts, since the distributions have up to several gigabytes. A file of an unforeseen content gives a
`DataError` that names the place.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..encoders.errors import ConfigError, DataError
from . import nas_bench_101, nas_bench_201, nats_bench_sss
from .benchmark import Benchmark
from .raw_files import check_spec, check_task, number
from .registry import assemble, benchmark_record
from .restricted_pickle import load_bz2_pickle, load_torch
from .tfrecord import double, protobuf_fields, read_records

Split = Literal["valid", "test"]
SPLITS = ("valid", "test")

_DATASETS = {"cifar10": "cifar10", "cifar100": "cifar100", "imagenet16_120": "ImageNet16-120"}
_CHECKPOINTS = 3
_META = "meta.pickle.pbz2"
_MEMBER = re.compile(r"0*([0-9]+)\.pickle\.pbz2")


@dataclass(frozen=True)
class OfficialLabels:
    """Labels out of an official file, one row a network.

    Attributes:
        benchmark: `nas_bench_101`, `nas_bench_201` or `nats_bench_sss`: the module that builds the specs.
        task: Data set the labels were measured on.
        specs: n specs.
        accuracy: Shape (n,), percent, mean over the trainings.
        runs: Shape (n,), trainings of each network.
        spread: Shape (n,), standard deviation between its trainings in percentage points; nan with one training.
        params: Shape (n,), parameters as published.
        seconds: Shape (n,), seconds of training as published, mean over the trainings; nan where they are not stored.
        label: The label budget in words.
        skipped: (spec, reason) of networks without this label.
        epochs: Epochs of the trainings; None if they were measured before their end.
    """

    benchmark: str
    task: str
    specs: tuple[str, ...]
    accuracy: NDArray[np.float64]
    runs: NDArray[np.int64]
    spread: NDArray[np.float64]
    params: NDArray[np.float64]
    seconds: NDArray[np.float64]
    label: str
    skipped: tuple[tuple[str, str], ...] = ()
    epochs: float | None = None

    def __len__(self) -> int:
        return len(self.specs)


def load_official(
    path: str | os.PathLike[str],
    task: str = "cifar10",
    *,
    split: Split = "test",
    epochs: int | None = None,
    limit: int | None = None,
    seed: int = 0,
    cache: str | os.PathLike[str] | None = None,
    progress: bool | None = None,
    workers: int | None = None,
) -> Benchmark:
    """Loads an official file (or folder) as a benchmark: its networks are built, its labels read.

    The kind is told by the name: `.tfrecord` is NAS-Bench-101, `.pth` NAS-Bench-201, `.pickle.pbz2` or a folder
    NATS-Bench.

    Args:
        path: The file or folder.
        task: `cifar10`, `cifar100` or `imagenet16_120`; NAS-Bench-101 has `cifar10` only.
        split: `test` or `valid`.
        epochs: Training epochs behind the label; default: the most there are (108, 200, 90).
        limit: Only so many networks, drawn at random before anything is built.
        seed: Seed of that draw.
        cache: Cache folder of the graphs; default as for `load_benchmark`.
        progress: Show bars on stderr; None: if stderr is a terminal.
        workers: Processes that build graphs; default 2.

    Raises:
        ConfigError: The name tells no kind, or an option has a value that does not exist.
        DataError: The file is damaged, or has no such label.
    """
    path = Path(path)
    if limit is not None and limit < 1:
        raise ConfigError(f"limit is {limit}, expected 1 or more networks")
    if path.name.endswith(".tfrecord"):
        check_task(task, nas_bench_101.TASKS, "NAS-Bench-101")
        labels = read_nas_bench_101(path, split=split, epochs=108 if epochs is None else epochs)
    elif path.name.endswith(".pth"):
        labels = read_nas_bench_201(path, task, split=split, epochs=200 if epochs is None else epochs)
    elif path.name.endswith(".pickle.pbz2") or path.is_dir():
        labels = read_nats_bench(path, task, split=split, epochs=epochs)
    else:
        raise ConfigError(f"{path}: expected a file .tfrecord, .pth or .pickle.pbz2, or a folder with {_META}")
    return assemble(
        benchmark_record(labels.benchmark),
        labels.task,
        labels.specs,
        labels.accuracy,
        label=labels.label,
        epochs=labels.epochs,
        skipped=labels.skipped,
        cached_as=f"official/{labels.benchmark}",
        limit=limit,
        seed=seed,
        cache=cache,
        progress=progress,
        workers=workers,
    )


# --- NAS-Bench-101 ---


def read_nas_bench_101(
    path: str | os.PathLike[str], *, split: Split = "test", epochs: int = 108, halfway: bool = False
) -> OfficialLabels:
    """Labels of a NAS-Bench-101 `.tfrecord` file.

    Every record is a JSON list: hash of the cell, epochs, adjacency matrix as digits, operations joined by commas, and
    a base64 text of the protobuf message `ModelMetrics` (`nasbench/lib/model_metrics.proto`), which holds evaluations
    before, halfway through and after the training. Both checksums of every record are checked.

    Args:
        path: The file; `nasbench_only108` has 108 epochs, `nasbench_full` also 4, 12 and 36.
        split: `test` or `valid`.
        epochs: Epochs of the training.
        halfway: Whether the evaluation halfway through the training is taken.

    Raises:
        ConfigError: There is no such split.
        DataError: The file is damaged or has no training of so many epochs.
    """
    path = Path(path)
    _check_split(split)
    known: set[int] = set()
    rows: dict[str, tuple[str, float, list[float], list[float]]] = {}
    for count, record in enumerate(read_records(path)):
        where = f"{path}, record {count}"
        key, budget, adjacency, operations, metrics = _nas_bench_101_row(record, where)
        known.add(budget)
        if budget != epochs:
            continue
        params, evaluations = _model_metrics(metrics, where)
        seconds, *accuracies = evaluations[1 if halfway else 2]
        if key not in rows:
            rows[key] = f"{adjacency}:{operations}", params, [], []
        spec, first_params, values, times = rows[key]
        if (f"{adjacency}:{operations}", params) != (spec, first_params):
            raise DataError(f"{where}: the cell {key!r} is another one here than before")
        values.append(accuracies[SPLITS.index(split)])
        times.append(seconds)
    if not rows:
        raise DataError(f"{path}: no training of {epochs} epochs, there are {_listed(known)}")
    return _labels(
        "nas_bench_101",
        "cifar10",
        (
            (_nas_bench_101_spec(spec, f"{path}, {key}"), [100 * value for value in values], params, times)
            for key, (spec, params, values, times) in rows.items()
        ),
        f"{_SPLIT_WORDS[split]} after {'half of ' if halfway else ''}{epochs} epochs, own weights",
        None if halfway else epochs,
        (),
        path,
    )


def _nas_bench_101_spec(spec: str, where: str) -> str:
    return nas_bench_101.spec_of(nas_bench_101.parse(check_spec(spec, nas_bench_101.parse, where)))


def _nas_bench_101_row(record: bytes, where: str) -> tuple[str, int, str, str, bytes]:
    try:
        row = json.loads(record)
        key, epochs, adjacency, operations, metrics = row
        content = base64.b64decode(metrics, validate=True)
    except (ValueError, TypeError, RecursionError, binascii.Error) as error:
        raise DataError(
            f"{where}: expected a JSON list of hash, epochs, adjacency, operations and metrics: {error}"
        ) from error
    if type(epochs) is not int or any(not isinstance(text, str) for text in (key, adjacency, operations)):
        raise DataError(f"{where}: hash, adjacency and operations should be texts, epochs a whole number; got {row!r}")
    return key, epochs, adjacency, operations, content


def _model_metrics(message: bytes, where: str) -> tuple[float, list[tuple[float, float, float]]]:
    """Parameters, and (seconds, validation accuracy, test accuracy as shares) of each evaluation of `ModelMetrics`."""
    params = -1
    evaluations: list[tuple[float, float, float]] = []
    for field_number, value in protobuf_fields(message, where):
        if field_number == 1 and isinstance(value, bytes):
            numbers = {
                inner: double(content, where) for inner, content in protobuf_fields(value, where) if 1 <= inner <= 5
            }
            evaluations.append((numbers.get(2, 0.0), numbers.get(4, 0.0), numbers.get(5, 0.0)))
        elif field_number == 2 and isinstance(value, int):
            params = value
    if len(evaluations) != _CHECKPOINTS or params < 0:
        raise DataError(
            f"{where}: {len(evaluations)} evaluations and {max(params, 0):,} parameters, expected {_CHECKPOINTS} "
            "evaluations (start, half, end) and a number of parameters"
        )
    return float(params), evaluations


# --- NAS-Bench-201 and NATS-Bench ---


def read_nas_bench_201(
    path: str | os.PathLike[str], task: str = "cifar10", *, split: Split = "test", epochs: int = 200
) -> OfficialLabels:
    """Labels of a NAS-Bench-201 `.pth` file.

    The file holds `meta_archs` (cell strings), `evaluated_indexes` and `arch2infos`: for every index the results `full`
    (200 epochs) and `less` (12 epochs), each with its trainings by data set and seed.

    Args:
        path: The file.
        task: One of `nas_bench_201.TASKS`.
        split: `test`: trained on all training images, `cifar10` tested on the test set, the others on one half of it.
            `valid`: `cifar10` trained on half of the training images and tested on the other half, the others tested
            on the other half of the test set.
        epochs: 200 or 12.

    Raises:
        ConfigError: There is no such split.
        DataError: The file is damaged or holds something else, or the task or epochs do not exist.
    """
    path = Path(path)
    check_task(task, nas_bench_201.TASKS, "NAS-Bench-201")
    _check_split(split)
    budgets = {200: "full", 12: "less"}
    if epochs not in budgets:
        raise DataError(f"NAS-Bench-201 has no training of {epochs} epochs, expected {_listed(set(budgets))}")
    content = load_torch(path)
    archs = _architectures(content, str(path))
    entries = (
        (archs[at], _entry(results, budgets[epochs], f"{path}, network {at}"))
        for at, results in _results(content, archs, str(path))
    )
    return _trainings("nas_bench_201", task, entries, split, epochs, path)


def read_nats_bench(
    path: str | os.PathLike[str], task: str = "cifar10", *, split: Split = "test", epochs: int | None = None
) -> OfficialLabels:
    """Labels of NATS-Bench, topology (cells of NAS-Bench-201) or size space, told by its content.

    Args:
        path: A `.pickle.pbz2` file with all networks, or a folder with `meta.pickle.pbz2` and a file a network.
        task: One of `nas_bench_201.TASKS`; archgauge builds networks of the size space for `cifar10` only.
        split: As for `read_nas_bench_201`.
        epochs: 12 or 200 (topology), 1, 12 or 90 (size); default: the most.

    Raises:
        ConfigError: There is no such split.
        DataError: The file is damaged or holds something else, or the task or epochs do not exist.
    """
    path = Path(path)
    _check_split(split)
    check_task(task, nas_bench_201.TASKS, "NATS-Bench")
    archs, entries = _nats_folder(path) if path.is_dir() else _nats_file(path)
    space = "nats_bench_sss" if archs and ":" in archs[0] else "nas_bench_201"
    budgets = {12: "12", 200: "200"} if space == "nas_bench_201" else {1: "01", 12: "12", 90: "90"}
    wanted = max(budgets) if epochs is None else epochs
    if wanted not in budgets:
        raise DataError(f"{path}: no training of {wanted} epochs, expected {_listed(set(budgets))}")
    chosen = ((archs[at], _entry(results, budgets[wanted], f"{path}, network {at}")) for at, results in entries)
    return _trainings(space, task, chosen, split, wanted, path)


def _nats_file(path: Path) -> tuple[list[str], Iterator[tuple[int, Any]]]:
    content = load_bz2_pickle(path)
    archs = _architectures(content, str(path))
    return archs, _results(content, archs, str(path))


def _nats_folder(path: Path) -> tuple[list[str], Iterator[tuple[int, Any]]]:
    meta = path / _META
    if not meta.is_file():
        raise DataError(f"{path}: no {_META}, expected the unpacked folder of NATS-Bench")
    archs = _architectures(load_bz2_pickle(meta), str(meta))
    files: dict[int, Path] = {}
    for file in sorted(path.iterdir()):
        match = _MEMBER.fullmatch(file.name)
        if match is None:
            continue
        at = int(match[1])
        if at >= len(archs) or at in files:
            raise DataError(f"{file}: expected one file each for the networks 0 to {len(archs) - 1:,}")
        files[at] = file
    return archs, ((at, load_bz2_pickle(files[at])) for at in sorted(files))


def _architectures(content: Any, source: str) -> list[str]:
    archs = _entry(content, "meta_archs", source)
    if not isinstance(archs, list) or not archs or any(not isinstance(arch, str) for arch in archs):
        raise DataError(f"{source}: meta_archs should be a list of texts")
    for at, arch in enumerate(archs):
        check_spec(arch, nats_bench_sss.parse if ":" in arch else nas_bench_201.parse, f"{source}, network {at}")
    if len(set(archs)) != len(archs):
        raise DataError(f"{source}: meta_archs names a network twice")
    return archs


def _results(content: Any, archs: list[str], source: str) -> Iterator[tuple[int, Any]]:
    """Index and results of every network, by index."""
    results = _entry(content, "arch2infos", source)
    if not isinstance(results, dict) or any(type(at) is not int or not 0 <= at < len(archs) for at in results):
        raise DataError(f"{source}: arch2infos should be a dict by index, 0 to {len(archs) - 1:,}")
    return ((at, results[at]) for at in sorted(results))


def _entry(row: Any, key: object, where: str) -> Any:
    """`row[key]`, or a `DataError` that says where it is missing."""
    if not isinstance(row, dict) or key not in row:
        keys = ", ".join(repr(name) for name in list(row)[:8]) if isinstance(row, dict) else type(row).__name__
        raise DataError(f"{where}: no entry {key!r}; found {keys or 'none'}")
    return row[key]


def _trainings(
    space: str, task: str, entries: Iterator[tuple[str, Any]], split: Split, epochs: int, path: Path
) -> OfficialLabels:
    """The labels in the results (`ArchResults` as a dict) of every network."""
    trained, evaluated = _DATASETS[task], "ori-test" if task == "cifar10" else "x-test"
    if split == "valid":
        trained, evaluated = ("cifar10-valid" if task == "cifar10" else trained), "x-valid"
    skipped: list[tuple[str, str]] = []

    def rows() -> Iterator[tuple[str, list[float], float, list[float]]]:
        for spec, results in entries:
            where = f"{path}, {spec}"
            seeds = _entry(results, "dataset_seed", where)
            if not isinstance(seeds, dict) or not isinstance(seeds.get(trained, []), list):
                raise DataError(f"{where}: dataset_seed should be a dict of lists")
            runs = [
                _entry(_entry(results, "all_results", where), (trained, at), where) for at in seeds.get(trained, [])
            ]
            key = f"{evaluated}@{epochs - 1}"
            values = [number(_entry(_entry(run, "eval_acc1es", where), key, where), f"{where}, {key}") for run in runs]
            if not values:
                skipped.append((spec, f"no training on {trained} with {epochs} epochs"))
                continue
            params = 1e6 * number(_entry(runs[0], "params", where), f"{where}, params")
            yield spec, values, params, [_seconds(run.get("train_times"), where) for run in runs]

    label = f"{_SPLIT_WORDS[split]} after {epochs} epochs, own weights, trained on {trained}, evaluated on {evaluated}"
    return _labels(space, task, rows(), label, epochs, skipped, path)


def _seconds(times: Any, where: str) -> float:
    """Seconds of a training, from a dict by epoch; nan if there is none."""
    if not isinstance(times, dict) or not times:
        return float("nan")
    return sum(number(value, f"{where}, train_times") for value in times.values())


_SPLIT_WORDS = {"valid": "validation accuracy", "test": "test accuracy"}


def _labels(
    benchmark: str,
    task: str,
    rows: Iterator[tuple[str, list[float], float, list[float]]],
    label: str,
    epochs: float | None,
    skipped: list[tuple[str, str]] | tuple[()],
    path: Path,
) -> OfficialLabels:
    """Collects rows of spec, accuracies in percent, parameters and seconds."""
    specs: list[str] = []
    columns: list[tuple[float, float, float, float, float]] = []
    for spec, values, params, times in rows:
        if any(not 0 <= value <= 100.001 for value in values):
            raise DataError(f"{path}, {spec}: accuracies {values}, expected percent from 0 to 100")
        spread = float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")
        specs.append(spec)
        columns.append((min(float(np.mean(values)), 100.0), len(values), spread, params, float(np.mean(times))))
    if not specs:
        reason = f"; {skipped[0][0]}: {skipped[0][1]}" if skipped else ""
        raise DataError(f"{path}: no network has this label{reason}")
    accuracy, runs, spreads, parameters, seconds = np.array(columns).T
    return OfficialLabels(
        benchmark=benchmark,
        task=task,
        specs=tuple(specs),
        accuracy=accuracy,
        runs=runs.astype(np.int64),
        spread=spreads,
        params=parameters.round(),
        seconds=seconds,
        label=f"{label}, mean of {int(runs.min())} to {int(runs.max())} trainings",
        skipped=tuple(skipped),
        epochs=epochs,
    )


def _check_split(split: str) -> None:
    if split not in SPLITS:
        raise ConfigError(f"split is {split!r}, expected {' or '.join(map(repr, SPLITS))}")


def _listed(numbers: set[int]) -> str:
    return ", ".join(map(str, sorted(numbers))) or "none"
