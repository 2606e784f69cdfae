"""The command `benchmarks/gennape.py`: what it teaches, what it ranks, and which encoders it compares."""

import importlib
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from archgauge.datasets.benchmark import Benchmark
from archgauge.encoders.graph import ArchGraph, Node
from archgauge.encoders.registry import ENCODERS, get_encoder
from archgauge.predictor.protocols import Run, run_splits

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("gennape")


def network(width: int, depth: int) -> ArchGraph:
    nodes = [Node("Input", (), (1, 3, 16, 16))]
    for _ in range(depth):
        kernel = (width, nodes[-1].shape[1], 3, 3)
        nodes.append(Node("Conv", (len(nodes) - 1,), (1, width, 16, 16), (), (kernel,), params=int(np.prod(kernel))))
        nodes.append(Node("Relu", (len(nodes) - 1,), (1, width, 16, 16)))
    return ArchGraph(tuple(nodes), (len(nodes) - 1,))


def bench(name: str, sizes: list[tuple[int, int]]) -> Benchmark:
    accuracy = np.array([60.0 + 2 * depth + 0.1 * width for width, depth in sizes])
    names = tuple(f"{name} {i}" for i in range(len(sizes)))
    return Benchmark(name, "cifar10", [network(*size) for size in sizes], accuracy, names)


SIZES = [(4 * width, depth) for width in range(1, 9) for depth in range(1, 5)]


def test_no_network_of_any_target_is_learnt_from(script: ModuleType) -> None:
    train = bench("train", SIZES)
    targets = [bench("one", SIZES[:3]), bench("two", SIZES[2:5])]
    splits = script.zero_shot((train,), targets)
    seen = {key for split in splits for part in split.parts for given in part.train for key in given.hashes}
    assert seen == set(train.hashes[5:])
    assert [split.labels for split in splits] == [0, 0]
    assert all(part.few is None for split in splits for part in split.parts)


def test_labelled_networks_are_not_ranked_and_their_copies_are_known(script: ModuleType) -> None:
    target = bench("space", [*SIZES, *SIZES[:8]])
    (split,) = script.with_labels(target, (10,), 1)
    (part,) = split.parts
    (few,) = part.train
    names = {target.names[i] for i in part.rows}
    assert len(few) == 10
    assert not names & set(few.names)
    assert len(names) == len(target) - 10
    np.testing.assert_array_equal(split.copies, [key in set(few.hashes) for key in target.hashes])


def test_rows_far_learn_from_one_space_and_rank_another(script: ModuleType) -> None:
    rows = script.far()
    assert list(rows) == ["far-statistics", "far-graph", "far-statistics+graph"]
    grid = run_splits(
        Run({"far-graph": rows["far-graph"]}, 1),
        script.zero_shot((bench("train", SIZES),), [bench("new", [(5 + 4 * i, 1 + i % 4) for i in range(12)])]),
        "test",
    )
    printed = script.table(grid, "spearman").splitlines()
    assert printed[0].split() == ["spearman", "new,", "n", "12"]
    assert float(next(line for line in printed if line.startswith("far")).split()[-1]) > 0.6
    assert any(line.startswith("macs") for line in printed)


def test_encoders_by_name_have_their_weights_in_their_name(script: ModuleType) -> None:
    name = script.register("none=untrained")
    try:
        assert name == script.register("none=untrained")
        graphs = [network(4, 2), network(8, 3)]
        rows = get_encoder(name).encode(graphs)
        assert rows.shape == (2, len(get_encoder(name).columns)) == (2, 672)
        assert np.abs(rows - get_encoder("graph").encode(graphs)).max() > 0.1
        assert script.register("ours=") == "graph"
    finally:
        ENCODERS.pop(name)
