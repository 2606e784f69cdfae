"""The command `benchmarks/text.py`: round trips are kept, go on and find what is lost; texts of the ablation."""

import importlib
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import pytest

from archgauge.datasets import nas_bench_101, nas_bench_macro
from archgauge.datasets.graph_store import GraphStore
from archgauge.encoders.onnx_reader import read
from archgauge.encoders.text import describe

ROOT = Path(__file__).resolve().parents[1]
GRAPHS = [read(nas_bench_macro.build(spec, "cifar10")) for spec in nas_bench_macro.sample(6, 0)]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("text")


def test_round_trips_are_kept_and_go_on(script, tmp_path, monkeypatch, capsys):
    asked = []

    def sources(part, samples):
        yield "first", lambda: asked.append("first") or GraphStore.from_graphs(GRAPHS[:4])
        yield "second", lambda: asked.append("second") or GRAPHS[2:]

    monkeypatch.setattr(script, "sources", sources)
    file = tmp_path / "done.jsonl"
    script.roundtrip(file, "all", 10, None, float("inf"))
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "first: 4 of 4, 4 new, 0 lost so far"
    assert said[1] == "second: 4 of 4, 2 new, 0 lost so far"
    assert said[2].startswith("2 sources of which every network was seen, 0 not at hand; 8 networks, 6 different ones")
    assert said[2].endswith("0 did not come back, 0 texts stand for two graphs")
    whole = file.read_text()
    file.write_text(whole.splitlines()[0] + "\n")
    script.roundtrip(file, "all", 10, None, float("inf"))
    assert asked == ["first", "second", "second"]
    assert file.read_text() == whole
    assert capsys.readouterr().out.splitlines()[-1] == said[2]
    file.unlink()
    script.roundtrip(file, "all", 10, 3, float("inf"))
    said = capsys.readouterr().out.splitlines()
    assert [line.partition(",")[0] for line in said[:2]] == ["first: 3 of 4", "second: 3 of 4"]
    assert said[2].startswith("0 sources")
    script.roundtrip(file, "all", 10, None, float("inf"))
    assert "2 sources of which every network was seen, 0 not at hand; 8 networks, 6 diff" in capsys.readouterr().out


def test_round_trips_find_what_is_lost_and_what_is_told_alike(script, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(script, "sources", lambda part, samples: [("all", lambda: GRAPHS)])
    one = describe(GRAPHS[0])
    monkeypatch.setattr(script, "describe", lambda graph, level: one)
    script.roundtrip(tmp_path / "done.jsonl", "all", 10, None, float("inf"))
    assert "5 did not come back, 10 texts stand for two graphs" in capsys.readouterr().out


def test_texts_of_the_ablation_say_less_and_less(script):
    graph = read(nas_bench_101.build(nas_bench_101.sample(1, 0)[0], "cifar10"))
    lines = {name: write(graph).splitlines() for name, write in script.VARIANTS.items()}
    names = ["operators only", "+ parameters", "+ shapes", "+ wiring (full)"]
    assert len({len(lines[name]) for name in names}) == 1
    for less, more in pairwise(names):
        for short, long in zip(lines[less][1:], lines[more][1:], strict=True):
            words = iter(long.split())
            assert all(word in words for word in short.split())
        assert sum(map(len, lines[less])) < sum(map(len, lines[more]))
    assert {len(line.split()) for line in lines["operators only"][1:]} == {1}
