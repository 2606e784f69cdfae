"""A training run from its configuration: data, honest table, predictor, and a folder that records it all."""

from __future__ import annotations

import csv
import hashlib
import io
import os
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ..datasets.benchmark import Benchmark, leave_space_out
from ..datasets.registry import load_benchmark
from ..encoders.errors import ConfigError
from ..encoders.files import make_folder, replacing
from .config import TrainConfig
from .evaluation import Evaluation, leave_groups_out
from .model import Predictor
from .tables import json_text

_PACKAGES = ("archgauge", "torch", "onnx", "lightgbm", "scikit-learn", "numpy", "scipy")


@dataclass(frozen=True)
class Run:
    """What a training run leaves behind.

    Attributes:
        predictor: Fitted on all benchmarks of the run.
        evaluations: The table: what predictors scored on families (or whole spaces) that they had not seen.
        folder: Where it was saved.
    """

    predictor: Predictor
    evaluations: tuple[Evaluation, ...]
    folder: Path


def train(
    config: TrainConfig,
    *,
    root: str | os.PathLike[str] | None = None,
    download: bool = False,
    progress: bool = False,
    report: Callable[[str], None] = lambda text: None,
) -> Run:
    """Trains a predictor, measures it out of family or out of space, and saves the run.

    The folder `config.out` then holds `config.toml` (resolved), `run.json` (versions, data hashes), `metrics.json`,
    `predictions.csv` (what was said of every network while its family or space was left out) and `predictor/`.

    Args:
        config: What to do.
        root: Folder that holds benchmarks; default as in `load_benchmark`.
        download: Fetch missing benchmark files.
        progress: Show progress bars.
        report: Called with each table as soon as it is known.

    Raises:
        ConfigError: Unknown benchmark, encoder or head.
        DataError: A benchmark is missing or damaged.
    """
    folder = make_folder(config.out)
    benchmarks = [_load(name, config, root, download, progress) for name in config.benchmarks]
    evaluations: list[Evaluation] = []
    if config.folds:
        for evaluation in _cross_validate(config, benchmarks, progress):
            evaluations.append(evaluation)
            report(evaluation.table())
    predictor = _new(config).fit(benchmarks, progress=progress)
    _write(folder / "config.toml", config.to_toml())
    _write(folder / "run.json", json_text(_record(config, benchmarks)))
    _write(folder / "metrics.json", json_text([evaluation.to_dict() for evaluation in evaluations]))
    _write(folder / "predictions.csv", _predictions(evaluations))
    predictor.save(folder / "predictor")
    return Run(predictor, tuple(evaluations), folder)


def _new(config: TrainConfig) -> Predictor:
    return Predictor(config.encoders, config.heads, n_seeds=config.n_seeds, seed=config.seed)


def _load(
    spec: str, config: TrainConfig, root: str | os.PathLike[str] | None, download: bool, progress: bool
) -> Benchmark:
    name, _, task = spec.partition(":")
    return load_benchmark(
        name,
        task or None,
        root=root,
        download=download,
        limit=config.limit or None,
        seed=config.seed,
        progress=progress or None,
    )


def _cross_validate(config: TrainConfig, benchmarks: Sequence[Benchmark], progress: bool) -> list[Evaluation]:
    """One benchmark: groups left out; several: one space at a time left out."""
    if len(benchmarks) == 1:
        (benchmark,) = benchmarks
        folds = min(config.folds, len(set(benchmark.groups)))
        if folds < 2:
            raise ConfigError(f"{benchmark.name}: one family cannot be left out of itself; set folds to 0")
        return [leave_groups_out(lambda: _new(config), benchmark, folds, config.seed, progress=progress)]
    results = []
    for target in benchmarks:
        sources, test = leave_space_out(benchmarks, target.name)
        if sources:
            results.append(_new(config).fit(sources, progress=progress).evaluate(test))
    return results


def _record(config: TrainConfig, benchmarks: Sequence[Benchmark]) -> dict[str, Any]:
    return {
        "versions": {name: version(name) for name in _PACKAGES} | {"python": platform.python_version()},
        "machine": {"system": platform.system(), "architecture": platform.machine(), "cores": os.cpu_count()},
        "data": [benchmark.summary() | {"sha256": _data_hash(benchmark)} for benchmark in benchmarks],
        "seed": config.seed,
    }


def _data_hash(benchmark: Benchmark) -> str:
    """SHA-256 of names, graph hashes and accuracies, in order."""
    digest = hashlib.sha256()
    for name, graph, accuracy in zip(benchmark.names, benchmark.hashes, benchmark.accuracy.tolist(), strict=True):
        digest.update(f"{name}\t{graph}\t{accuracy!r}\n".encode())
    return digest.hexdigest()


def _predictions(evaluations: Sequence[Evaluation]) -> str:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("benchmark", "task", "name", "measured", "accuracy", "low", "high", "rank_score", "distance"))
    for evaluation in evaluations:
        for score, measured in zip(evaluation.scores, evaluation.accuracy.tolist(), strict=True):
            writer.writerow(
                (
                    evaluation.benchmark,
                    evaluation.task,
                    score.name,
                    measured,
                    score.accuracy,
                    score.low,
                    score.high,
                    score.rank_score,
                    score.distance,
                )
            )
    return text.getvalue()


def _write(path: Path, text: str) -> None:
    with replacing(path) as file:
        file.write(text.encode())
