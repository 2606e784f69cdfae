"""The commands `benchmarks/spaces.py`, `benchmarks/load.py` and `benchmarks/label_levels.py`."""

import importlib
import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from archgauge.datasets.onnx_builder import OnnxBuilder

ROOT = Path(__file__).resolve().parents[1]


def script(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module(name)


def test_spaces_are_checked_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    spaces = script("spaces", monkeypatch)
    call = ["--networks", "40", "--only", "lemur", "--out", str(tmp_path / "out.json"), "--json"]
    assert spaces.main(call) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert {row[key] for key in ("size", "networks", "valid", "read", "counted", "specs", "graphs")} == {35}
    assert (row["space"], row["constant"], row["failures"]) == ("lemur", 0, [])
    monkeypatch.setattr(spaces, "draw", None)
    assert spaces.main(call) == 0
    assert json.loads(capsys.readouterr().out) == [row]


def test_spaces_tell_what_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    spaces = script("spaces", monkeypatch)
    good, *wrong = OnnxBuilder("good", (3, 8, 8)), OnnxBuilder("invalid", (3, 8, 8)), OnnxBuilder("zero", (3, 8, 8))
    models = {"good": good.build(good.conv(good.input, 4))}
    models["invalid"] = wrong[0].build(wrong[0].conv(wrong[0].input, 4))
    models["invalid"].graph.node[0].op_type = "Nonsense"
    models["free"] = wrong[1].build(wrong[1].relu(wrong[1].input))
    empty = OnnxBuilder("constant", (3, 8, 8))
    models["constant"] = empty.build(empty.zero(empty.conv(empty.input, 4)))

    class Source:
        @staticmethod
        def build(spec: str, task: str) -> object:
            return models[spec]

    monkeypatch.setattr(spaces, "builder", lambda module, space: Source)
    found = dict(zip(models, spaces.check("m", "s", "t", list(models)), strict=True))
    assert [tuple(row[:4]) for row in found.values()] == [
        (True, True, True, False),
        (False, False, False, False),
        (True, True, False, False),
        (True, True, False, True),
    ]
    assert "Nonsense" in found["invalid"].wrong
    assert found["free"].wrong == "0 parameters, 0 multiply-accumulates"
    assert found["good"].wrong == found["constant"].wrong == ""


def test_the_same_cells_are_compared_at_all_budgets(benchmarks_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARCHGAUGE_DATA", str(benchmarks_root))
    levels = script("label_levels", monkeypatch)
    found = levels.budgets()
    assert {epochs: len(accuracy) for epochs, accuracy in found.items()} == dict.fromkeys((4, 12, 36, 108), 91)
    medians = [levels.logit(float(np.median(accuracy))) for accuracy in found.values()]
    assert medians == sorted(medians)


def test_loading_is_measured_once(
    benchmarks_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    load = script("load", monkeypatch)
    monkeypatch.setenv("ARCHGAUGE_DATA", str(benchmarks_root))
    call = ["--only", "nas_bench_macro", "--limit", "5", "--out", str(tmp_path / "out.json")]
    assert load.main([*call, "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["benchmark"], row["task"], row["networks"], row["graphs"]) == ("nas_bench_macro", "cifar10", 5, 5)
    assert min(row[key] for key in ("first", "first_cpu", "cached", "cached_cpu", "memory")) > 0
    monkeypatch.setattr(load, "measure", None)
    assert load.main(call) == 0
    assert "nas_bench_macro" in capsys.readouterr().out
