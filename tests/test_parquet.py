"""Benchmarks as Parquet tables with their graphs beside them, and as pictures."""

import builtins
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from archgauge.datasets import nas_bench_macro
from archgauge.datasets.benchmark import Benchmark
from archgauge.datasets.graph_store import GraphStore
from archgauge.encoders.errors import ConfigError, DataError, OutputError
from archgauge.encoders.onnx_reader import read

SPECS = nas_bench_macro.sample(5, 0)


@pytest.fixture(scope="module")
def bench() -> Benchmark:
    graphs = [read(nas_bench_macro.build(spec, "cifar10")) for spec in SPECS]
    return Benchmark(
        name="folder/space",
        task="cifar10",
        graphs=GraphStore.from_graphs([*graphs, graphs[0]]),
        accuracy=np.array([-1.5, 1 / 3, 2.0, 3.0, 4.0, -7e300]),
        names=(*SPECS, 'Ünïcode, "quoted"\n'),
        groups=("a", "a", "b", "b", "c", "a"),
        relatives="relatives",
        label="after a while",
        licence="MIT",
        skipped=(("bad", "line 3: no"),),
        unit="minus nats",
        side={"latency_ms": np.array([1.0, 2.0, np.nan, 4.0, 5.0, 6.0])},
        epochs=36,
    )


def same(first: Benchmark, second: Benchmark) -> None:
    alike = ("name", "task", "names", "groups", "relatives", "label", "licence", "skipped", "unit", "epochs", "hashes")
    for name in alike:
        assert getattr(first, name) == getattr(second, name)
    assert first.accuracy.tolist() == second.accuracy.tolist()
    assert list(first.graphs) == list(second.graphs)
    assert list(first.side) == list(second.side)
    for name, values in first.side.items():
        np.testing.assert_array_equal(values, second.side[name])


def test_nothing_is_lost(bench: Benchmark, tmp_path: Path) -> None:
    path = tmp_path / "new" / "table.parquet"
    bench.to_parquet(path)
    assert sorted(file.name for file in path.parent.iterdir()) == ["table.graphs.safetensors", "table.parquet"]
    same(Benchmark.from_parquet(path), bench)


def test_parts_and_plain_graphs_are_written_too(bench: Benchmark, tmp_path: Path) -> None:
    part = bench.select([4, 0])
    part.to_parquet(tmp_path / "part.parquet")
    same(Benchmark.from_parquet(tmp_path / "part.parquet"), part)
    assert len(GraphStore.load(tmp_path / "part.graphs.safetensors")) == 2
    plain = Benchmark("a", "t", tuple(part.graphs), np.array([1.0, 2.0]), ("x", "y"))
    plain.to_parquet(tmp_path / "plain.parquet")
    same(Benchmark.from_parquet(tmp_path / "plain.parquet"), plain)


def test_tables_from_before_budgets_are_read(bench: Benchmark, tmp_path: Path) -> None:
    path = tmp_path / "table.parquet"
    bench.to_parquet(path)
    content = pyarrow.parquet.read_table(path)
    about = json.loads(content.schema.metadata[b"archgauge"])
    assert about.pop("epochs") == 36
    pyarrow.parquet.write_table(content.replace_schema_metadata({"archgauge": json.dumps(about)}), path)
    same(Benchmark.from_parquet(path), replace(bench, epochs=None))


def test_other_programs_can_read_the_table(bench: Benchmark, tmp_path: Path) -> None:
    bench.to_parquet(tmp_path / "table.parquet")
    table = pyarrow.parquet.read_table(tmp_path / "table.parquet").to_pydict()
    assert list(table) == ["name", "accuracy", "group", "hash", "params", "macs", "side.latency_ms"]
    assert table["params"] == bench.params.tolist()
    assert table["macs"] == [graph.macs for graph in bench.graphs]


def test_the_same_benchmark_gives_the_same_bytes(bench: Benchmark, tmp_path: Path) -> None:
    for name in ("one", "two"):
        bench.to_parquet(tmp_path / f"{name}.parquet")
    for ending in ("parquet", "graphs.safetensors"):
        assert (tmp_path / f"one.{ending}").read_bytes() == (tmp_path / f"two.{ending}").read_bytes()


def test_damaged_or_foreign_tables_are_refused(bench: Benchmark, tmp_path: Path) -> None:
    path = tmp_path / "table.parquet"
    with pytest.raises(DataError, match="does not exist"):
        Benchmark.from_parquet(path)
    bench.to_parquet(path)
    whole, graphs = path.read_bytes(), tmp_path / "table.graphs.safetensors"
    for content in (b"", b"no table", whole[: len(whole) // 2], whole[:-20]):
        path.write_bytes(content)
        with pytest.raises(DataError, match="not a readable Parquet table"):
            Benchmark.from_parquet(path)
    foreign = pyarrow.table({"name": ["a"], "accuracy": [1.0]})
    pyarrow.parquet.write_table(foreign, path)
    with pytest.raises(DataError, match=r"not a table that Benchmark\.to_parquet wrote"):
        Benchmark.from_parquet(path)
    about: dict[str, Any] = dict.fromkeys(("name", "task", "relatives", "label", "licence", "unit"), "x")
    about |= {"format": 2, "skipped": []}
    pyarrow.parquet.write_table(foreign.replace_schema_metadata({"archgauge": json.dumps(about)}), path)
    with pytest.raises(DataError, match="a table of format 2, missing columns group, hash, params, macs"):
        Benchmark.from_parquet(path)
    path.write_bytes(whole)
    bench.graphs[:2].save(graphs)  # type: ignore[attr-defined]
    with pytest.raises(DataError, match=r"table\.graphs\.safetensors: holds other graphs than .*table\.parquet"):
        Benchmark.from_parquet(path)
    graphs.unlink()
    with pytest.raises(DataError, match=r"table\.graphs\.safetensors"):
        Benchmark.from_parquet(path)


def test_pictures_are_png_and_always_the_same(bench: Benchmark, tmp_path: Path) -> None:
    ranks = bench.select([0, 1, 2, 3, 4])
    percent = Benchmark("a", "t", ranks.graphs, ranks.accuracy + 2, ranks.names)
    pictures = []
    for number, one in enumerate((ranks, ranks, percent)):
        one.histogram(tmp_path / f"{number}.png", bins=5)
        pictures.append((tmp_path / f"{number}.png").read_bytes())
    assert pictures[0].startswith(b"\x89PNG")
    assert pictures[0] == pictures[1] != pictures[2]
    with pytest.raises(ConfigError, match="bins is 0"):
        bench.histogram(tmp_path / "none.png", bins=0)
    with pytest.raises(OutputError, match=r"0\.png"):
        bench.histogram(tmp_path / "0.png" / "inside.png")


@pytest.mark.parametrize(("package", "extra"), [("pyarrow", "parquet"), ("matplotlib", "plots")])
def test_missing_packages_are_named(
    bench: Benchmark, package: str, extra: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.split(".")[0] == package:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    calls = {"pyarrow": (bench.to_parquet, Benchmark.from_parquet), "matplotlib": (bench.histogram,)}[package]
    for call in calls:
        with pytest.raises(
            ConfigError, match=rf"{package}, which is not installed: pip install 'archgauge\[{extra}\]'"
        ):
            call(tmp_path / "file")
    assert list(tmp_path.iterdir()) == []
