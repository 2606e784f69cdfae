"""NAS-Bench-NLP: recurrent cells, trained as word-level language models.

N. Klyuchnikov, I. Trofimov, E. Artemova, M. Salnikov, M. Fedorov, E. Burnaev, "NAS-Bench-NLP: Neural Architecture
Search Benchmark for Natural Language Processing", 2020; operations and sizes from the official code.

A spec is the official recipe: JSON, node → operation and inputs. `x` is the input, `h_prev_i` are the hidden states,
`h_new_i` the new ones. The network: embedding of 400, three layers of the cell (400 → 600 → 600 → 400), a decoder that
shares its table with the embedding. It is written as ONE step: inputs are a token and every layer's hidden states,
outputs the scores of the next word and the new states. Recurrence shows as the pairs of states, and
multiply-accumulates are those of one token. Parameters equal the published ones on all trainings on WikiText-2.

The labels are MINUS the test loss (nats per word) at the epoch of the best validation, mean over the trainings of a
recipe: larger is better, but they are no percent (`UNIT`). Recipes whose every training ended in NaN have none.
The vocabulary of `ptb` is the usual 10,000 words; no published count was at hand to check it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from ..encoders.errors import DataError
from .array_builder import ArrayBuilder
from .extracts import read_extract
from .onnx_builder import Value
from .raw_files import check_spec, check_task, field, number, parse_json, raw_path, zip_members
from .space import check_count

TABLE = "nas_bench_nlp_wikitext2.csv.gz"
"""The extract of the WikiText-2 logs; `read_labels` takes it where the published logs are not given."""

UNIT = "minus nats per word"

_VOCABULARY = {"wikitext2": 33_278, "ptb": 10_000}
TASKS = tuple(_VOCABULARY)
SIZE = 1_000_000
"""Specs that `sample` gives at most."""
_LOGS = {"wikitext2": "logs_wikitext2.zip", "ptb": "logs_ptb.zip"}
_EMBEDDING, _HIDDEN, _LAYERS = 400, 600, 3
_MAX_NODES = 200
_ARITY = {
    "linear": range(1, 100),
    "blend": range(3, 4),
    "elementwise_prod": range(2, 3),
    "elementwise_sum": range(2, 3),
    "activation_tanh": range(1, 2),
    "activation_sigm": range(1, 2),
    "activation_leaky_relu": range(1, 2),
}


class Step(NamedTuple):
    """A node of a cell: its name, operation and inputs."""

    name: str
    op: str
    inputs: tuple[str, ...]


class Cell(NamedTuple):
    """A recurrent cell: its nodes, each after its inputs, and the number of hidden states."""

    steps: tuple[Step, ...]
    states: int


def parse(spec: str) -> Cell:
    """The cell of a recipe.

    Raises:
        DataError: It is not a recipe of this space; `elementwise_*`, `blend` and activations of `x` are not, because
            its size differs from that of the states.
    """
    where = f"NAS-Bench-NLP recipe {spec!r}"
    recipe = parse_json(spec, where)
    if not isinstance(recipe, dict) or not 1 <= len(recipe) <= _MAX_NODES:
        raise DataError(f"{where}: expected a JSON object of 1 to {_MAX_NODES} nodes")
    states = 0
    while f"h_new_{states}" in recipe:
        states += 1
    if not states:
        raise DataError(f"{where}: expected a node h_new_0")
    outside = {"x", *(f"h_prev_{i}" for i in range(states))}
    waiting: dict[str, Step] = {}
    for name, node in recipe.items():
        if not isinstance(node, dict) or set(node) != {"op", "input"} or not isinstance(node["input"], list):
            raise DataError(f'{where}: node {name!r}: expected {{"op": ..., "input": [...]}}, got {node!r}')
        op, inputs = node["op"], node["input"]
        if not all(isinstance(text, str) for text in (op, *inputs)):
            raise DataError(f"{where}: node {name!r}: expected names as operation and inputs, got {node!r}")
        if op not in _ARITY or len(inputs) not in _ARITY[op]:
            raise DataError(f"{where}: node {name!r}: there is no {op!r} of {len(inputs)} inputs")
        for source in inputs:
            if source not in recipe and source not in outside:
                raise DataError(f"{where}: node {name!r}: there is no input {source!r}")
        if name in outside or (op != "linear" and "x" in inputs):
            raise DataError(f"{where}: node {name!r}: expected x as the input of a linear node only")
        waiting[name] = Step(name, op, tuple(inputs))
    known, steps = set(outside), []
    while waiting:
        ready = [step for step in waiting.values() if known.issuperset(step.inputs)]
        if not ready:
            raise DataError(f"{where}: the nodes {', '.join(waiting)} wait for each other")
        for step in ready:
            del waiting[step.name]
            known.add(step.name)
        steps += ready
    return Cell(tuple(steps), states)


def spec_of(cell: Cell) -> str:
    """The recipe of a cell."""
    return json.dumps({step.name: {"op": step.op, "input": list(step.inputs)} for step in cell.steps})


def build(spec: str, task: str) -> ModelProto:
    """One step of the language model: inputs `token` (1,) and states (1, 600 or 400), outputs scores and states.

    Raises:
        DataError: The recipe or the task does not exist.
    """
    check_task(task, TASKS, "NAS-Bench-NLP")
    cell, words = parse(spec), _VOCABULARY[task]
    b = ArrayBuilder("recurrent language model", (1,), input_name="token", integer=True)
    x, table = b.embedding(b.input, words, _EMBEDDING)
    outputs: list[Value] = []
    for layer in range(_LAYERS):
        size = _EMBEDDING if layer == _LAYERS - 1 else _HIDDEN
        states = [b.add_input(f"layer_{layer}_h_{i}", (1, size)) for i in range(cell.states)]
        new = _step(b, cell, x, states)
        outputs += new
        x = new[0]
    return b.build(b.shared_linear(x, table, words, bias=True), *dict.fromkeys(outputs))


def read_labels(paths: Mapping[str, Path], task: str) -> tuple[list[str], NDArray[np.float64]]:
    """Recipes and minus test losses (nats per word), sorted by recipe; see `UNIT`.

    Args:
        paths: The published logs, saved as logs_wikitext2.zip or logs_ptb.zip, or for WikiText-2 the extract.
        task: Corpus.

    Raises:
        DataError: A file is missing or damaged, or the task does not exist.
    """
    rows = _labelled(paths, task)
    return list(rows), np.array([-float(np.mean(losses)) for losses, _ in rows.values()])


def published_costs(paths: Mapping[str, Path], task: str) -> tuple[NDArray[np.float64], None]:
    """Parameters as published, in the order of `read_labels`; there are no multiply-accumulates."""
    return np.array([params for _, params in _labelled(paths, task).values()]), None


def sample(n: int, seed: int) -> list[str]:
    """Draw `n` different random cells; the same for the same seed.

    The procedure is ours: one to three states, four to twelve nodes, each with a random operation on random earlier
    nodes; what leads to no state is left out. The authors draw in another way.

    Raises:
        DataError: n is negative or above 1,000,000.
    """
    check_count(n, SIZE, "NAS-Bench-NLP")
    rng = np.random.default_rng(seed)
    found: dict[str, None] = {}
    while len(found) < n:
        found[_random_cell(rng)] = None
    return list(found)


def _step(b: ArrayBuilder, cell: Cell, x: Value, states: list[Value]) -> list[Value]:
    size = states[0].shape[1]
    values = {"x": x, **{f"h_prev_{i}": state for i, state in enumerate(states)}}
    for step in cell.steps:
        inputs = [values[name] for name in step.inputs]
        match step.op:
            case "linear":
                y = b.linear(inputs[0], size)
                for other in inputs[1:]:
                    y = b.add(y, b.linear(other, size, bias=False))
                values[step.name] = y
            case "blend":
                rest = b.shift(b.unary("Neg", inputs[0]), 1.0)
                values[step.name] = b.add(b.mul(inputs[0], inputs[1]), b.mul(rest, inputs[2]))
            case "elementwise_prod":
                values[step.name] = b.mul(*inputs)
            case "elementwise_sum":
                values[step.name] = b.add(*inputs)
            case "activation_tanh":
                values[step.name] = b.activation(inputs[0], "Tanh")
            case "activation_sigm":
                values[step.name] = b.activation(inputs[0], "Sigmoid")
            case _:
                values[step.name] = b.activation(inputs[0], "LeakyRelu")
    return [values[f"h_new_{i}"] for i in range(len(states))]


def _random_cell(rng: np.random.Generator) -> str:
    states = int(rng.integers(1, 4))
    inside: list[str] = [f"h_prev_{i}" for i in range(states)]
    with_x: list[str] = []
    nodes: dict[str, Step] = {}
    operations = list(_ARITY)
    for number_ in range(int(rng.integers(4, 13))):
        name = f"node_{number_}"
        op = "linear" if number_ == 0 else operations[int(rng.integers(len(operations)))]
        if op == "linear":
            chosen = [inside[int(rng.integers(len(inside)))]]
            if number_ == 0 or rng.random() < 0.5:
                chosen.insert(0, "x")
        else:
            chosen = [inside[int(rng.integers(len(inside)))] for _ in range(_ARITY[op].start)]
        nodes[name] = Step(name, op, tuple(chosen))
        if "x" in chosen or set(chosen) & set(with_x):
            with_x.append(name)
        inside.append(name)
    last = [with_x[-1], *(inside[int(rng.integers(states, len(inside)))] for _ in range(states - 1))]
    activations = operations[-3:]
    for i, source in enumerate(last):
        nodes[f"h_new_{i}"] = Step(f"h_new_{i}", activations[int(rng.integers(3))], (source,))
    needed, waiting = set[str](), [f"h_new_{i}" for i in range(states)]
    while waiting:
        name = waiting.pop()
        if name in nodes and name not in needed:
            needed.add(name)
            waiting += nodes[name].inputs
    return spec_of(Cell(tuple(step for name, step in nodes.items() if name in needed), states))


def _labelled(paths: Mapping[str, Path], task: str) -> dict[str, tuple[list[float], float]]:
    """Recipe → losses of its trainings and parameters, sorted by recipe; recipes without any loss are left out."""
    found = {
        spec: ([loss for loss, _ in runs if loss is not None], runs[0][1]) for spec, runs in _rows(paths, task).items()
    }
    return {spec: found[spec] for spec in sorted(found) if found[spec][0]}


def _rows(paths: Mapping[str, Path], task: str) -> dict[str, list[tuple[float | None, float]]]:
    """Recipe → (test loss at the best validation or None, parameters) of every training."""
    check_task(task, TASKS, "NAS-Bench-NLP")
    rows: dict[str, list[tuple[float | None, float]]] = {}
    if _LOGS[task] in paths or task == "ptb":
        path = raw_path(paths, _LOGS[task])
        for name, content in zip_members(path, ".json"):
            source = f"{path}, {name}"
            log = parse_json(content, source)
            spec = check_spec(str(field(log, "recepie", source)), parse, source)
            rows.setdefault(spec, []).append(
                (_loss_of_log(log, source), number(field(log, "num_params", source), source))
            )
    else:
        loss = "wikitext2_test_loss_at_best_val"
        for source, row in read_extract(paths, TABLE, ("recipe", "params", loss)):
            spec = check_spec(row["recipe"], parse, source)
            value = number(row[loss], source) if row[loss] else None
            rows.setdefault(spec, []).append((value, number(row["params"], source)))
    if not rows:
        raise DataError(f"{path}: no log in the archive")
    return rows


def _loss_of_log(log: Any, source: str) -> float | None:
    validation, test = (field(log, key, source) for key in ("val_losses", "test_losses"))
    if not isinstance(validation, list) or not isinstance(test, list) or len(validation) != len(test):
        raise DataError(f"{source}: expected lists of equal length in val_losses and test_losses")
    try:
        pairs = [(float(v), float(t)) for v, t in zip(validation, test, strict=True)]
    except (TypeError, ValueError) as error:
        raise DataError(f"{source}: expected numbers in val_losses and test_losses: {error}") from error
    pairs = [pair for pair in pairs if np.isfinite(pair).all()]
    return min(pairs)[1] if pairs and log.get("status") == "OK" else None
