"""A training run end to end: what it leaves behind, and that the same seed leaves the same."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from archgauge.encoders.errors import ConfigError
from archgauge.predictor.config import TrainConfig
from archgauge.predictor.model import Predictor
from archgauge.predictor.training import train

QUICK = TrainConfig(heads=("gbdt",), n_seeds=1, folds=3, limit=80)


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_run_is_recorded_and_reproducible(tmp_path: Path) -> None:
    tables: list[str] = []
    run = train(QUICK.updated(out=str(tmp_path / "a")), report=tables.append)
    assert {"config.toml", "run.json", "metrics.json", "predictions.csv"} <= set(files(run.folder))
    assert "macs" in tables[0]
    assert "best trivial" in tables[0]
    assert TrainConfig.load(run.folder / "config.toml") == QUICK.updated(out=str(tmp_path / "a"))
    record = json.loads((run.folder / "run.json").read_text())
    assert record["data"][0]["n"] == 80
    assert len(record["data"][0]["sha256"]) == 64
    with (run.folder / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 80
    assert len({row["name"] for row in rows}) == 80
    again = train(QUICK.updated(out=str(tmp_path / "b")))
    first, second = files(run.folder), files(again.folder)
    del first["config.toml"], second["config.toml"]  # names its own folder
    assert first == second
    loaded = Predictor.load(run.folder / "predictor")
    networks = [run.predictor.score(g)[0].rank_score for g in _graphs(3)]
    assert [loaded.score(g)[0].rank_score for g in _graphs(3)] == networks


def _graphs(n: int) -> list:  # type: ignore[type-arg]
    import archgauge as ag

    return list(ag.load_benchmark("imagenet_zoo", limit=n).graphs)


def test_several_benchmarks_leave_one_space_out(benchmarks_root: Path, tmp_path: Path) -> None:
    config = QUICK.updated(benchmarks=("nas_bench_201:cifar10", "nas_bench_macro"), out=str(tmp_path / "run"))
    run = train(config, root=benchmarks_root)
    assert [e.benchmark for e in run.evaluations] == ["nas_bench_201", "nas_bench_macro"]
    assert all(np.isfinite(e["spearman"]) for e in run.evaluations)


def test_unknown_names_are_refused_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="gbtd"):
        train(QUICK.updated(heads=("gbtd",), out=str(tmp_path)))
    with pytest.raises(ConfigError, match="imagenet_zoo"):
        train(QUICK.updated(benchmarks=("imagenetzoo",), out=str(tmp_path)))
