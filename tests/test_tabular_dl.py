"""Networks on rows: published parameters, small networks against plain computations, strict specs and tables."""

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

from archgauge.datasets import tabular_dl
from archgauge.datasets.onnx_builder import stored_costs, with_zero_weights
from archgauge.encoders.errors import DataError
from archgauge.encoders.onnx_reader import read


@pytest.fixture(scope="module")
def extract(benchmarks_root: Path) -> dict[str, Path]:
    path = benchmarks_root / "tabular_dl" / tabular_dl.TABLE
    return {path.name: path}


@pytest.mark.parametrize("task", tabular_dl.TASKS)
def test_published_parameters_are_ours(task: str, extract: dict[str, Path]) -> None:
    specs, accuracy = tabular_dl.read_labels(extract, task)
    params, _ = tabular_dl.published_costs(extract, task)
    assert len(specs) == 30
    assert 60 < accuracy.min() < accuracy.max() < 98
    models = [tabular_dl.build(spec, task) for spec in specs]
    assert [stored_costs(model)[0] for model in models] == params.tolist()
    for model in models[::6]:
        graph = read(model)
        assert (graph.params, graph.macs) == stored_costs(model)


@pytest.mark.parametrize("task", ["adult", "otto"])
def test_samples_are_valid(task: str) -> None:
    for spec in tabular_dl.sample(12, 3):
        model = tabular_dl.build(spec, task)
        onnx.checker.check_model(with_zero_weights(model), full_check=True)
        graph = read(model)
        assert (graph.params, graph.macs) == stored_costs(model)
        assert graph.unknown_ops == ()


def test_samples_are_distinct_and_repeatable() -> None:
    specs = tabular_dl.sample(300, 1)
    assert specs == tabular_dl.sample(300, 1) != tabular_dl.sample(300, 2)
    assert len(set(specs)) == 300
    assert [tabular_dl.spec_of(tabular_dl.parse(spec)) for spec in specs] == specs
    for n in (-1, 10_000_000):
        with pytest.raises(DataError, match="can sample"):
            tabular_dl.sample(n, 0)


def run(spec: str, task: str, feeds: dict[str, Any]) -> tuple[Any, Any]:
    """The output for random weights, and an iterator over the weights in the order of the file."""
    model = tabular_dl.build(spec, task)
    rng = np.random.default_rng(0)
    weights = []
    for tensor in model.graph.initializer:
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            weights.append(rng.normal(size=tuple(tensor.dims), scale=0.3).astype(np.float32))
            tensor.ClearField("data_location")
            tensor.ClearField("external_data")
            tensor.raw_data = weights[-1].tobytes()
    result: Any = ReferenceEvaluator(model).run(None, feeds)
    return result[0], iter(weights)


def test_periodic_mlp_computes_what_the_paper_says() -> None:
    x = np.random.default_rng(1).normal(size=(28, 1)).astype(np.float32)
    found, take = run("mlp:6,4|p:3-lr:5", "higgs_small", {"numbers": x})
    phases = 2 * np.pi * x * next(take)
    y = np.concatenate([np.cos(phases), np.sin(phases)], axis=1)
    y = np.maximum(np.einsum("ni,nio->no", y, next(take)) + next(take), 0).reshape(1, -1)
    for _ in range(2):
        y = np.maximum(y @ next(take) + next(take), 0)
    np.testing.assert_allclose(found, y @ next(take) + next(take), rtol=1e-3, atol=1e-4)


def normalised(x: Any, take: Any) -> Any:
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    return x * next(take) + next(take)


def test_transformer_computes_what_the_paper_says() -> None:
    x = np.random.default_rng(1).normal(size=(10, 1)).astype(np.float32)
    found, take = run("transformer:2x6|l:16", "churn", {"numbers": x, "categories": np.array([2])})
    tokens = x * next(take) + next(take)
    category = next(take)[[2]] + next(take)
    y = np.concatenate([tokens, category, next(take)])
    for block in range(2):
        z = normalised(y, take) if block else y
        queries, keys, values = (z @ next(take) + next(take) for _ in range(3))
        heads = []
        for head in range(8):
            part = slice(2 * head, 2 * head + 2)
            weight = np.exp(queries[:, part] @ keys[:, part].T / np.sqrt(2))
            heads.append(weight / weight.sum(1, keepdims=True) @ values[:, part])
        y = y + np.concatenate(heads, axis=1) @ next(take) + next(take)
        hidden, gate = np.split(normalised(y, take) @ next(take) + next(take), 2, axis=1)
        y = y + (hidden * np.maximum(gate, 0)) @ next(take) + next(take)
    wanted = np.maximum(normalised(y[-1:], take), 0) @ next(take) + next(take)
    np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-4)


def test_backbones_and_embeddings_give_different_graphs() -> None:
    specs = [
        *(f"mlp:64,64|{embedding}" for embedding in ("raw", "bins:6", "l:6", "lr:6", "lrlr:6", "p:3", "p:3-l:6")),
        *("resnet:2x64x64|raw", "resnet:3x64x64|raw", "transformer:2x64|l:16", "transformer:2x64|lr:16"),
    ]
    assert len({read(tabular_dl.build(spec, "otto")).hash for spec in specs}) == len(specs)


@pytest.mark.parametrize(
    "spec",
    [
        "",
        "mlp:64",
        "mlp:64|",
        "mlp:|raw",
        "mlp:0|raw",
        "mlp:64|-l:6",
        "mlp:64|l:6-p:3",
        "mlp:64|l:6l:6",
        "mlp:64|p:3l:6",
        "resnet:2x64|raw",
        "resnet:99x64x64|raw",
        "transformer:2x64|raw",
        "transformer:2x64|l:12",
        "cnn:3|raw",
    ],
)
def test_malformed_specs_are_refused(spec: str) -> None:
    with pytest.raises(DataError, match="expected"):
        tabular_dl.build(spec, "otto")


HEADER = "source,dataset,model,variant,test_score,params,config\n"
CONFIG = '"{""num_embedding_arch"":[],""mlp"":{""d_layers"":[4]},""d_num_embedding"":null}"'
ROW = f"num_embeddings,higgs-small,mlp,0_evaluation,0.7,121,{CONFIG}\n"


def write(path: Path, text: str) -> dict[str, Path]:
    path.write_bytes(gzip.compress(text.encode()))
    return {path.name: path}


def test_rows_of_one_network_have_their_mean(tmp_path: Path) -> None:
    paths = write(tmp_path / tabular_dl.TABLE, HEADER + ROW + ROW.replace("0.7", "0.8"))
    specs, accuracy = tabular_dl.read_labels(paths, "higgs_small")
    assert specs == ["mlp:4|raw"]
    assert accuracy.tolist() == [pytest.approx(75)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (HEADER + ROW.replace("num_embeddings", "tabr"), "no row of the study for higgs_small"),
        (HEADER + ROW.replace("0.7", "x"), "expected a number"),
        (HEADER + ROW.replace("[4]", "[0]"), "expected mlp"),
        (HEADER + ROW.replace('""mlp""', '""cnn""'), "expected a configuration"),
        (HEADER + ROW.replace(":[],", ':[""shared_linear""],'), "no embedding"),
        (HEADER + ROW.replace(":[],", ':[""linear""],'), "expected a number"),
        (HEADER + ROW.replace("[4]", "[[4]]"), "expected a number"),
        (HEADER + ROW.replace(",mlp,", ",mlp-q,"), "no number of bins gives"),
        (HEADER + ROW.replace("{", ""), "not valid JSON"),
    ],
)
def test_damaged_tables_are_refused(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        tabular_dl.read_labels(write(tmp_path / tabular_dl.TABLE, text), "higgs_small")


def test_unknown_task_and_missing_file_are_named() -> None:
    with pytest.raises(DataError, match="no task 'mnist'"):
        tabular_dl.build("mlp:64|raw", "mnist")
    with pytest.raises(DataError, match="is needed, got none"):
        tabular_dl.read_labels({}, "otto")
