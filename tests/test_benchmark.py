import csv
import gzip
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from archgauge.datasets import nas_bench_macro
from archgauge.datasets.benchmark import Benchmark, leave_space_out
from archgauge.datasets.graph_store import GraphStore
from archgauge.encoders import onnx_reader
from archgauge.encoders.errors import ArchGaugeError, ConfigError, DataError
from archgauge.encoders.graph import ArchGraph, Node


def graph(width: int) -> ArchGraph:
    conv = Node("Conv", (0,), (1, width, 8, 8), (), ((width, 3, 1, 1),), -1, 3 * width)
    return ArchGraph((Node("Input", (), (1, 3, 8, 8)), conv), (1,))


def benchmark(widths: Sequence[int], name: str = "space", **fields: Any) -> Benchmark:
    given: dict[str, Any] = {
        "task": "cifar10",
        "graphs": GraphStore.from_graphs(map(graph, widths)),
        "accuracy": np.linspace(50, 90, len(widths)),
        "names": tuple(f"{name} {at}" for at in range(len(widths))),
    }
    return Benchmark(name=name, **{**given, **fields})


TWENTY = benchmark(range(1, 21))
DOUBLED = benchmark([1, 2, 3, 4, 5] * 4)


# --- the value type ---------------------------------------------------------------------------------------------------


def test_fills_in_groups_and_relatives() -> None:
    bench = benchmark([1, 2, 1], "folder/space")
    assert bench.groups == bench.hashes == (graph(1).hash, graph(2).hash, graph(1).hash)
    assert bench.relatives == "folder"
    assert bench.accuracy.dtype == np.float64
    assert (len(bench), bench.params.tolist()) == (3, [3, 6, 3])
    assert repr(bench) == "Benchmark(folder/space:cifar10, 3 networks, accuracy 50.00 to 90.00 %)"


def test_plain_sequences_will_do() -> None:
    bench = Benchmark("a", "t", [graph(1), graph(2)], [1, 2], ["x", "y"])  # type: ignore[arg-type]
    assert isinstance(bench.graphs, tuple)
    assert bench.hashes == (graph(1).hash, graph(2).hash)
    assert bench.params.tolist() == [3, 6]
    assert bench.select([1]).graphs == (graph(2),)


def test_labels_are_a_copy_that_cannot_change() -> None:
    labels = np.array([50.0, 60.0])
    bench = benchmark([1, 2], accuracy=labels)
    labels[0] = 1
    assert bench.accuracy.tolist() == [50, 60]
    with pytest.raises(ValueError, match="read-only"):
        bench.accuracy[0] = 1


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -0.5, 100.1])
def test_labels_out_of_range(bad: float) -> None:
    with pytest.raises(DataError, match=r"'space 1' \(number 1\) has the accuracy .*from 0 to 100"):
        benchmark([1, 2, 3], accuracy=[50, bad, 60])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"accuracy": [1, 2]}, r"shape \(2,\)"),
        ({"accuracy": [[1, 2, 3]]}, r"shape \(1, 3\)"),
        ({"accuracy": ["high", "low", "low"]}, "must be numbers"),
        ({"names": ("a", "b")}, "2 names"),
        ({"names": ("a", "b", "a")}, "the name 'a' occurs twice"),
        ({"groups": ("a",)}, "1 groups"),
    ],
)
def test_fields_that_do_not_fit(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        benchmark([1, 2, 3], **fields)


def test_no_network() -> None:
    with pytest.raises(DataError, match="holds no network"):
        benchmark([])


def test_select_keeps_everything_together() -> None:
    bench = benchmark([1, 2, 3], groups=("a", "b", "c"), label="short", licence="MIT", skipped=(("x", "broken"),))
    part = bench.select([2, 0])
    assert list(part.graphs) == [graph(3), graph(1)]
    assert (part.accuracy.tolist(), part.names, part.groups) == ([90, 50], ("space 2", "space 0"), ("c", "a"))
    assert (part.label, part.licence, part.relatives, part.skipped) == ("short", "MIT", "space", bench.skipped)
    assert bench.select(bench.accuracy > 60).names == ("space 1", "space 2")
    with pytest.raises(IndexError):
        bench.select([3])
    with pytest.raises(DataError, match="occurs twice"):
        bench.select([1, 1])


def test_side_numbers_follow_their_networks() -> None:
    bench = benchmark(range(1, 7), side={"latency_ms": [1, 2, 3, 4, 5, 6]})
    assert bench.select([3, 1]).side["latency_ms"].tolist() == [4, 2]
    train, rest = bench.split(2, seed=1)
    for part in (train, rest):
        assert part.side["latency_ms"].tolist() == [bench.names.index(name) + 1 for name in part.names]
    assert not bench.side["latency_ms"].flags.writeable
    assert bench.distinct().side["latency_ms"].tolist() == [1, 2, 3, 4, 5, 6]
    with pytest.raises(DataError, match=r"side numbers 'x' have shape \(2,\), expected \(6,\)"):
        benchmark(range(1, 7), side={"x": [1, 2]})


def test_the_budget_goes_with_every_part(folder: Path) -> None:
    bench = benchmark([1, 2, 3, 1, 4], epochs=12)
    assert isinstance(bench.epochs, float)
    parts = [bench.select([3, 0]), *bench.split(2), *bench.split(2, by="group"), *bench.group_folds(2)[0]]
    parts += [bench.distinct(), leave_space_out([bench, benchmark([3], "other")], "other")[0][0]]
    assert {part.epochs for part in parts} == {bench.summary()["epochs"]} == {12.0}
    path = table(folder, *GOOD)
    assert Benchmark.from_csv(path, onnx_dir=folder).epochs is benchmark([1]).epochs is None
    assert Benchmark.from_folder(folder, epochs=0.5).epochs == 0.5


@pytest.mark.parametrize("bad", [0, -1, float("nan"), float("inf"), "many", 10**400])
def test_budgets_that_are_none(bad: Any) -> None:
    with pytest.raises(DataError, match=r"epochs is .*, expected a finite number above 0, or None"):
        benchmark([1, 2], epochs=bad)


def test_distinct_averages_duplicates() -> None:
    bench = benchmark([2, 1, 2, 3, 2], accuracy=[10, 20, 30, 40, 80], groups=("a", "b", "c", "d", "e"))
    once = bench.distinct()
    assert list(once.graphs) == [graph(2), graph(1), graph(3)]
    assert (once.accuracy.tolist(), once.names, once.groups) == (
        [40, 20, 40],
        ("space 0", "space 1", "space 3"),
        ("a", "b", "d"),
    )
    assert benchmark([1, 1, 1], accuracy=[100, 100, 100]).distinct().accuracy.tolist() == [100]


def test_summary() -> None:
    summary = benchmark([1, 1, 2, 4], accuracy=[10, 20, 30, 40], label="two epochs").summary()
    assert summary["accuracy"] == [10, 17.5, 25, 32.5, 40]
    assert (summary["n"], summary["distinct"], summary["groups"], summary["label"]) == (4, 3, 3, "two epochs")
    assert (summary["params"], summary["macs"]) == (4.5, 8 * 8 * 4.5)


# --- splits -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["network", "group"])
@pytest.mark.parametrize("seed", range(5))
def test_split_never_has_a_graph_on_both_sides(by: Any, seed: int) -> None:
    bench = benchmark([1, 2, 3, 4, 5] * 4, groups=tuple("abcdefghij" * 2))
    train, rest = bench.split(3, seed, by)
    assert len(train) == 3
    assert not set(train.hashes) & set(rest.hashes)
    if by == "group":
        assert not set(train.groups) & set(rest.groups)


def test_split_by_network_keeps_all_others() -> None:
    train, rest = TWENTY.split(5)
    assert (len(train), len(rest)) == (5, 15)
    assert sorted(train.names + rest.names) == sorted(TWENTY.names)


def test_split_drops_just_the_duplicates_of_the_training_part() -> None:
    train, rest = DOUBLED.split(1)
    assert set(rest.hashes) == set(DOUBLED.hashes) - set(train.hashes)
    assert len(rest) == 16


def test_split_by_group_takes_as_few_groups_as_will_do() -> None:
    bench = benchmark(range(1, 21), groups=tuple("aaaaabbbbbcccccddddd"))
    train, rest = bench.split(7, by="group")
    assert (len(train), len(set(train.groups)), len(rest)) == (7, 2, 10)


def test_split_depends_on_the_seed_alone() -> None:
    parts = [TWENTY.split(5, seed)[0].names for seed in (0, 0, 1)]
    assert parts[0] == parts[1] != parts[2]
    assert set(parts[0]) < set(TWENTY.split(9, 0)[0].names)


@pytest.mark.parametrize("n_train", [-1, 0, 20, 21])
def test_split_out_of_range(n_train: int) -> None:
    with pytest.raises(DataError, match=f"n_train is {n_train}, expected 1 to 19"):
        TWENTY.split(n_train)


def test_split_that_leaves_nothing() -> None:
    with pytest.raises(DataError, match="leaves none for the rest"):
        benchmark([1, 1, 1]).split(1)
    with pytest.raises(DataError, match="leaves none for the rest"):
        benchmark([1, 2, 3], groups=("a", "a", "a")).split(1, by="group")


def test_split_by_something_else() -> None:
    with pytest.raises(ConfigError, match="'network' or 'group'"):
        TWENTY.split(5, by="family")  # type: ignore[arg-type]


def test_every_group_is_left_out_once() -> None:
    bench = benchmark([1, 2, 3, 4, 1, 6], groups=("a", "a", "b", "b", "c", "c"))
    folds = bench.group_folds()
    assert sorted(set(test.groups).pop() for _, test in folds) == ["a", "b", "c"]
    assert sorted(name for _, test in folds for name in test.names) == sorted(bench.names)
    for train, test in folds:
        assert not set(train.groups) & set(test.groups)
        assert not set(train.hashes) & set(test.hashes)
    without_a = next(train for train, test in folds if test.groups[0] == "a")
    assert without_a.names == ("space 2", "space 3", "space 5")  # 4 is a's graph 1 again


def test_folds_are_even_and_seeded() -> None:
    bench = benchmark(range(1, 25), groups=tuple("aaaaaaaaaaaabbbbccccddde"))
    folds = bench.group_folds(2)
    assert [len(test) for _, test in folds] == [12, 12]
    names = [[test.names for _, test in TWENTY.group_folds(3, seed)] for seed in (0, 0, 1)]
    assert names[0] == names[1] != names[2]


@pytest.mark.parametrize("n_folds", [0, 1, 4])
def test_wrong_number_of_folds(n_folds: int) -> None:
    with pytest.raises(DataError, match="expected 2 to 3, its number of groups"):
        benchmark([1, 2, 3]).group_folds(n_folds)


def test_fold_without_training_part() -> None:
    with pytest.raises(DataError, match="nothing to train on"):
        benchmark([1, 1], groups=("a", "b")).group_folds()


def test_leave_space_out_drops_relatives_and_shared_graphs() -> None:
    target = benchmark([1, 2, 3], "micro", relatives="transnas")
    sister = benchmark([7, 8], "macro", relatives="transnas")
    other_task = benchmark([5, 6], "micro", task="jigsaw", relatives="else")
    overlapping = benchmark([2, 9, 3, 10], "other")
    swallowed = benchmark([1, 2], "small")
    apart = benchmark([11, 12], "apart")
    train, held = leave_space_out([target, sister, other_task, overlapping, swallowed, apart], "micro:cifar10")
    assert held is target
    assert [(bench.name, bench.names) for bench in train] == [("other", ("other 1", "other 3")), ("apart", apart.names)]
    assert not {value for bench in train for value in bench.hashes} & set(held.hashes)


def test_leave_space_out_of_unknown_name() -> None:
    benches = [benchmark([1], "nas_bench_201"), benchmark([2], "other")]
    with pytest.raises(ConfigError, match=r"'nasbench201'.*perhaps 'nas_bench_201'"):
        leave_space_out(benches, "nasbench201")
    with pytest.raises(ConfigError, match=r"names 2 benchmarks.*other:cifar10, other:svhn"):
        leave_space_out([*benches, benchmark([3], "other", task="svhn")], "other")
    with pytest.raises(DataError, match="nothing left to train on"):
        leave_space_out(benches[:1], "nas_bench_201")


# --- tables -----------------------------------------------------------------------------------------------------------

SPECS = nas_bench_macro.sample(3, seed=0)


@pytest.fixture(scope="session")
def models() -> list[bytes]:
    return [nas_bench_macro.build(spec, "cifar10").SerializeToString() for spec in SPECS]


@pytest.fixture
def folder(tmp_path: Path, models: list[bytes]) -> Path:
    """A folder with the models net0.onnx, net1.onnx and deep/net2.onnx."""
    for name, model in zip(("net0", "net1", "deep/net2"), models, strict=True):
        path = tmp_path / "models" / f"{name}.onnx"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(model)
    return tmp_path / "models"


def table(folder: Path, *rows: Sequence[object], header: Sequence[str] = ("name", "accuracy")) -> Path:
    path = folder / "labels.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return path


GOOD = (("net0", 91.5), ("net1.onnx", 90), ("deep/net2", "1e1"))


def test_reads_a_table(folder: Path, models: list[bytes]) -> None:
    bench = Benchmark.from_csv(table(folder, *GOOD), onnx_dir=folder, task="mine")
    assert (bench.name, bench.task, bench.skipped) == ("labels", "mine", ())
    assert (bench.names, bench.accuracy.tolist()) == (("net0", "net1.onnx", "deep/net2"), [91.5, 90, 10])
    assert bench.hashes == bench.groups == tuple(onnx_reader.read(model).hash for model in models)


def test_other_columns_fractions_and_groups(folder: Path) -> None:
    path = table(folder, ("net0", 0.5, "x"), ("net1", 1, ""), header=("file", "top1", "kind"))
    bench = Benchmark.from_csv(path, onnx_dir=folder, accuracy="top1", name="file", group="kind", unit="fraction")
    assert bench.accuracy.tolist() == [50, 100]
    assert bench.groups == ("x", bench.hashes[1])


@pytest.mark.parametrize("column", ["group", "family"])
def test_groups_are_found(folder: Path, column: str) -> None:
    path = table(folder, ("net0", 50, "x"), ("net1", 60, "y"), header=("name", "accuracy", column))
    assert Benchmark.from_csv(path, onnx_dir=folder).groups == ("x", "y")


def test_byte_order_mark_and_gzip(folder: Path) -> None:
    path = folder / "labels.csv.gz"
    path.write_bytes(gzip.compress("\ufeffname,accuracy\r\nnet0,91\r\n".encode()))
    bench = Benchmark.from_csv(path, onnx_dir=folder)
    assert (bench.name, bench.accuracy.tolist()) == ("labels", [91])


def test_what_is_written_is_read_again(folder: Path, tmp_path: Path) -> None:
    bench = Benchmark.from_csv(table(folder, ("net0", 1 / 3), ("net1", 90)), onnx_dir=folder)
    bench.to_csv(tmp_path / "out.csv")
    again = Benchmark.from_csv(tmp_path / "out.csv", onnx_dir=folder)
    assert (again.names, again.groups, again.hashes) == (bench.names, bench.groups, bench.hashes)
    assert again.accuracy.tolist() == bench.accuracy.tolist()


def test_reads_a_folder(folder: Path) -> None:
    table(folder, *GOOD)
    bench = Benchmark.from_folder(folder, task="mine")
    assert (bench.name, bench.relatives, bench.task, len(bench)) == ("models", "models", "mine", 3)


def test_shapes_are_passed_on(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(source: Path, *, input_shapes: object) -> ArchGraph:
        assert (source.name, input_shapes) == ("net0.onnx", {"x": (1, 3, 8, 8)})
        return graph(1)

    monkeypatch.setattr(onnx_reader, "read", read)
    bench = Benchmark.from_csv(table(folder, ("net0", 50)), onnx_dir=folder, input_shapes={"x": (1, 3, 8, 8)})
    assert list(bench.graphs) == [graph(1)]


BAD_ROWS = {
    "empty label": (("net0", ""), "line 3.*the label is empty"),
    "no label": (("net0",), "line 3.*the label is empty"),
    "word": (("net0", "high"), "line 3, 'net0': the label is 'high', expected a number"),
    "nan": (("net0", "nan"), "line 3.*expected a finite number"),
    "infinite": (("net0", "inf"), "line 3.*expected a finite number"),
    "negative": (("net0", -1), "line 3.*the label is -1, expected 0 to 100"),
    "too high": (("net0", 100.5), "line 3.*the label is 100.5, expected 0 to 100"),
    "twice": (("net1", 50), "line 3, 'net1': the name occurs twice, first in line 2"),
    "no name": (("", 50), "line 3.*'name' is empty"),
    "no such model": (("net7", 50), "line 3, 'net7': no such file.*'net7' or 'net7.onnx'"),
    "a folder": (("deep", 50), "line 3, 'deep': no such file"),
    "outside": (("../labels.csv", 50), "line 3.*lies outside"),
    "absolute": (("/etc/hostname", 50), "line 3.*lies outside"),
    "no file name": (("x\0y", 50), "line 3"),
    "too long": (("x" * 5_000, 50), "line 3"),
    "no model": (("broken.onnx", 50), "line 3, 'broken.onnx'"),
}


@pytest.mark.parametrize(("row", "message"), BAD_ROWS.values(), ids=BAD_ROWS)
def test_bad_row(folder: Path, row: tuple[object, ...], message: str) -> None:
    (folder / "broken.onnx").write_bytes(b"\x08\x07 this is no model")
    path = table(folder, ("net1", 90), row, ("deep/net2", 80))
    with pytest.raises(DataError, match=message) as caught:
        Benchmark.from_csv(path, onnx_dir=folder)
    assert str(path) in str(caught.value)
    bench = Benchmark.from_csv(path, onnx_dir=folder, on_error="skip")
    assert (bench.names, bench.accuracy.tolist()) == (("net1", "deep/net2"), [90, 80])
    [(name, reason)] = bench.skipped
    assert name == row[0]
    assert reason.startswith("line 3: ")


def test_link_out_of_the_folder(folder: Path, models: list[bytes]) -> None:
    (folder.parent / "secret.onnx").write_bytes(models[0])
    (folder / "link.onnx").symlink_to("../secret.onnx")
    with pytest.raises(DataError, match="lies outside"):
        Benchmark.from_csv(table(folder, ("link", 50)), onnx_dir=folder)


def test_a_reader_that_fails_costs_one_network(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(source: Path, **options: object) -> ArchGraph:
        if source.name == "net0.onnx":
            raise IndexError("a mistake of ours")
        return graph(1)

    monkeypatch.setattr(onnx_reader, "read", read)
    path = table(folder, *GOOD)
    bench = Benchmark.from_csv(path, onnx_dir=folder, on_error="skip")
    assert bench.skipped == (("net0", "line 2: IndexError: a mistake of ours"),)
    with pytest.raises(IndexError):
        Benchmark.from_csv(path, onnx_dir=folder)


def test_all_rows_skipped(folder: Path) -> None:
    with pytest.raises(DataError, match="no network is left, 2 rows were skipped; the first: 'net8'"):
        Benchmark.from_csv(table(folder, ("net8", 50), ("net9", 60)), onnx_dir=folder, on_error="skip")


@pytest.mark.parametrize("on_error", ["raise", "skip"])
@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        ([("net0", 0.91), ("net1", 1)], {}, "no label is above 1.*pass unit='fraction'"),
        ([("net0", 91), ("net1", 0.9)], {"unit": "fraction"}, None),
        ([("net0", 91), ("net1", 90)], {"unit": "fraction"}, "most labels are above 1.*pass unit='percent'"),
        (GOOD, {"accuracy": "top1"}, "has no column 'top1'; it has 'name', 'accuracy'"),
        (GOOD, {"name": "file"}, "has no column 'file'"),
        (GOOD, {"group": "family"}, "has no column 'family'"),
        (GOOD, {"onnx_dir": "/nowhere"}, "/nowhere: the folder of the networks"),
        ([], {}, "has no rows"),
    ],
)
def test_bad_table(folder: Path, on_error: Any, rows: Any, options: dict[str, Any], message: str | None) -> None:
    arguments = {"onnx_dir": folder, "on_error": on_error, **options}
    if message is None and on_error == "skip":
        assert len(Benchmark.from_csv(table(folder, *rows), **arguments)) == 1
        return
    with pytest.raises(DataError, match=message or "the label is 91, expected 0 to 1 for unit 'fraction'"):
        Benchmark.from_csv(table(folder, *rows), **arguments)


@pytest.mark.parametrize(
    "content", [b"", b"name,accuracy\n\xff\xfe,1\n", b"\n\n", b'name,accuracy\n"' + b"x" * 200_000]
)
def test_no_table(folder: Path, content: bytes) -> None:
    path = folder / "labels.csv"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"labels\.csv"):
        Benchmark.from_csv(path, onnx_dir=folder)


def test_no_file(folder: Path) -> None:
    with pytest.raises(DataError, match=r"labels\.csv.*does not exist"):
        Benchmark.from_folder(folder)
    (folder / "labels.csv.gz").write_bytes(b"not gzip")
    with pytest.raises(DataError, match="not a readable table"):
        Benchmark.from_csv(folder / "labels.csv.gz", onnx_dir=folder)


@pytest.mark.parametrize("option", [{"unit": "permille"}, {"on_error": "ignore"}])
def test_options_that_do_not_exist(folder: Path, option: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"{next(iter(option))} is .*, expected"):
        Benchmark.from_csv(table(folder, *GOOD), onnx_dir=folder, **option)


def test_errors_are_ours_and_built_in() -> None:
    with pytest.raises(ValueError, match="holds no network") as caught:
        benchmark([])
    assert isinstance(caught.value, ArchGaugeError)
