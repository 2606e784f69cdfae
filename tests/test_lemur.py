"""LEMUR's FractalNets: blocks by hand, results in the layout of the wheel, strict specs."""

import json
import zipfile
from pathlib import Path
from typing import Any

import onnx
import pytest

from archgauge.datasets import lemur
from archgauge.datasets.onnx_builder import stored_costs, with_zero_weights
from archgauge.encoders.errors import DataError
from archgauge.encoders.onnx_reader import read

RUN = {"lr": 0.01, "batch": 16, "momentum": 0.9, "dropout": 0.2, "transform": "norm_flip", "accuracy": 0.5}
CODE = """
                        nn.Conv2d(in_ch_ij, out_channels, kernel_size=3, stride=1, padding=1, bias=False)
        N = {units}
        num_columns = {columns}
"""


@pytest.mark.parametrize("columns", range(1, 5))
def test_costs_of_a_block_by_hand(columns: int) -> None:
    """Column j has 2^(columns - 1 - j) convolutions, the first of which sees the image."""
    inner = sum(2 ** (columns - 1 - j) - 1 for j in range(columns))
    convolutions = columns * 3 * 64 * 9 + inner * 64 * 64 * 9
    model = lemur.build(f"N=1,num_columns={columns}", "cifar10")
    graph = read(model)
    assert stored_costs(model)[0] == graph.params == convolutions + 64 * 16 * 16 * 10 + 10
    assert graph.macs == stored_costs(model)[1]


def test_widths_stop_at_512() -> None:
    model = lemur.build("N=5,num_columns=1", "cifar10")
    sizes = [tuple(t.dims) for t in model.graph.initializer if len(t.dims) == 4]
    assert [size[0] for size in sizes] == [64, 128, 256, 512, 512]


def test_samples_are_valid_distinct_and_repeatable() -> None:
    specs = lemur.sample(20, 1)
    assert specs == lemur.sample(20, 1) != lemur.sample(20, 2)
    assert len(set(specs)) == 20
    for spec in ("N=2,num_columns=3", "N=5,num_columns=2"):
        onnx.checker.check_model(with_zero_weights(lemur.build(spec, "cifar10")), full_check=True)
    assert len({read(lemur.build(spec, "cifar10")).hash for spec in specs}) == 20
    assert lemur.sample(0, 0) == []
    for n in (-1, 36):
        with pytest.raises(DataError, match="can sample"):
            lemur.sample(n, 0)


@pytest.mark.parametrize("spec", ["", "N=3", "N=6,num_columns=2", "N=3,num_columns=8", "N=03,num_columns=2", "3x2"])
def test_malformed_specs_are_refused(spec: str) -> None:
    with pytest.raises(DataError, match="expected N=1 to 5"):
        lemur.build(spec, "cifar10")


def write(folder: Path, codes: dict[str, str], results: dict[str, Any]) -> dict[str, Path]:
    path = folder / lemur.WHEEL
    with zipfile.ZipFile(path, "w") as wheel:
        for name, code in codes.items():
            wheel.writestr(f"ab/nn/nn/FractalNet-{name}.py", code)
        for name, runs in results.items():
            wheel.writestr(f"ab/nn/stat/train/img-classification_cifar-10_acc_FractalNet-{name}.json", json.dumps(runs))
    return {path.name: path}


def test_results_in_the_layout_of_the_wheel(tmp_path: Path) -> None:
    codes = {
        "aa": CODE.format(units=3, columns=2),
        "bb": CODE.format(units=3, columns=2) + "# another file, the same network\n",
        "cc": CODE.format(units=1, columns=7),
        "dd": "class Net: pass\n",
    }
    results = {
        "aa/5": [RUN, RUN | {"lr": 0.5, "accuracy": 0.1}],
        "aa/4": [RUN | {"accuracy": 0.2}],
        "bb/5": [RUN | {"accuracy": 0.75}],
        "cc/5": [RUN | {"accuracy": 0.25}],
        "dd/5": [RUN],
        "ee/5": [RUN],
    }
    specs, accuracy = lemur.read_labels(write(tmp_path, codes, results), "cifar10")
    assert specs == ["N=1,num_columns=7", "N=3,num_columns=2"]
    assert accuracy.tolist() == [25.0, 62.5]


@pytest.mark.parametrize(
    ("code", "runs", "message"),
    [
        (CODE.format(units=3, columns=2), [], "no FractalNet with a result"),
        (CODE.format(units=3, columns=2), {}, "expected a list"),
        (CODE.format(units=3, columns=2), [RUN | {"accuracy": "high"}], "expected a number"),
        (CODE.format(units=3, columns=2), [{}], "no field 'lr'"),
        (CODE.format(units=9, columns=2), [RUN], "expected N=1 to 5"),
        (CODE.format(units=3, columns=2) * 2, [RUN], "expected one line N"),
    ],
)
def test_damaged_wheels_are_refused(code: str, runs: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        lemur.read_labels(write(tmp_path, {"aa": code}, {"aa/5": runs}), "cifar10")


def test_unknown_task_and_missing_file_are_named() -> None:
    with pytest.raises(DataError, match="no task 'mnist'"):
        lemur.build("N=3,num_columns=2", "mnist")
    with pytest.raises(DataError, match="is needed, got none"):
        lemur.read_labels({}, "cifar10")
