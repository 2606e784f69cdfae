"""NAS-Bench-NLP: published parameters, one step by hand, strict recipes, logs in the official layout."""

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

from archgauge.datasets import nas_bench_nlp
from archgauge.datasets.onnx_builder import stored_costs, with_zero_weights
from archgauge.encoders.errors import DataError
from archgauge.encoders.onnx_reader import read

PLAIN = {"f": {"op": "linear", "input": ["x", "h_prev_0"]}, "h_new_0": {"op": "activation_tanh", "input": ["f"]}}
GATED = {
    "z": {"op": "linear", "input": ["h_prev_0", "x"]},
    "gate": {"op": "activation_sigm", "input": ["z"]},
    "c": {"op": "linear", "input": ["x", "h_prev_0"]},
    "candidate": {"op": "activation_tanh", "input": ["c"]},
    "h_new_0": {"op": "blend", "input": ["gate", "h_prev_0", "candidate"]},
}


def recipe(nodes: dict[str, Any], **changed: Any) -> str:
    return json.dumps(nodes | changed)


@pytest.fixture(scope="module")
def extract(benchmarks_root: Path) -> dict[str, Path]:
    path = benchmarks_root / "nas_bench_nlp" / nas_bench_nlp.TABLE
    return {path.name: path}


def test_published_parameters_are_ours(extract: dict[str, Path]) -> None:
    specs, _ = nas_bench_nlp.read_labels(extract, "wikitext2")
    params, _ = nas_bench_nlp.published_costs(extract, "wikitext2")
    assert [stored_costs(nas_bench_nlp.build(spec, "wikitext2"))[0] for spec in specs] == params.tolist()


def test_labels_are_minus_losses(extract: dict[str, Path]) -> None:
    specs, scores = nas_bench_nlp.read_labels(extract, "wikitext2")
    assert len(specs) == len(set(specs)) == 289
    assert -7.4 < scores.min() < scores.max() == pytest.approx(-4.51616)


def test_parameters_of_the_plain_cell() -> None:
    """The table of 33,278 words and the bias of the decoder, and three layers of x W + h U + b."""
    words, layers = 33_278, ((400, 600), (600, 600), (600, 400))
    expected = 400 * words + words + sum(size * new + new * new + new for size, new in layers)
    model = nas_bench_nlp.build(recipe(PLAIN), "wikitext2")
    assert stored_costs(model)[0] == read(model).params == expected


def test_one_step_computes_what_the_recipe_says(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, size in (("_EMBEDDING", 3), ("_HIDDEN", 4), ("_VOCABULARY", {"ptb": 5})):
        monkeypatch.setattr(nas_bench_nlp, name, size)
    model = nas_bench_nlp.build(recipe(GATED), "ptb")
    rng = np.random.default_rng(0)
    weights = []
    for tensor in model.graph.initializer:
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            weights.append(rng.normal(size=tuple(tensor.dims)).astype(np.float32))
            tensor.ClearField("data_location")
            tensor.ClearField("external_data")
            tensor.raw_data = weights[-1].tobytes()
    states = [rng.normal(size=(1, size)).astype(np.float32) for size in (4, 4, 3)]
    feeds: dict[str, Any] = {f"layer_{i}_h_0": state for i, state in enumerate(states)}
    found: Any = ReferenceEvaluator(model).run(None, feeds | {"token": np.array([2])})
    table, decoder_bias = weights[0], weights[-1]
    x, new_states = table[2][None], []
    for layer, h in enumerate(states):
        # z = h U + b + x W and c = x W' + b' + h U', in the order in which the recipe names the inputs.
        z_h, z_b, z_x, c_x, c_b, c_h = weights[1 + 6 * layer : 7 + 6 * layer]
        gate = 1 / (1 + np.exp(-(h @ z_h + z_b + x @ z_x)))
        x = gate * h + (1 - gate) * np.tanh(x @ c_x + c_b + h @ c_h)
        new_states.append(x)
    for result, wanted in zip(found, [x @ table.T + decoder_bias, *new_states], strict=True):
        np.testing.assert_allclose(result, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("task", nas_bench_nlp.TASKS)
def test_samples_are_valid(task: str) -> None:
    for spec in nas_bench_nlp.sample(12, 3):
        model = nas_bench_nlp.build(spec, task)
        graph = read(model)
        assert (graph.params, graph.macs) == stored_costs(model)
        assert graph.unknown_ops == ()
    onnx.checker.check_model(with_zero_weights(model), full_check=True)


def test_samples_are_distinct_and_repeatable() -> None:
    specs = nas_bench_nlp.sample(300, 1)
    assert specs == nas_bench_nlp.sample(300, 1) != nas_bench_nlp.sample(300, 2)
    assert len(set(specs)) == 300
    assert {nas_bench_nlp.parse(spec).states for spec in specs} == {1, 2, 3}
    for n in (-1, 10_000_000):
        with pytest.raises(DataError, match="can sample"):
            nas_bench_nlp.sample(n, 0)


def test_order_of_the_nodes_does_not_matter() -> None:
    turned = dict(reversed(GATED.items()))
    hashes = {read(nas_bench_nlp.build(recipe(nodes), "ptb")).hash for nodes in (GATED, turned)}
    assert len(hashes) == 1
    assert read(nas_bench_nlp.build(recipe(PLAIN), "ptb")).hash not in hashes


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("", "not valid JSON"),
        ("[]", "expected a JSON object"),
        ("{}", "expected a JSON object"),
        (recipe({"f": PLAIN["f"]}), "expected a node h_new_0"),
        (recipe(PLAIN, f={"op": "linear", "input": ["y"]}), "no input 'y'"),
        (recipe(PLAIN, f={"op": "linear", "input": ["h_prev_1"]}), "no input 'h_prev_1'"),
        (recipe(PLAIN, f={"op": "linear", "input": []}), "of 0 inputs"),
        (recipe(PLAIN, f={"op": "conv", "input": ["x"]}), "no 'conv'"),
        (recipe(PLAIN, f={"op": ["linear"], "input": ["x"]}), "expected"),
        (recipe(PLAIN, f={"op": "linear", "input": [["x"]]}), "expected"),
        (recipe(PLAIN, f={"op": "linear", "input": ["h_new_0"]}), "wait for each other"),
        (recipe(PLAIN, f={"op": "activation_tanh", "input": ["x"]}), "x as the input of a linear node only"),
        (recipe(PLAIN, x={"op": "linear", "input": ["x"]}), "x as the input of a linear node only"),
        (recipe(PLAIN, f=7), "expected"),
        (recipe({f"n{i}": PLAIN["f"] for i in range(300)}), "1 to 200 nodes"),
    ],
)
def test_malformed_recipes_are_refused(spec: str, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        nas_bench_nlp.build(spec, "ptb")
    assert repr(spec) in str(caught.value)


def log(nodes: dict[str, Any], validation: list[Any], test: list[Any], status: str = "OK") -> dict[str, Any]:
    return {
        "recepie": json.dumps(nodes),
        "num_params": 9,
        "val_losses": validation,
        "test_losses": test,
        "status": status,
    }


def write_logs(path: Path, *logs: Any) -> dict[str, Path]:
    with zipfile.ZipFile(path, "w") as archive:
        for i, entry in enumerate(logs):
            archive.writestr(f"logs/log_stats_model_{i}.json", json.dumps(entry))
    return {path.name: path}


def test_published_logs_are_read(tmp_path: Path) -> None:
    paths = write_logs(
        tmp_path / "logs_ptb.zip",
        log(PLAIN, [6.0, 5.0, 5.5], [6.5, 5.25, 5.0]),
        log(PLAIN, [4.0, float("nan")], [4.75, float("nan")]),
        log(GATED, [float("nan")], [float("nan")], "loss is nan!"),
    )
    specs, scores = nas_bench_nlp.read_labels(paths, "ptb")
    assert specs == [json.dumps(PLAIN)]
    assert scores.tolist() == [-5.0]
    assert nas_bench_nlp.published_costs(paths, "ptb")[0].tolist() == [9]


@pytest.mark.parametrize(
    ("logs", "message"),
    [
        ([], "no log in the archive"),
        ([7], "no field 'recepie'"),
        ([log({}, [1.0], [1.0])], "expected a JSON object"),
        ([log(PLAIN, [1.0], [])], "equal length"),
        ([log(PLAIN, ["x"], [1.0])], "expected numbers"),
        ([log(PLAIN, [1.0], [1.0]) | {"num_params": "many"}], "expected a number"),
    ],
)
def test_damaged_logs_are_refused(logs: list[Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        nas_bench_nlp.read_labels(write_logs(tmp_path / "logs_wikitext2.zip", *logs), "wikitext2")


def test_unknown_task_and_missing_file_are_named() -> None:
    with pytest.raises(DataError, match="no task 'mnist'"):
        nas_bench_nlp.build(recipe(PLAIN), "mnist")
    for task in nas_bench_nlp.TASKS:
        with pytest.raises(DataError, match="is needed, got none"):
            nas_bench_nlp.read_labels({}, task)
