"""ENAS macro networks: labels, costs by hand, skips, strict specs and tables."""

import gzip
from pathlib import Path

import onnx
import pytest

from archgauge.datasets import enas_dvae
from archgauge.datasets.onnx_builder import stored_costs, with_zero_weights
from archgauge.encoders.errors import DataError
from archgauge.encoders.onnx_reader import read

CHAIN = "0|0:0|0:00|0:000|0:0000|0:00000"


def test_labels_are_those_of_the_extract(benchmarks_root: Path) -> None:
    path = benchmarks_root / "enas_dvae" / enas_dvae.TABLE
    specs, accuracy = enas_dvae.read_labels({path.name: path}, "cifar10")
    assert len(specs) == len(set(specs)) == 20_015
    assert accuracy.max() == 75.02
    assert accuracy[specs.index("5|5:1|5:11|4:111|2:1010|2:00100")] == 71.9


def test_costs_of_the_chain_by_hand() -> None:
    """Six 1x1 and 3x3 convolutions of 36 channels; every state is halved, but only the last one is used."""
    stem = 3 * 36 * 9 + 2 * 36
    layer = 36 * 36 + 2 * 36 + 36 * 36 * 9 + 2 * 36
    halving = 36 * 36 + 2 * 36
    graph = read(enas_dvae.build(CHAIN, "cifar10"))
    assert graph.params == stem + 6 * layer + 5 * 2 * 36 + 2 * halving + 36 * 10
    assert stored_costs(enas_dvae.build(CHAIN, "cifar10"))[0] == graph.params + (3 - 1) * halving + (5 - 1) * halving


def test_samples_are_valid_distinct_and_repeatable() -> None:
    specs = enas_dvae.sample(300, 1)
    assert specs == enas_dvae.sample(300, 1) != enas_dvae.sample(300, 2)
    assert len(set(specs)) == 300
    for spec in specs[:8]:
        assert enas_dvae.spec_of(enas_dvae.parse(spec)) == spec
        model = enas_dvae.build(spec, "cifar10")
        onnx.checker.check_model(with_zero_weights(model), full_check=True)
        graph = read(model)
        assert 0 < graph.params <= stored_costs(model)[0]
        assert graph.nodes[-1].shape == (1, 10)
        assert graph.unknown_ops == ()
    for n in (-1, 10_000_000):
        with pytest.raises(DataError, match="can sample"):
            enas_dvae.sample(n, 0)


def test_types_and_skips_give_different_graphs() -> None:
    specs = [CHAIN.replace("0|0:0|", f"0|{kind}:0|", 1) for kind in range(6)]
    specs += [CHAIN.replace("0:00000", f"0:{1 << j:05b}") for j in range(5)]
    assert len({read(enas_dvae.build(spec, "cifar10")).hash for spec in specs}) == len(specs)


@pytest.mark.parametrize(
    "spec", ["", "0|0:0", CHAIN + "|0:000000", CHAIN.replace("0:00|", "6:00|"), CHAIN[:-1], "0:" + CHAIN]
)
def test_malformed_specs_are_refused(spec: str) -> None:
    with pytest.raises(DataError, match="expected six layers"):
        enas_dvae.build(spec, "cifar10")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (f"{CHAIN},70\n{CHAIN},70\n", "line 3: the network .* occurs twice"),
        (f"{CHAIN},high\n", "expected a number"),
        ("0|0,70\n", "line 2: ENAS network"),
    ],
)
def test_damaged_tables_are_refused(rows: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / enas_dvae.TABLE
    path.write_bytes(gzip.compress(f"arch,cifar10_supernet_val_accuracy\n{rows}".encode()))
    with pytest.raises(DataError, match=message):
        enas_dvae.read_labels({path.name: path}, "cifar10")


def test_unknown_task_and_missing_file_are_named() -> None:
    with pytest.raises(DataError, match="no task 'mnist'"):
        enas_dvae.build(CHAIN, "mnist")
    with pytest.raises(DataError, match="is needed, got none"):
        enas_dvae.read_labels({}, "cifar10")
