"""NAS-Bench-301: specs, the cost of a published network, and the reader of its files.

The published archive could not be had: the tests write result files in the layout of the example in the authors'
repository, from which the configuration and the parameters of one network are taken.
"""

import json
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from archgauge.datasets import nas_bench_301, nds
from archgauge.datasets.onnx_builder import stored_costs
from archgauge.encoders.errors import DataError
from archgauge.encoders.onnx_reader import read

PREFIX = "NetworkSelectorDatasetInfo:darts:"

# The example of the authors' repository; trained with 50 channels and 20 cells it has 6,369,358 parameters.
EXAMPLE = {
    "edge_normal_0": "skip_connect",
    "edge_normal_1": "sep_conv_3x3",
    "edge_normal_2": "sep_conv_3x3",
    "edge_normal_3": "skip_connect",
    "edge_normal_5": "dil_conv_3x3",
    "edge_normal_7": "dil_conv_5x5",
    "edge_normal_10": "sep_conv_3x3",
    "edge_normal_11": "skip_connect",
    "inputs_node_normal_3": "0_1",
    "inputs_node_normal_4": "0_2",
    "inputs_node_normal_5": "1_2",
    "edge_reduce_0": "max_pool_3x3",
    "edge_reduce_1": "avg_pool_3x3",
    "edge_reduce_2": "skip_connect",
    "edge_reduce_3": "dil_conv_5x5",
    "edge_reduce_6": "sep_conv_3x3",
    "edge_reduce_7": "sep_conv_5x5",
    "edge_reduce_11": "sep_conv_3x3",
    "edge_reduce_12": "dil_conv_3x3",
    "inputs_node_reduce_3": "0_1",
    "inputs_node_reduce_4": "1_2",
    "inputs_node_reduce_5": "2_3",
}


def config(**changes: Any) -> dict[str, Any]:
    """A whole configuration in the order of nobody, as published; None leaves an entry out."""
    part = {**EXAMPLE, "init_channels": 32, "layers": 8, "auxiliary": "True", "drop_path_prob": 0.2} | changes
    shuffled = sorted((key, value) for key, value in part.items() if value is not None)
    return {
        "CreateImageDataLoader:batch_size": 96,
        **{PREFIX + key: value for key, value in reversed(shuffled)},
        "NetworkSelectorDatasetInfo:network": "darts",
        "SimpleLearningrateSchedulerSelector:cosine_annealing:T_max": 100,
    }


def run(accuracy: Any = 91.5, parameters: Any = 1_000_000, **changes: Any) -> dict[str, Any]:
    """One result file as published."""
    info = {"val_accuracy": accuracy, "model_parameters": parameters, "epochs": 98, "train_loss": 0.5}
    return {
        "final_metric_score": -91.5,
        "optimized_hyperparamater_config": config(**changes),
        "budget": 100,
        "info": [info],
        "test_accuracy": 90.25,
        "runtime": 5000,
    }


def write(folder: Path, runs: dict[str, Any]) -> dict[str, Path]:
    paths = {name: folder / name for name in runs}
    for name, content in runs.items():
        paths[name].parent.mkdir(exist_ok=True)
        paths[name].write_text(json.dumps(content), encoding="utf-8")
    return paths


def test_the_published_example_has_the_published_parameters() -> None:
    normal, reduction = nas_bench_301.parse(nas_bench_301.spec_of_config(config()))
    genotype = nds.Genotype(normal, (2, 3, 4, 5), reduction, (2, 3, 4, 5))
    model = nds.cell_model("example", nds.CellNetwork(genotype, 50, 20), "cifar10")
    assert stored_costs(model)[0] + nas_bench_301.auxiliary_parameters(50) == 6_369_358


def test_edges_are_numbered_by_end_and_start() -> None:
    normal, reduction = nas_bench_301.parse(nas_bench_301.spec_of_config(config()))
    assert normal == (
        ("skip_connect", 0),
        ("sep_conv_3x3", 1),
        ("sep_conv_3x3", 0),
        ("skip_connect", 1),
        ("dil_conv_3x3", 0),
        ("dil_conv_5x5", 2),
        ("sep_conv_3x3", 1),
        ("skip_connect", 2),
    )
    assert reduction[-2:] == (("sep_conv_3x3", 2), ("dil_conv_3x3", 3))


def test_a_spec_is_the_part_of_the_configuration_in_a_fixed_order() -> None:
    spec = nas_bench_301.spec_of_config(config())
    assert json.loads(spec) == {PREFIX + key: value for key, value in EXAMPLE.items()}
    assert nas_bench_301.spec_of(*nas_bench_301.parse(spec)) == spec
    normal, reduction = nas_bench_301.parse(spec)
    swapped = tuple(normal[i ^ 1] for i in range(8))
    assert nas_bench_301.spec_of(swapped, reduction) == spec


def test_the_network_is_the_proxy_of_the_benchmark() -> None:
    spec = nas_bench_301.sample(1, 4)[0]
    normal, reduction = nas_bench_301.parse(spec)
    genotype = nds.Genotype(normal, (2, 3, 4, 5), reduction, (2, 3, 4, 5))
    same = nds.cell_model("same", nds.CellNetwork(genotype, 32, 8), "cifar10")
    assert read(nas_bench_301.build(spec, "cifar10")).hash == read(same).hash


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"edge_normal_0": "none"}, r"edge_normal_0: expected one of max_pool_3x3, .*, got 'none'"),
        ({"edge_normal_0": ["skip_connect"]}, "edge_normal_0: expected one of"),
        ({"edge_reduce_12": None}, r"no field 'NetworkSelectorDatasetInfo:darts:edge_reduce_12'"),
        ({"inputs_node_normal_3": "0_3"}, "inputs_node_normal_3: expected one of 0_1, 0_2, 1_2, got '0_3'"),
        ({"inputs_node_normal_5": "2_1"}, "inputs_node_normal_5: expected one of"),
        ({"inputs_node_reduce_4": None}, "no field"),
    ],
)
def test_other_configurations_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        nas_bench_301.spec_of_config(config(**changes))


@pytest.mark.parametrize(
    "spec",
    [
        "",
        "[]",
        json.dumps(config(), separators=(",", ":")),
        json.dumps({PREFIX + key: value for key, value in EXAMPLE.items()}),
        json.dumps({PREFIX + key: EXAMPLE[key] for key in sorted(EXAMPLE)}, separators=(",", ":")),
    ],
)
def test_malformed_specs_are_refused(spec: str) -> None:
    with pytest.raises(DataError, match=re.escape(repr(spec))):
        nas_bench_301.parse(spec)


def test_labels_are_validation_accuracies_and_repeats_are_averaged(tmp_path: Path) -> None:
    runs = {
        "results_1.json": run(91.0, 1_234_567),
        "results_0.json": run(85.0, 1_000_000, edge_normal_0="max_pool_3x3"),
        "results_2.json": run(92.0, 1_234_567),
    }
    paths = write(tmp_path, runs) | write(tmp_path, {"readme.json": {"nothing": 1}})
    specs, accuracy = nas_bench_301.read_labels(paths, "cifar10")
    assert specs == [
        nas_bench_301.spec_of_config(config(**changes)) for changes in ({"edge_normal_0": "max_pool_3x3"}, {})
    ]
    np.testing.assert_allclose(accuracy, [85.0, 91.5])
    params, macs = nas_bench_301.published_costs(paths, "cifar10")
    head = nas_bench_301.auxiliary_parameters(32)
    assert params.tolist() == [1_000_000 - head, 1_234_567 - head]
    assert macs is None


def test_an_archive_gives_the_same_as_its_files(tmp_path: Path) -> None:
    runs = {"re/results_3.json": run(90.0), "rs/results_3.json": run(80.0, edge_reduce_0="skip_connect")}
    with zipfile.ZipFile(tmp_path / "nb_301.zip", "w") as archive:
        for name, content in runs.items():
            archive.writestr(f"nb_301/{name}", json.dumps(content))
        archive.writestr("nb_301/results_readme.txt", "no result")
    unpacked = nas_bench_301.read_labels(write(tmp_path, runs), "cifar10")
    packed = nas_bench_301.read_labels({"nb_301.zip": tmp_path / "nb_301.zip"}, "cifar10")
    assert packed[0] == unpacked[0]
    assert packed[1].tolist() == unpacked[1].tolist() == [90.0, 80.0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "no field 'optimized_hyperparamater_config'"),
        (run(init_channels=50), r"init_channels: expected 32 \(the setting of the benchmark\), got 50"),
        (run(layers=20), "layers: expected 8"),
        (run(edge_normal_0="none"), "edge_normal_0: expected one of"),
        (run() | {"info": []}, "info: expected a list"),
        (run("high"), "val_accuracy: expected a number"),
        (run(101.0), "val_accuracy: expected percent, got 101"),
        (run(parameters=None), "model_parameters: expected a number"),
    ],
)
def test_damaged_files_are_refused(content: Any, message: str, tmp_path: Path) -> None:
    paths = write(tmp_path, {"results_5.json": content})
    with pytest.raises(DataError, match=message) as caught:
        nas_bench_301.read_labels(paths, "cifar10")
    assert "results_5.json" in str(caught.value)


def test_missing_files_and_tasks_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is needed, got none"):
        nas_bench_301.read_labels({}, "cifar10")
    with pytest.raises(DataError, match=r"is needed, got other\.json"):
        nas_bench_301.read_labels(write(tmp_path, {"other.json": {}}), "cifar10")
    with pytest.raises(DataError, match="no task 'imagenet1k'"):
        nas_bench_301.read_labels({}, "imagenet1k")
