"""Scaling sets: published parameters, one small decoder against a plain computation, strict specs and files."""

import csv
import gzip
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

from archgauge.datasets import lm_scaling
from archgauge.datasets.lm_scaling import SPACES, Decoder
from archgauge.datasets.onnx_builder import stored_costs, with_zero_weights
from archgauge.encoders.errors import DataError
from archgauge.encoders.onnx_reader import read

EXAMPLES = {"openlm": "d=96_l=4_h=12", "gemstones": "384x3"}


@pytest.fixture(scope="module")
def raw(benchmarks_root: Path) -> dict[str, Path]:
    return {path.name: path for path in (benchmarks_root / "lm_scaling" / "raw").iterdir()}


def test_gemstones_have_the_published_parameters(raw: dict[str, Path]) -> None:
    specs, losses = SPACES["gemstones"].read_labels(raw, "fineweb_edu")
    params, _ = lm_scaling.published_costs(raw)
    assert len(specs) == 22
    assert -3.41 < losses.min() < losses.max() < -2.47
    found = [stored_costs(SPACES["gemstones"].build(spec, "fineweb_edu"))[0] for spec in specs]
    assert found == params.tolist()


def test_openlm_has_the_published_parameters(benchmarks_root: Path, raw: dict[str, Path]) -> None:
    specs, losses = SPACES["openlm"].read_labels(raw, "openlm")
    assert len(specs) == 130
    assert -5.36 < losses.min() < losses.max() < -2.47
    with gzip.open(benchmarks_root / "lm_scaling" / "openlm_testbed.csv.gz", "rt", newline="") as file:
        rows = {(r["hidden_dim"], r["n_layers"], r["n_heads"]): int(r["params"]) for r in csv.DictReader(file)}
    assert len(rows) == 6
    for (width, depth, heads), params in rows.items():
        assert stored_costs(SPACES["openlm"].build(f"d={width}_l={depth}_h={heads}", "openlm"))[0] == params


@pytest.mark.parametrize("space", SPACES)
def test_graph_keeps_the_costs(space: str) -> None:
    model = SPACES[space].build(EXAMPLES[space], SPACES[space].TASKS[0])
    onnx.checker.check_model(with_zero_weights(model), full_check=True)
    graph = read(model)
    assert (graph.params, graph.macs) == stored_costs(model)
    assert graph.unknown_ops == ()


@pytest.mark.parametrize("space", SPACES)
def test_samples_are_valid_distinct_and_repeatable(space: str) -> None:
    specs = SPACES[space].sample(50, 1)
    assert specs == SPACES[space].sample(50, 1) != SPACES[space].sample(50, 2)
    assert len(set(specs)) == 50
    task = SPACES[space].TASKS[0]
    for spec in sorted(specs, key=lambda spec: lm_scaling.parse(spec).depth)[:3]:
        graph = read(SPACES[space].build(spec, task))
        assert 0 < graph.params < graph.macs
    for n in (-1, 10_000_000):
        with pytest.raises(DataError, match="can sample"):
            SPACES[space].sample(n, 0)


def reference(net: Decoder, weights: list[Any], tokens: Any, cos: Any, sin: Any) -> Any:
    """The network in plain numpy, one head at a time; weights in the order of the file."""
    take = iter(weights)
    x = next(take)[tokens]

    def norm(x: Any, gain: Any) -> Any:
        x = x if net.gemma else x - x.mean(-1, keepdims=True)
        return gain * x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-6)

    def rotate(x: Any) -> Any:
        first, second = np.split(x, 2, axis=-1)
        return x * cos + np.concatenate([-second, first], axis=-1) * sin

    for _ in range(net.depth):
        y = norm(x, next(take))
        queries, keys, values, out = (next(take) for _ in range(4))
        heads = []
        for head in range(net.heads):
            shared = head // (net.heads // net.shared)
            q, k, v = (
                (y @ matrix)[:, at * net.head : (at + 1) * net.head]
                for matrix, at in ((queries, head), (keys, shared), (values, shared))
            )
            scores = rotate(q) @ rotate(k).T / np.sqrt(net.head)
            scores[np.triu_indices(len(tokens), 1)] = -np.inf
            weight = np.exp(scores - scores.max(-1, keepdims=True))
            heads.append(weight / weight.sum(-1, keepdims=True) @ v)
        x = x + np.concatenate(heads, axis=-1) @ out
        y = norm(x, next(take))
        gate, up, down = (next(take) for _ in range(3))
        gate = y @ gate
        if net.gemma:
            erf = np.vectorize(math.erf)
            gate = gate * 0.5 * (1 + erf(gate / np.sqrt(2)))
        else:
            gate = gate / (1 + np.exp(-gate))
        x = x + (gate * (y @ up)) @ down
    return norm(x, next(take)) @ next(take)


@pytest.mark.parametrize("spec", ["d=24_l=2_h=3", "384x2"])
def test_small_decoders_compute_what_the_papers_say(spec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lm_scaling, "CONTEXT", 5)
    monkeypatch.setattr(
        lm_scaling, "parse", lambda text, original=lm_scaling.parse: original(text)._replace(vocabulary=7)
    )
    net = lm_scaling.parse(spec)
    space = "gemstones" if net.gemma else "openlm"
    model = lm_scaling.build(spec, SPACES[space].TASKS[0], space)
    rng = np.random.default_rng(0)
    weights = []
    for tensor in model.graph.initializer:
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            weights.append(rng.normal(size=tuple(tensor.dims), scale=0.2).astype(np.float32))
            tensor.ClearField("data_location")
            tensor.ClearField("external_data")
            tensor.raw_data = weights[-1].tobytes()
    tokens = np.array([3, 1, 6, 0, 2])
    cos, sin = rng.normal(size=(2, 5, net.head)).astype(np.float32)
    mask = np.triu(np.full((5, 5), -1e9, np.float32), 1)
    feeds = {"tokens": tokens, "mask": mask, "cos": cos, "sin": sin}
    found: Any = ReferenceEvaluator(model).run(None, feeds)
    wanted = reference(net, weights, tokens, cos, sin)
    np.testing.assert_allclose(found[0], wanted, rtol=2e-3, atol=2e-3 * np.abs(wanted).max())


@pytest.mark.parametrize(
    "spec", ["", "d=96_l=4", "d=96_l=4_h=5", "d=96_l=0_h=4", "d=9_l=4_h=12", "1000x3", "128x3", "1024x0", "1024x28x1"]
)
def test_malformed_specs_are_refused(spec: str) -> None:
    for space in SPACES.values():
        with pytest.raises(DataError, match="expected"):
            space.build(spec, space.TASKS[0])


def test_spaces_are_not_mixed() -> None:
    with pytest.raises(DataError, match="expected a network of lm_scaling/openlm"):
        SPACES["openlm"].build("1024x28", "openlm")
    with pytest.raises(DataError, match="no task 'mnist'"):
        SPACES["openlm"].read_labels({}, "mnist")
    with pytest.raises(DataError, match="no space 'gpt'"):
        lm_scaling.sample(1, 0, "gpt")
    for space in SPACES.values():
        with pytest.raises(DataError, match="is needed, got none"):
            space.read_labels({}, space.TASKS[0])


def test_best_warm_up_counts(tmp_path: Path) -> None:
    path = tmp_path / "grid.json"
    path.write_text(json.dumps({"d=96_l=4_h=4-8-100": 5.5, "d=96_l=4_h=4-8-400": 5.25, "d=96_l=4_h=12-8-100": 5.75}))
    specs, losses = SPACES["openlm"].read_labels({path.name: path}, "openlm")
    assert dict(zip(specs, losses.tolist(), strict=True)) == {"d=96_l=4_h=4": -5.25, "d=96_l=4_h=12": -5.75}
    path.write_text(json.dumps({"d=96-8-100": 5.5}))
    with pytest.raises(DataError, match=r"grid\.json, d=96-8-100"):
        SPACES["openlm"].read_labels({path.name: path}, "openlm")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tokens": 7}, "no loss at 350,119,526,400 tokens"),
        ({"width": 100}, "line 1: language model '100x3'"),
        ({"final_loss": None}, "expected a number"),
        ({"twice": True}, "line 2: the network 256x3 occurs twice"),
    ],
)
def test_damaged_losses_are_refused(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    row = {"width": 256, "depth": 3, "tokens": 350119526400, "final_loss": 3.5, "params_active_precise": 9} | change
    path = tmp_path / "fineweb_edu_losses_combined.jsonl"
    path.write_text("\n".join([json.dumps(row)] * (2 if "twice" in change else 1)))
    with pytest.raises(DataError, match=message):
        SPACES["gemstones"].read_labels({path.name: path}, "fineweb_edu")
