"""Search spaces: specs, labels, and networks that cost exactly what was published."""

import csv
import gzip
import importlib.util
import io
import json
import re
import tarfile
import zipfile
from collections import Counter
from collections.abc import Callable
from itertools import permutations, product
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

from archgauge.datasets import (
    accel_nasbench,
    channel_bench_macro,
    darts,
    ec_nas,
    nas_bench_101,
    nas_bench_201,
    nas_bench_201_robustness,
    nas_bench_macro,
    nats_bench_sss,
    ofa_mbv3,
    raw_files,
    transnas_bench_101,
)
from archgauge.datasets.onnx_builder import OnnxBuilder, Value, stored_costs
from archgauge.encoders.errors import ConfigError, DataError, GraphError
from archgauge.encoders.onnx_reader import read

ROOT = Path(__file__).resolve().parents[1]


def _load_costs() -> ModuleType:
    spec = importlib.util.spec_from_file_location("archgauge_benchmarks_costs", ROOT / "benchmarks" / "costs.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


costs = _load_costs()
SUITES = [suite for suite in costs.SUITES if not suite.needs]
"""Those whose costs are in the files that the benchmark itself needs."""

SPACES: dict[str, Any] = {
    "nas_bench_201": nas_bench_201,
    "nas_bench_macro": nas_bench_macro,
    "nats_bench_sss": nats_bench_sss,
    "channel_bench_macro/resnet": channel_bench_macro.SPACES["resnet"],
    "channel_bench_macro/mobilenet": channel_bench_macro.SPACES["mobilenet"],
    "nas_bench_101": nas_bench_101,
    "accel_nasbench": accel_nasbench,
    "ofa_mbv3": ofa_mbv3,
    **{f"darts_trained/{name}": space for name, space in darts.SPACES.items()},
    **{f"nas_bench_101/{name}": space for name, space in ec_nas.SPACES.items()},
    "nas_bench_201/robustness": nas_bench_201_robustness,
    "transnas_bench_101/micro": transnas_bench_101.SPACES["micro"],
    "transnas_bench_101/macro": transnas_bench_101.SPACES["macro"],
}


# --- the builder ----------------------------------------------------------------------------------------------------


def test_builder_writes_valid_models_whose_shapes_onnx_infers_too(assert_onnx_agrees: Callable[..., Any]) -> None:
    b = OnnxBuilder("everything", (4, 17, 12))
    x = b.conv(b.input, 8, kernel=(3, 5), stride=2, padding=(1, 0), groups=4, dilation=2, bias=True)
    for op in ("Relu", "Sigmoid", "Tanh", "Gelu", "HardSwish", "Mish", "Elu", "Silu", "Relu6", "HardSigmoid", "Erf"):
        x = b.activation(x, op)
    x = b.batch_norm(x)
    pooled = b.concat([b.max_pool(x, kernel=2, stride=2), b.avg_pool(x, kernel=3, stride=2, padding=1)][:1] * 3, axis=1)
    flat = b.linear(b.flatten(b.avg_pool(pooled, kernel=3, padding=1, count_include_pad=True)), 7, bias=False)
    x = b.mul(x, b.conv(b.global_avg_pool(x), x.shape[0], kernel=1))
    x = b.add(x, b.zero(x), b.scale(x, 0.5))
    x = b.slice(b.pad(x, (0, 1, 0), (0, 2, 3)), (1, 2), (1, 0), (6, 3))
    tokens = b.transpose(b.reshape(x, (8, 15)), (1, 0))
    tokens = b.layer_norm(b.add_parameter(b.linear(tokens, 6), (15, 6)))
    attention = b.softmax(b.matmul(tokens, b.transpose(tokens, (1, 0))))
    model = b.build(b.matmul(attention, tokens), flat)
    assert_onnx_agrees(model)
    assert [dim.dim_param for dim in model.graph.input[0].type.tensor_type.shape.dim] == ["batch", "", "", ""]


def test_built_models_are_weightless() -> None:
    model = nas_bench_macro.build("01201201", "cifar10")
    assert len(model.SerializeToString()) < 40_000
    large = [tensor for tensor in model.graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT]
    assert large
    for tensor in large:
        assert tensor.data_location == onnx.TensorProto.EXTERNAL
        assert [(entry.key, entry.value) for entry in tensor.external_data] == [("location", "weights.bin")]
        assert not tensor.raw_data
        assert not tensor.float_data
    with pytest.raises(onnx.checker.ValidationError, match=r"weights\.bin"):
        onnx.checker.check_model(model)


def test_builder_operators_compute_what_they_say() -> None:
    b = OnnxBuilder("arithmetic", (2, 4, 4))
    x = b.input
    outputs = [
        b.activation(x, "Silu"),
        b.activation(x, "Relu6"),
        b.activation(x, "HardSigmoid"),
        b.zero(x),
        b.scale(x, -2.0),
        b.pad(x, (0, 1, 0), (0, 0, 2)),
        b.slice(x, (0, 2), (1, 1), (2, 4)),
        b.concat([x, x], axis=2),
        b.transpose(x, (2, 0, 1)),
        b.reshape(x, (8, 4)),
        b.softmax(x),
        b.avg_pool(x, kernel=3, padding=1),
        b.avg_pool(x, kernel=3, padding=1, count_include_pad=True),
        b.max_pool(x, kernel=1, stride=2),
    ]
    data = np.random.default_rng(0).normal(size=(3, 2, 4, 4)).astype(np.float32) * 4
    results = ReferenceEvaluator(b.build(*outputs)).run(None, {"input": data})
    padded = np.pad(data, ((0, 0), (0, 0), (1, 1), (1, 1)))
    window_sums = sum(padded[:, :, i : i + 4, j : j + 4] for i in range(3) for j in range(3))
    inside = np.array([2, 3, 3, 2])
    exponentials = np.exp(data - data.max(-1, keepdims=True))
    expected = [
        data / (1 + np.exp(-data)),
        data.clip(0, 6),
        ((data + 3) / 6).clip(0, 1),
        np.zeros_like(data),
        -2 * data,
        np.pad(data, ((0, 0), (0, 0), (1, 0), (0, 2))),
        data[:, 1:2, :, 1:4],
        np.concatenate([data, data], axis=3),
        data.transpose(0, 3, 1, 2),
        data.reshape(3, 8, 4),
        exponentials / exponentials.sum(-1, keepdims=True),
        window_sums / np.outer(inside, inside),
        window_sums / 9,
        data[:, :, ::2, ::2],
    ]
    for result, wanted, output in zip(results, expected, outputs, strict=True):
        assert result.shape[1:] == output.shape
        np.testing.assert_allclose(result, wanted, rtol=1e-5, atol=1e-5)


def test_factorized_reduce_reads_every_pixel_once_or_never(assert_onnx_agrees: Callable[..., Any]) -> None:
    b = OnnxBuilder("reduce", (2, 6, 6))
    model = b.build(darts.factorized_reduce(b, b.input, 4))
    assert_onnx_agrees(model)
    for tensor in model.graph.initializer:
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            tensor.ClearField("data_location")
            tensor.ClearField("external_data")
            tensor.raw_data = np.full(tuple(tensor.dims), 1.0 if "Conv" in tensor.name else 0.5, np.float32).tobytes()
    data = np.random.default_rng(0).random((1, 2, 6, 6)).astype(np.float32)
    convolutions = [node.output[0] for node in model.graph.node if node.op_type == "Conv"]
    for name in convolutions:
        model.graph.output.add(name=name)
    results: Any = ReferenceEvaluator(model).run(None, {"input": data})
    _, first, second = results
    np.testing.assert_allclose(first[0, 0], data[0, :, ::2, ::2].sum(0), rtol=1e-6)
    np.testing.assert_allclose(second[0, 0], data[0, :, 1::2, 1::2].sum(0), rtol=1e-6)


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        (lambda b: b.conv(b.input, 8, groups=3), GraphError, "divisible"),
        (lambda b: b.conv(b.input, 8, kernel=9, padding=0), GraphError, "does not fit"),
        (lambda b: b.conv(b.flatten(b.input), 8), GraphError, r"\(C, H, W\)"),
        (lambda b: b.add(b.input, b.conv(b.input, 5)), GraphError, "do not fit"),
        (lambda b: b.add(b.input, b.flatten(b.input)), GraphError, "do not fit"),
        (lambda b: b.concat([b.input, b.max_pool(b.input, kernel=2, stride=2)]), GraphError, "Concat"),
        (lambda b: b.reshape(b.input, (5, 5)), GraphError, "number of elements"),
        (lambda b: b.slice(b.input, (0,), (2,), (9,)), GraphError, "out of range"),
        (lambda b: b.transpose(b.input, (0, 1)), GraphError, "every axis once"),
        (lambda b: b.matmul(b.input, b.conv(b.input, 5)), GraphError, "MatMul"),
        (lambda b: b.activation(b.input, "Nonsense"), ConfigError, "no activation 'Nonsense'"),
        (lambda b: b.build(), GraphError, "needs an output"),
        (lambda b: b.build(b.input), GraphError, "needs an output"),
    ],
)
def test_builder_refuses_what_does_not_fit(wrong: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        wrong(OnnxBuilder("wrong", (4, 8, 8)))


def test_two_builders_share_nothing(shapes_in: Callable[..., Any]) -> None:
    first, second = (nas_bench_201.build(nas_bench_201.sample(1, 0)[0], "cifar10") for _ in range(2))
    assert first.SerializeToString(deterministic=True) == second.SerializeToString(deterministic=True)
    first.graph.initializer[0].dims[0] = 999
    first.graph.value_info[0].type.tensor_type.shape.dim[1].dim_value = 999
    assert second.SerializeToString(deterministic=True) != first.SerializeToString(deterministic=True)
    assert shapes_in(second) == shapes_in(nas_bench_201.build(nas_bench_201.sample(1, 0)[0], "cifar10"))


def test_stored_costs_by_hand() -> None:
    b = OnnxBuilder("small", (3, 8, 8))
    x = b.batch_norm(b.conv(b.input, 4, kernel=3, stride=2, bias=True))
    x = b.zero(b.conv(x, 4, kernel=1, groups=2))
    model = b.build(b.linear(b.flatten(x), 5))
    convolution, normalisation, grouped, linear = 4 * 3 * 9 + 4, 2 * 4, 4 * 2, 64 * 5 + 5
    assert stored_costs(model) == (
        convolution + normalisation + grouped + linear,
        4 * 16 * 27 + 4 * 16 * 2 + 64 * 5,
    )
    assert costs.live_costs(model) == (0, 0)


# --- specs and costs -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("module", "spec"),
    [
        (nas_bench_201, ""),
        (nas_bench_201, "|none~0|+|none~0|none~1|+|none~0|none~1|none~3|"),
        (nas_bench_201, "|none~0|+|none~0|none~1|+|none~0|none~1|"),
        (nas_bench_201, "|sep_conv_3x3~0|+|none~0|none~1|+|none~0|none~1|none~2|"),
        (nas_bench_201, "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|+"),
        (nas_bench_macro, "0120120"),
        (nas_bench_macro, "01201203"),
        (nats_bench_sss, "8:8:8:8"),
        (nats_bench_sss, "8:8:8:8:72"),
        (nats_bench_sss, "8:8:8:8:08"),
        (channel_bench_macro, "1111111"),
        (channel_bench_macro, "resnet-1111115"),
        (channel_bench_macro, "vgg-1111111"),
        (nas_bench_101, "0100:input,output,output"),
        (nas_bench_101, "0110:input,output"),
        (nas_bench_101, "0000:input,output"),
        (nas_bench_101, "010001000:input,conv7x7,output"),
        (nas_bench_101, "01000100:input,conv3x3-bn-relu,output"),
        (nas_bench_101, "0111111001111100111110001110000110000010000000:input,output"),
        (
            nas_bench_101,
            "0111111001111100011110000111000001100000010000000:input" + ",maxpool3x3" * 5 + ",output",
        ),
        (accel_nasbench, "-".join(["e6k3l1"] * 6)),
        (accel_nasbench, "-".join(["e6k3l4"] * 7)),
        (accel_nasbench, "-".join(["e5k3l1"] * 7)),
        (ofa_mbv3, "-".join(["k3e3,k3e3"] * 4)),
        (ofa_mbv3, "-".join(["k3e3"] * 5)),
        (ofa_mbv3, "-".join(["k4e3,k3e3"] * 5)),
        (darts, ";".join(["none@0"] * 8)),
        (darts, "|".join([";".join(["none@0"] * 7)] * 2)),
        (darts, "|".join([";".join(["none@2"] * 8)] * 2)),
        (darts, "|".join([";".join(["conv@0"] * 8)] * 2)),
        (transnas_bench_101, "64-41414-1_02_334"),
        (transnas_bench_101, "64-4141-1_02_333"),
        (transnas_bench_101, "64-1111-basic"),
        (transnas_bench_101, "64-222233-basic"),
        (transnas_bench_101, "32-2311-basic"),
    ],
)
def test_malformed_specs_are_refused(module: Any, spec: str) -> None:
    with pytest.raises(DataError, match=re.escape(repr(spec))):
        module.parse(spec)


@pytest.mark.parametrize("suite", SUITES, ids=[f"{s.name} {s.task}" for s in SUITES])
def test_networks_cost_what_was_published(suite: Any, benchmarks_root: Path) -> None:
    outcome = costs.compare(suite, benchmarks_root, limit=4 if "darts" in suite.name else 11)
    assert outcome.failures == []
    assert outcome.in_file == outcome.rows
    assert outcome.in_graph + outcome.dead == outcome.rows


@pytest.mark.slow
@pytest.mark.parametrize("suite", SUITES, ids=[f"{s.name} {s.task}" for s in SUITES])
def test_a_thousand_networks_cost_what_was_published(suite: Any, benchmarks_root: Path) -> None:
    # `python benchmarks/costs.py` compares all of them, in about 25 minutes.
    outcome = costs.compare(suite, benchmarks_root, 1_000)
    assert outcome.failures == []
    assert outcome.in_file == outcome.rows


def test_costs_command_tells_right_from_wrong(
    benchmarks_root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ARCHGAUGE_DATA", str(benchmarks_root))
    assert costs.main(["--limit", "2", "--only", "nas_bench_macro"]) == 0
    right = next(suite for suite in costs.SUITES if suite.name == "nas_bench_macro")
    wrong = right._replace(build=lambda spec, task: nas_bench_macro.build("11111111", task))
    monkeypatch.setattr(costs, "SUITES", (wrong,))
    assert costs.main(["--limit", "2"]) == 1
    assert "published (" in capsys.readouterr().out


# --- labels ---------------------------------------------------------------------------------------------------------

LABELS = [
    ("nas_bench_201", "cifar10", "nas_bench_201", "arch_str", "cifar10_test_accuracy", 15_625),
    ("nas_bench_201", "cifar100", "nas_bench_201", "arch_str", "cifar100_test_accuracy", 15_625),
    ("nas_bench_201", "imagenet16_120", "nas_bench_201", "arch_str", "imagenet16_120_test_accuracy", 15_625),
    ("nas_bench_macro", "cifar10", "nas_bench_macro", "arch", "cifar10_test_accuracy", 6_561),
    ("nats_bench_sss", "cifar10", "nats_bench_sss", "arch", "cifar10_test_accuracy", 32_768),
    ("channel_bench_macro/resnet", "cifar10", "channel_bench_macro", "{space}-{arch}", "cifar10_test_accuracy", 16_384),
    (
        "channel_bench_macro/mobilenet",
        "cifar10",
        "channel_bench_macro",
        "{space}-{arch}",
        "cifar10_test_accuracy",
        16_384,
    ),
    (
        "nas_bench_101",
        "cifar10",
        "nas_bench_101_sample500",
        "{adjacency}:{operations}",
        "cifar10_val_accuracy_108ep",
        500,
    ),
    (
        "darts_trained/oncenas",
        "cifar10",
        "oncenas_darts_bench",
        "{normal}|{reduce}",
        "cifar10_valid_accuracy_50ep",
        545,
    ),
    ("transnas_bench_101/micro", "room_layout", "transnas_bench_101", "arch_str", "room_layout_val_neg_loss", 4_096),
    ("transnas_bench_101/macro", "room_layout", "transnas_bench_101", "arch_str", "room_layout_val_neg_loss", 3_256),
    ("transnas_bench_101/micro", "class_object", "transnas_bench_101", "arch_str", "class_object_val_top1", 4_096),
    ("transnas_bench_101/micro", "jigsaw", "transnas_bench_101", "arch_str", "jigsaw_val_top1", 4_096),
    ("transnas_bench_101/macro", "class_scene", "transnas_bench_101", "arch_str", "class_scene_val_top1", 3_256),
    (
        "transnas_bench_101/macro",
        "segmentsemantic",
        "transnas_bench_101",
        "arch_str",
        "segmentsemantic_val_pixel_accuracy",
        3_256,
    ),
]


def raw(benchmarks_root: Path, name: str) -> dict[str, Path]:
    return {path.name: path for path in (benchmarks_root / name.split("/")[0] / "raw").iterdir()}


@pytest.mark.parametrize(
    ("name", "task", "table", "key", "accuracy", "count"), LABELS, ids=[f"{row[0]} {row[1]}" for row in LABELS]
)
def test_labels_equal_an_independent_table(
    name: str, task: str, table: str, key: str, accuracy: str, count: int, benchmarks_root: Path
) -> None:
    specs, found = SPACES[name].read_labels(raw(benchmarks_root, name), task)
    assert len(specs) == len(set(specs)) == len(found) == count
    with gzip.open(benchmarks_root / name.split("/")[0] / f"{table}.csv.gz", "rt", newline="") as file:
        rows = list(csv.DictReader(file))
    key = key if "{" in key else f"{{{key}}}"
    wanted = {key.format(**row): float(row[accuracy]) for row in rows}
    assert set(specs) <= set(wanted)
    np.testing.assert_allclose(found, [wanted[spec] for spec in specs], atol=6e-5 if "bench_20" not in name else 6e-4)


def test_repeated_trainings_are_averaged(benchmarks_root: Path) -> None:
    specs, found = accel_nasbench.read_labels(raw(benchmarks_root, "accel_nasbench"), "imagenet1k")
    with gzip.open(benchmarks_root / "accel_nasbench" / "accel_nasbench.csv.gz", "rt", newline="") as file:
        rows = list(csv.DictReader(file))
    wanted: dict[str, list[float]] = {}
    for row in rows:
        blocks = (
            f"e{row[f'block{i}_e']}k{row[f'block{i}_k']}l{row[f'block{i}_l']}{'se' * int(row[f'block{i}_se'])}"
            for i in range(7)
        )
        wanted.setdefault("-".join(blocks), []).append(float(row["imagenet_val_top1_accuracy"]))
    assert len(rows) == 5_138
    assert len(specs) == 5_125
    np.testing.assert_allclose(found, [np.mean(wanted[spec]) for spec in specs], atol=1e-4)


def test_ofa_labels_equal_an_independent_table(benchmarks_root: Path) -> None:
    specs, found = ofa_mbv3.read_labels(raw(benchmarks_root, "ofa_mbv3"), "imagenet1k")
    with gzip.open(benchmarks_root / "ofa_mbv3" / "ofa_mbv3.csv.gz", "rt", newline="") as file:
        rows = list(csv.DictReader(file))
    wanted = {}
    for row in rows:
        stages = [
            ",".join(
                f"k{k}e{e}" for k, e in zip(row[f"stage{i}_ks"].split("-"), row[f"stage{i}_e"].split("-"), strict=True)
            )
            for i in range(5)
        ]
        wanted["-".join(stages)] = float(row["imagenet_top1_accuracy"])
    assert set(specs) == set(wanted)
    np.testing.assert_allclose(found, [wanted[spec] for spec in specs], atol=6e-4)


@pytest.mark.parametrize(
    ("name", "table", "key", "accuracy", "count"),
    [
        ("darts_trained/nas_efh", "nas_efh_random", "{normal}|{reduce}", "cifar10_test_accuracy_600ep", 214),
        ("darts_trained/swap", "swap_darts", "{normal}|{reduce}", "cifar10_valid_accuracy_200ep", 1_000),
        ("nas_bench_101/ec_nas_4v", "ec_nas_4v", "{adjacency}:{operations}", "cifar10_test_accuracy", 91),
        ("nas_bench_101/ec_nas_5v", "ec_nas_5v_4ep", "{adjacency}:{operations}", "cifar10_test_accuracy", 2_532),
    ],
)
def test_labels_of_tables(name: str, table: str, key: str, accuracy: str, count: int, benchmarks_root: Path) -> None:
    path = benchmarks_root / name.split("/")[0] / f"{table}.csv.gz"
    specs, found = SPACES[name].read_labels({path.name: path}, "cifar10")
    assert len(specs) == len(set(specs)) == len(found) <= count
    with gzip.open(path, "rt", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row.get("epochs", "108") in ("108", "4")]
    rows = [row for row in rows if table != "ec_nas_4v" or row["epochs"] == "108"]
    wanted: dict[str, list[float]] = {}
    for row in rows:
        wanted.setdefault(key.format(**row), []).append(float(row[accuracy]))
    assert len(rows) == count
    assert list(wanted) == specs
    np.testing.assert_allclose(found, [np.mean(values) for values in wanted.values()])


def test_attacks_cost_accuracy(benchmarks_root: Path) -> None:
    folder = benchmarks_root / "nas_bench_201"
    paths = {path.name: path for path in folder.glob("*.csv.gz")}
    clean = dict(zip(*nas_bench_201.read_labels(raw(benchmarks_root, "nas_bench_201"), "cifar10"), strict=True))
    means = []
    for task in nas_bench_201_robustness.TASKS[2:6]:
        specs, found = nas_bench_201_robustness.read_labels(paths, task)
        assert len(specs) == len(set(specs)) == 15_625
        assert 0 <= found.min() < found.max() < 95
        before = np.array([clean[spec] for spec in specs])
        assert np.mean(found <= before + 2) > 0.99
        means.append(found.mean())
    assert all(weak > strong for weak, strong in zip(means[::2], means[1::2], strict=True))
    with pytest.raises(DataError, match="no task 'cifar10'"):
        nas_bench_201_robustness.read_labels(paths, "cifar10")
    assert len(nas_bench_201_robustness.build(specs[0], "pgd_0.5").graph.node) == len(
        nas_bench_201.build(specs[0], "cifar10").graph.node
    )


def test_robustness_without_its_cell_is_refused(tmp_path: Path) -> None:
    paths = {}
    for name, text in (
        (nas_bench_201.HARDWARE, f"index,arch_str\n0,{CELL}\n"),
        ("robustness_cifar10.csv.gz", "index,cifar10_pgd_linf_0.5_accuracy\n0,50\n1,60\n"),
    ):
        paths[name] = tmp_path / name
        paths[name].write_bytes(gzip.compress(text.encode()))
    with pytest.raises(DataError, match="line 3: the index '1' is not in hw_nas_bench"):
        nas_bench_201_robustness.read_labels(paths, "pgd_0.5")


def test_cells_that_occur_twice_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "ec_nas_4v.csv.gz"
    row = '0100,"input,output",5,108,80\n'
    path.write_bytes(gzip.compress(("adjacency,operations,params,epochs,cifar10_test_accuracy\n" + row * 2).encode()))
    with pytest.raises(DataError, match="line 3: the cell 0100:input,output occurs twice"):
        ec_nas.SPACES["ec_nas_4v"].read_labels({path.name: path}, "cifar10")
    path.write_bytes(gzip.compress(b"adjacency,operations,params,epochs,cifar10_test_accuracy\n0100,x,5,4,80\n"))
    with pytest.raises(DataError, match="no training of 108 epochs"):
        ec_nas.SPACES["ec_nas_4v"].read_labels({path.name: path}, "cifar10")


def test_published_optima(benchmarks_root: Path) -> None:
    """The best cells that the papers report."""
    specs, found = nas_bench_201.read_labels(raw(benchmarks_root, "nas_bench_201"), "cifar10")
    best = specs[int(found.argmax())]
    assert round(found.max(), 2) == 94.37
    assert best == "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|skip_connect~0|nor_conv_1x1~1|nor_conv_3x3~2|"
    specs, found = nas_bench_macro.read_labels(raw(benchmarks_root, "nas_bench_macro"), "cifar10")
    assert round(found.max(), 2) == 93.13
    assert found[specs.index("22212202")] == pytest.approx(found.max(), abs=1e-4)


CELL = "|none~0|+|none~0|none~1|+|none~0|none~1|skip_connect~2|"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "not valid JSON"),
        ("{", "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ("[]", "one entry per network"),
        ("{}", "one entry per network"),
        (json.dumps({CELL: {"test_acc_100": 1.0}}), "no field 'test_acc_200'; found test_acc_100"),
        (json.dumps({CELL: 5}), "no field 'test_acc_200'"),
        (json.dumps({CELL: {"test_acc_200": None}}), "expected a number, got None"),
        (json.dumps({CELL: {"test_acc_200": True}}), "expected a finite number, got True"),
        (json.dumps({CELL: {"test_acc_200": float("nan")}}), "expected a finite number, got nan"),
        (json.dumps({"cell": {"test_acc_200": 5.0}}), "nasbench201_cifar10.json: NAS-Bench-201 cell 'cell'"),
        (f'{{"{CELL}": {{"test_acc_200": 5.0}}, "{CELL}": {{"test_acc_200": 6.0}}}}', "occurs twice"),
    ],
)
def test_damaged_json_is_refused(content: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "nasbench201_cifar10.json"
    path.write_text(content)
    with pytest.raises(DataError, match=message):
        nas_bench_201.read_labels({path.name: path}, "cifar10")


def test_damaged_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "nasbench201_cifar10.json"
    with pytest.raises(DataError, match="no such file"):
        nas_bench_201.read_labels({path.name: path}, "cifar10")
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match="cannot be read as text"):
        nas_bench_201.read_labels({path.name: path}, "cifar10")
    monkeypatch.setattr(raw_files, "MAX_FILE_BYTES", 1)
    with pytest.raises(DataError, match="2 bytes, expected at most 1"):
        nas_bench_201.read_labels({path.name: path}, "cifar10")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("'8:8:8:8:16' 80", "line 1: expected"),
        ("'8:8:8:8:17': 80", "five widths"),
        ("'8:8:8:8:16': 80\n8:8:8:8:16: 81", "line 2: the network 8:8:8:8:16 occurs twice"),
        ("'8:8:8:8:16': 8.0.0", "expected a number"),
        ("", "empty"),
    ],
)
def test_damaged_width_table_is_refused(content: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "nats_cifar10_acc_rank.yml"
    path.write_text(content)
    with pytest.raises(DataError, match=message):
        nats_bench_sss.read_labels({path.name: path}, "cifar10")


def tar_with(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def test_archives_are_read_in_memory_within_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "anb_dataset_jsons.tar.gz"
    architecture = {f"block{i}_{key}": value for i in range(7) for key, value in (("e", 4), ("k", 3), ("l", 1))}
    architecture |= {f"block{i}_se": i == 2 for i in range(7)}
    run = {"architecture": architecture, "metrics": {"val_top1": 60.0}, "model_info": {"macs": 1, "params": 2}}
    good = json.dumps(run).encode()
    tar_with(path, {"../../outside.json": good, "notes.txt": b"no result"})
    specs, accuracy = accel_nasbench.read_labels({path.name: path}, "imagenet1k")
    assert specs == ["e4k3l1-e4k3l1-e4k3l1se-e4k3l1-e4k3l1-e4k3l1-e4k3l1"]
    assert accuracy.tolist() == [60.0]
    assert not (tmp_path.parent.parent / "outside.json").exists()
    for content, message in (
        (b"{}", "no field 'architecture'"),
        (json.dumps(run | {"metrics": {}}).encode(), "no field 'val_top1'"),
        (json.dumps(run | {"architecture": architecture | {"block0_e": 5}}).encode(), "expected blocks"),
    ):
        tar_with(path, {"result_0.json": content})
        with pytest.raises(DataError, match=message):
            accel_nasbench.read_labels({path.name: path}, "imagenet1k")
    tar_with(path, {"result_0.json": good})
    whole = path.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"not an archive", whole[:30] + bytes(20) + whole[50:]):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=re.escape(str(path))):
            accel_nasbench.read_labels({path.name: path}, "imagenet1k")
    tar_with(path, {"result_0.json": good, "result_1.json": b" " * 3_000_000})
    monkeypatch.setattr(raw_files, "MAX_FILE_BYTES", 2_000_000)
    with pytest.raises(DataError, match="larger than 2,000,000 bytes together"):
        accel_nasbench.read_labels({path.name: path}, "imagenet1k")


def test_zip_archives_are_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "all_benchmarks_zen.zip"
    name = "zen/benchmark--transbench101_micro--jigsaw--0.json"

    def write(*entries: object) -> None:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(name, json.dumps(entries))

    micro = transnas_bench_101.SPACES["micro"]
    for entries, message in (
        ([{"arch": "(1, 2, 3, 0, 1, 2)", "val_accuracy": 50.0}], "1 networks for jigsaw, expected 4,096"),
        ([{"arch": "(1, 2, 3, 0, 1)", "val_accuracy": 50.0}], "six of them"),
        ([{"arch": "(1, 2, 3, 0, 1, 4)", "val_accuracy": 50.0}], "expected 64-41414"),
        ([{"arch": "(1, 2, 3, 0, 1, 2)", "val_accuracy": v} for v in (50.0, 51.0)], "has the values 50.0 and 51.0"),
        ([7], "no field 'arch'"),
    ):
        write(*entries)
        with pytest.raises(DataError, match=message):
            micro.read_labels({path.name: path}, "jigsaw")
    write(" " * 100_000)
    monkeypatch.setattr(raw_files, "MAX_FILE_BYTES", 50_000)
    with pytest.raises(DataError, match="larger than 50,000 bytes together"):
        micro.read_labels({path.name: path}, "jigsaw")
    path.write_bytes(b"not an archive")
    with pytest.raises(DataError, match="not a readable zip archive"):
        micro.read_labels({path.name: path}, "jigsaw")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("{'ks': [3], 'e': [3], 'd': [2, 2, 2, 2, 2], 'r': [224]}", "not a sub-network"),
        (str({"ks": [3] * 20, "e": [3] * 20, "d": [2] * 5, "r": [192]}), r"expected the resolution \[224\]"),
        (str({"ks": [3] * 20, "e": [3] * 20, "d": [1] * 5, "r": [224]}), "2 to 4 blocks"),
        ("__import__('os')", "not valid JSON"),
    ],
)
def test_damaged_sub_networks_are_refused(row: str, message: str, tmp_path: Path) -> None:
    paths = {}
    for name in (f"mbnv3w10_{part}.csv" for part in ("evoga_acc", "evonsga2_acc_macs", "evounsga3_acc_macs_params")):
        paths[name] = tmp_path / name
        with paths[name].open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["Sub-network", "Model Parameters", "MACs", "Top-1 Acc (%)"])
            writer.writerow([row, 1, 1, 75.0])
    with pytest.raises(DataError, match=message) as caught:
        ofa_mbv3.read_labels(paths, "imagenet1k")
    assert "mbnv3w10_evoga_acc.csv, line 2" in str(caught.value)


def test_csv_without_columns_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "data-545.csv"
    path.write_text("architecture,flop\nx,1\n")
    with pytest.raises(DataError, match="no column params, valid_acc50"):
        darts.read_labels({path.name: path}, "cifar10", "oncenas")
    path.write_text("architecture,flop,params,valid_acc50\nx,1\n")
    with pytest.raises(DataError, match="line 2 has too few fields"):
        darts.read_labels({path.name: path}, "cifar10", "oncenas")


# --- what the graph of a cell is ------------------------------------------------------------------------------------


def nb201(*operations: str) -> str:
    """The hash of a NAS-Bench-201 cell given by one letter per edge: n, s, 1, 3, p."""
    names = {"n": "none", "s": "skip_connect", "1": "nor_conv_1x1", "3": "nor_conv_3x3", "p": "avg_pool_3x3"}
    cell = nas_bench_201.spec_of(tuple(names[letter] for letter in "".join(operations)))
    return read(nas_bench_201.build(cell, "cifar10")).hash


@pytest.mark.parametrize(
    ("first", "second"),
    [
        # Edges in the order 0-1, 0-2, 1-2, 0-3, 1-3, 2-3.
        ("3nnnsn", "n3nnns"),  # one convolution, by node 1 or by node 2
        ("3nsnns", "3nnnsn"),  # skips on the way change nothing
        ("31nnsn", "3nnnsn"),  # node 2 leads nowhere
        ("3nn3nn", "pnn3nn"),  # node 1 leads nowhere
        ("nn33nn", "nnn3nn"),  # an edge that leaves a zero
        ("nn3n3s", "nnnnnn"),  # nothing reaches the output
        ("s3nnns", "n3nnns"),  # a skip that leads nowhere
        ("3nns3n", "n3nsn3"),  # the same residual block
    ],
)
def test_cells_of_one_function_have_one_graph(first: str, second: str) -> None:
    assert nb201(first) == nb201(second)


def test_cells_of_different_functions_have_different_graphs() -> None:
    cells = ["3nnnsn", "1nnnsn", "pnnnsn", "nnnsnn", "3nns3n", "3nnn3n", "33nnss", "313s33", "nnnnnn"]
    assert len({nb201(cell) for cell in cells}) == len(cells)


def function_of(cell: str) -> object:
    """What a NAS-Bench-201 cell computes, up to the names of its operators, found without any graph code.

    Node and operand sums are multisets of operators; two average poolings of one sum are one; of all ways to number
    operators of a kind, the numbering with the smallest description counts.
    """
    sums: list[Counter[object]] = [Counter({"input": 1})]
    operators: dict[object, tuple[str, Counter[object]]] = {}
    edges = list(zip(nas_bench_201.EDGES, nas_bench_201.parse(cell), strict=True))
    for target in (1, 2, 3):
        total: Counter[object] = Counter()
        for (to, source), op in edges:
            if to != target or op == "none" or not sums[source]:
                continue
            if op == "skip_connect":
                total += sums[source]
                continue
            operator = (op, sums[source])
            known = [key for key, other in operators.items() if op == "avg_pool_3x3" and other == operator]
            key = known[0] if known else (target, source)
            operators[key] = operator
            total[key] += 1
        sums.append(total)
    live: set[object] = set()
    waiting = set(sums[3])
    while waiting:
        key = waiting.pop()
        if key in operators and key not in live:
            live.add(key)
            waiting |= set(operators[key][1])
    kinds = sorted({operators[key][0] for key in live})
    orders = [list(permutations([key for key in live if operators[key][0] == kind])) for kind in kinds]

    def described(order: tuple[tuple[object, ...], ...]) -> tuple[object, ...]:
        names = {"input": "input"} | {
            key: f"{kind}{number}" for kind, keys in zip(kinds, order, strict=True) for number, key in enumerate(keys)
        }

        def terms(total: Counter[object]) -> list[tuple[str, int]]:
            return sorted((names[key], count) for key, count in total.items())

        return (sorted((names[key], terms(operators[key][1])) for key in live), terms(sums[3]))

    return repr(min(described(order) for order in product(*orders)))


def assert_hashes_tell_functions_apart(cells: list[str]) -> int:
    functions: dict[str, set[object]] = {}
    for cell in cells:
        functions.setdefault(read(nas_bench_201.build(cell, "cifar10")).hash, set()).add(function_of(cell))
    assert all(len(found) == 1 for found in functions.values())
    return len(functions)


def test_graphs_of_cells_tell_functions_apart() -> None:
    """Cells of skips and poolings alone look most alike."""
    cells = [nas_bench_201.spec_of(operations) for operations in product(("skip_connect", "avg_pool_3x3"), repeat=6)]
    assert assert_hashes_tell_functions_apart(cells) < len(cells)


@pytest.mark.slow
def test_graphs_of_many_cells_tell_functions_apart() -> None:
    assert assert_hashes_tell_functions_apart(nas_bench_201.sample(4_000, 0)) < 4_000


def test_cell_without_any_edge_is_the_disconnected_graph() -> None:
    model = nas_bench_201.build(nas_bench_201.spec_of(("none",) * 6), "cifar100")
    assert stored_costs(model)[0] > 0
    graph = read(model)
    assert [(node.op, node.shape) for node in graph.nodes] == [("Zero", (1, 100))]
    assert graph.params == graph.macs == 0


def test_network_classes_follow_the_task() -> None:
    cell = nas_bench_201.sample(1, 0)[0]
    graphs = {task: read(nas_bench_201.build(cell, task)) for task in nas_bench_201.TASKS}
    assert [graphs[task].nodes[-1].shape for task in nas_bench_201.TASKS] == [(1, 10), (1, 100), (1, 120)]
    assert graphs["imagenet16_120"].nodes[0].shape == (1, 3, 16, 16)


def test_pruned_cell_equals_the_unpruned_one() -> None:
    """Vertex 2 of the first cell leads nowhere."""
    dead = "0110" + "0001" + "0000" + "0000" + ":input,conv3x3-bn-relu,maxpool3x3,output"
    pruned = "010" + "001" + "000" + ":input,conv3x3-bn-relu,output"
    assert nas_bench_101.parse(dead) == nas_bench_101.parse(pruned)
    assert nas_bench_101.spec_of(nas_bench_101.parse(dead)) == pruned


def test_vertex_channels_by_hand(shapes_in: Callable[..., Any]) -> None:
    """Three vertices share the channels; one that feeds the second and third has as many as the wider of the two."""
    cell = nas_bench_101.Cell(
        ((1, 2), (5,), (3, 4), (5,), (5,), ()),
        ("input", *["conv3x3-bn-relu"] * 4, "output"),
    )
    assert nas_bench_101.vertex_channels(cell, 128) == (0, 43, 43, 43, 42, 0)
    assert nas_bench_101.vertex_channels(cell, 256) == (0, 86, 85, 85, 85, 0)
    model = nas_bench_101.build(nas_bench_101.spec_of(cell), "cifar10")
    shapes = shapes_in(model)
    truncated = [shapes[node.output[0]][1] for node in model.graph.node if node.op_type == "Slice"]
    assert truncated == [42] * 3 + [170] * 3


def test_value_is_a_name_and_a_sample_shape() -> None:
    b = OnnxBuilder("one", (3, 4, 4))
    assert b.input == Value("input", (3, 4, 4))
    assert b.relu(b.input).shape == (3, 4, 4)
