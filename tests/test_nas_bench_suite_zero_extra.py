"""The extra data sets: labels, networks equal to those of the known spaces where they must be, strict files."""

import gzip
from pathlib import Path

import onnx
import pytest

from archgauge.datasets import darts, nas_bench_201, transnas_bench_101
from archgauge.datasets import nas_bench_suite_zero_extra as extra
from archgauge.datasets.nas_bench_suite_zero_extra import SPACES
from archgauge.datasets.onnx_builder import stored_costs, with_zero_weights
from archgauge.encoders.errors import DataError
from archgauge.encoders.onnx_reader import read

PAIRS = "((0, 1), (1, 0), (1, 2), (0, 5), (3, 4), (2, 5), (1, 6), (4, 2))"


def test_labels_of_all_spaces(benchmarks_root: Path) -> None:
    paths = {extra.TABLE: benchmarks_root / "nas_bench_suite_zero_extra" / extra.TABLE}
    counts = {"nas_bench_201": 199, "nas_bench_301": 199, "transnas_bench_101_micro": 192}
    highest = {"svhn": 98, "scifar100": 53, "ninapro": 95}
    for name, space in SPACES.items():
        for task in space.TASKS:
            specs, accuracy = space.read_labels(paths, task)
            assert len(set(specs)) == len(specs)
            assert counts[name] - 5 <= len(specs) <= counts[name]
            assert 0 <= accuracy.min() < accuracy.max() < highest[task]


def test_svhn_networks_are_those_of_the_known_spaces() -> None:
    """SVHN has the images and classes of CIFAR-10."""
    cell = nas_bench_201.sample(1, 4)[0]
    ours = read(SPACES["nas_bench_201"].build(cell, "svhn"))
    assert ours.hash == read(nas_bench_201.build(cell, "cifar10")).hash


def test_micro_networks_differ_from_the_known_ones_by_input_and_classes_only() -> None:
    spec = transnas_bench_101.sample(1, 4, "micro")[0]
    ours = stored_costs(SPACES["transnas_bench_101_micro"].build(spec, "svhn"))[0]
    theirs = stored_costs(transnas_bench_101.build(spec, "class_object"))[0]
    channels = 512
    assert ours == theirs - (75 - 10) * (channels + 1)


@pytest.mark.parametrize("name", SPACES)
def test_samples_are_valid_distinct_and_repeatable(name: str) -> None:
    space = SPACES[name]
    specs = space.sample(20, 1)
    assert specs == space.sample(20, 1) != space.sample(20, 2)
    assert len(set(specs)) == 20
    for task in space.TASKS:
        for spec in specs[:2]:
            model = space.build(spec, task)
            onnx.checker.check_model(with_zero_weights(model), full_check=True)
            graph = read(model)
            assert graph.unknown_ops == ()
            assert graph.macs <= stored_costs(model)[1]
    with pytest.raises(DataError, match="sample"):
        space.sample(-1, 0)


def test_compact_tuple_is_two_cells() -> None:
    spec = extra.spec_of_compact(f"({PAIRS}, {PAIRS})")
    normal, reduction = darts.parse(spec)
    assert normal == reduction
    assert normal[:3] == (("avg_pool_3x3", 0), ("max_pool_3x3", 1), ("skip_connect", 1))
    for wrong in ("", PAIRS, f"({PAIRS}, {PAIRS[:-9]}))", f"({PAIRS}, {PAIRS.replace('(0, 1)', '(0, 7)')})"):
        with pytest.raises(DataError, match="expected two cells"):
            extra.spec_of_compact(wrong)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("", "holds no row"),
        ("nas_bench_301,x,50\n", "no network of nas_bench_201"),
        ("nas_bench_201,x,50\n", "line 2: NAS-Bench-201 cell"),
        ("nas_bench_201,|none~0|+|none~0|none~1|+|none~0|none~1|none~2|,x\n", "expected a number"),
        ("nas_bench_201,|none~0|+|none~0|none~1|+|none~0|none~1|none~2|,5\n" * 2, "occurs twice"),
    ],
)
def test_damaged_tables_are_refused(rows: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / extra.TABLE
    path.write_bytes(gzip.compress(f"space,arch,svhn_val_accuracy\n{rows}".encode()))
    with pytest.raises(DataError, match=message):
        SPACES["nas_bench_201"].read_labels({path.name: path}, "svhn")


def test_unknown_names_are_named() -> None:
    with pytest.raises(DataError, match="no space 'nats'"):
        extra.sample(1, 0, "nats")
    with pytest.raises(DataError, match="expected one of the micro space"):
        SPACES["transnas_bench_101_micro"].build("64-2311-basic", "svhn")
    for space in SPACES.values():
        with pytest.raises(DataError, match="no task 'mnist'"):
            space.build(space.sample(1, 0)[0], "mnist")
        with pytest.raises(DataError, match="is needed, got none"):
            space.read_labels({}, space.TASKS[0])
