"""Builds every network of the benchmarks and compares its parameters and multiply-accumulates with the published ones.

    python benchmarks/costs.py [--limit N] [--only NAME]

Three numbers are compared per network: what was published, what the ONNX file of the network holds, and what the graph
says that the reader makes of that file. File and publication must agree on every network. The graph has no dead
branches (operators that do not depend on the input or do not reach the output), so it must agree with the publication
where there are none, and with a separate count of the file's live operators everywhere.

Some sources count more than our convention; what they add is computed from the file and added before comparing.
The benchmark files are read from the folder ARCHGAUGE_DATA (default ../shared/benchmarks beside the repository).
"""

from __future__ import annotations

import argparse
import csv
import gzip
import os
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from math import prod
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from archgauge.datasets import (
    accel_nasbench,
    channel_bench_macro,
    darts,
    nas_bench_101,
    nas_bench_201,
    nas_bench_macro,
    nats_bench_sss,
    ofa_mbv3,
    transnas_bench_101,
)
from archgauge.datasets.onnx_builder import stored_costs
from archgauge.encoders.onnx_reader import read


class Published(NamedTuple):
    """Networks of a benchmark with their published costs; `macs` is None where the source has none."""

    specs: Sequence[str]
    params: NDArray[np.float64]
    macs: NDArray[np.float64] | None = None


class Suite(NamedTuple):
    """One comparison.

    Attributes:
        name: Benchmark and, where it has several, space.
        task: Task the networks are built for.
        published: Takes the folder of the benchmark, gives the published costs.
        build: Builds the model of a spec for a task.
        added: Operations in a model that the source counts and we do not.
    """

    name: str
    task: str
    published: Callable[[Path], Published]
    build: Callable[[str, str], ModelProto]
    added: Callable[[ModelProto], int] = lambda model: 0


class Outcome(NamedTuple):
    """What a comparison found; `failures` names networks whose difference has no explanation."""

    rows: int
    in_file: int
    in_graph: int
    dead: int
    failures: list[str]


def compare(suite: Suite, root: Path, limit: int | None = None) -> Outcome:
    """Compare `limit` networks of a benchmark, spread evenly over it, or all of them."""
    published = suite.published(root / suite.name.split("/")[0])
    total = len(published.specs)
    chosen = np.unique(np.linspace(0, total - 1, min(total, limit or total)).round().astype(int))
    in_file = in_graph = dead = 0
    failures: list[str] = []
    for i in chosen:
        spec = published.specs[i]
        model = suite.build(spec, suite.task)
        stored, live = stored_costs(model), live_costs(model)
        graph = read(model.SerializeToString())
        wanted = (
            int(published.params[i]),
            stored[1] if published.macs is None else int(published.macs[i]) - suite.added(model),
        )
        found = (graph.params, graph.macs)
        in_file += stored == wanted
        in_graph += found == wanted
        dead += found != wanted and found == live
        if stored != wanted or found != live:
            failures.append(f"{spec}: published {wanted}, file {stored}, live part {live}, graph {found}")
    return Outcome(len(chosen), in_file, in_graph, dead, failures)


def live_costs(model: ModelProto) -> tuple[int, int]:
    """`stored_costs` of the operators that depend on the input and reach the output."""
    graph = model.graph
    zeros = {t.name for t in graph.initializer if not t.dims and t.raw_data == bytes(4)}
    varying = {value.name for value in graph.input}
    for node in graph.node:
        zeroed = node.op_type == "Mul" and zeros.intersection(node.input)
        if not zeroed and varying.intersection(node.input):
            varying.update(node.output)
    needed = {value.name for value in graph.output} & varying
    nodes = []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            nodes.append(node)
            needed.update(varying.intersection(node.input))
    if len(nodes) == len(graph.node):
        return stored_costs(model)
    used = {name for node in nodes for name in node.input}
    live = ModelProto()
    live.graph.node.extend(nodes)
    live.graph.initializer.extend(tensor for tensor in graph.initializer if tensor.name in used)
    for field in ("input", "value_info", "output"):
        getattr(live.graph, field).extend(getattr(graph, field))
    return stored_costs(live)


def added_by_thop(model: ModelProto) -> int:
    """What the counter `thop` adds: 4 per batch-norm element, 1 per average and 1 per element of a global average."""
    size = _sizes(model)
    total = 0
    for node in model.graph.node:
        out = size[node.output[0]]
        match node.op_type:
            case "BatchNormalization":
                total += 4 * out
            case "AveragePool":
                total += out
            case "GlobalAveragePool":
                total += size[node.input[0]] + out
    return total


def added_by_naslib(model: ModelProto) -> int:
    """What NASLib's counter adds: 2 per batch-norm element, 1 per ReLU element, the window per max-pooled element."""
    size = _sizes(model)
    weights = {"BatchNormalization": 2, "Relu": 1}
    total = 0
    for node in model.graph.node:
        out = size[node.output[0]]
        if node.op_type == "MaxPool":
            total += out * prod(next(a.ints for a in node.attribute if a.name == "kernel_shape"))
        else:
            total += weights.get(node.op_type, 0) * out
    return total


def _sizes(model: ModelProto) -> dict[str, int]:
    return {
        value.name: prod(dim.dim_value or 1 for dim in value.type.tensor_type.shape.dim)
        for values in (model.graph.input, model.graph.value_info, model.graph.output)
        for value in values
    }


def _table(path: Path) -> list[dict[str, str]]:
    with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _raw(folder: Path) -> dict[str, Path]:
    return {path.name: path for path in (folder / "raw").iterdir()}


def _millions(rows: Sequence[dict[str, str]], column: str) -> NDArray[np.float64]:
    return np.array([float(round(1e6 * float(row[column]))) for row in rows])


def _nas_bench_201(folder: Path, task: str) -> Published:
    rows = _table(folder / "nas_bench_201.csv.gz")
    return Published(
        [row["arch_str"] for row in rows], _millions(rows, f"{task}_params_m"), _millions(rows, f"{task}_macs_m")
    )


def _nas_bench_macro(folder: Path) -> Published:
    specs, _ = nas_bench_macro.read_labels(_raw(folder), "cifar10")
    return Published(specs, *nas_bench_macro.published_costs(_raw(folder), "cifar10"))


def _nats_bench_sss(folder: Path) -> Published:
    rows = _table(folder / "nats_bench_sss.csv.gz")
    return Published([row["arch"] for row in rows], np.array([float(row["params"]) for row in rows]))


def _channel_bench_macro(folder: Path, space: str) -> Published:
    specs, _ = channel_bench_macro.read_labels(_raw(folder), "cifar10", space)
    return Published(specs, *channel_bench_macro.published_costs(_raw(folder), "cifar10", space))


def _nas_bench_101(folder: Path) -> Published:
    specs, _ = nas_bench_101.read_labels(_raw(folder), "cifar10")
    return Published(specs, *nas_bench_101.published_costs(_raw(folder), "cifar10"))


def _nas_bench_101_small(folder: Path) -> Published:
    rows = _table(folder / "ec_nas_4v.csv.gz") + _table(folder / "ec_nas_5v_4ep.csv.gz")
    params = {f"{row['adjacency']}:{row['operations']}": float(row["params"]) for row in rows}
    return Published(list(params), np.array(list(params.values())))


def _transnas_bench_101(folder: Path, space: str, classes: int) -> Published:
    rows = [row for row in _table(folder / "transnas_bench_101.csv.gz") if row["space"] == space]
    heads = [classes * (int(row["encoder_out_channels"]) + 1) for row in rows]
    return Published(
        [row["arch_str"] for row in rows],
        np.array([float(row["encoder_params"]) + head for row, head in zip(rows, heads, strict=True)]),
    )


def _accel_nasbench(folder: Path) -> Published:
    specs, _ = accel_nasbench.read_labels(_raw(folder), "imagenet1k")
    return Published(specs, *accel_nasbench.published_costs(_raw(folder), "imagenet1k"))


def _ofa_mbv3(folder: Path) -> Published:
    specs, _ = ofa_mbv3.read_labels(_raw(folder), "imagenet1k")
    return Published(specs, *ofa_mbv3.published_costs(_raw(folder), "imagenet1k"))


def _oncenas(folder: Path) -> Published:
    specs, _ = darts.read_labels(_raw(folder), "cifar10")
    return Published(specs, *darts.published_costs(_raw(folder), "cifar10"))


def _nas_efh(folder: Path) -> Published:
    rows = _table(folder / "nas_efh_random.csv.gz")
    return Published([f"{row['normal']}|{row['reduce']}" for row in rows], _millions(rows, "params_m"))


SUITES = (
    *(
        Suite("nas_bench_201", task, partial(_nas_bench_201, task=task), nas_bench_201.build)
        for task in nas_bench_201.TASKS
    ),
    Suite("nas_bench_macro", "cifar10", _nas_bench_macro, nas_bench_macro.build),
    Suite("nats_bench_sss", "cifar10", _nats_bench_sss, nats_bench_sss.build),
    *(
        Suite(
            f"channel_bench_macro/{space}",
            "cifar10",
            partial(_channel_bench_macro, space=space),
            channel_bench_macro.build,
        )
        for space in channel_bench_macro.SPACES
    ),
    Suite("nas_bench_101/500", "cifar10", _nas_bench_101, nas_bench_101.build, added_by_naslib),
    Suite("nas_bench_101/up to 5 vertices", "cifar10", _nas_bench_101_small, nas_bench_101.build),
    *(
        Suite(
            f"transnas_bench_101/{space}",
            task,
            partial(_transnas_bench_101, space=space, classes=classes),
            transnas_bench_101.build,
        )
        for space in transnas_bench_101.SPACES
        for task, classes in (("class_scene", 47), ("segmentsemantic", 0))
    ),
    Suite("accel_nasbench", "imagenet1k", _accel_nasbench, accel_nasbench.build, added_by_thop),
    Suite("ofa_mbv3", "imagenet1k", _ofa_mbv3, ofa_mbv3.build),
    Suite("darts_trained/oncenas", "cifar10", _oncenas, darts.build, added_by_thop),
    Suite("darts_trained/nas_efh_random", "cifar10", _nas_efh, darts.build),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the comparisons and print a table; 1 if a network differs without explanation."""
    parser = argparse.ArgumentParser(description="Compare built networks with published parameters and MACs.")
    parser.add_argument("--limit", type=int, default=None, help="networks per benchmark (default: all)")
    parser.add_argument("--only", default="", help="only benchmarks whose name contains this")
    options = parser.parse_args(arguments)
    default = Path(__file__).resolve().parents[2] / "shared" / "benchmarks"
    root = Path(os.environ.get("ARCHGAUGE_DATA", default))
    print(f"{'benchmark':34}{'task':17}{'rows':>7}{'file =':>8}{'graph =':>9}{'dead':>7}{'other':>7}{'seconds':>9}")
    failed = False
    for suite in SUITES:
        if options.only not in suite.name:
            continue
        start = time.perf_counter()
        outcome = compare(suite, root, options.limit)
        failed |= bool(outcome.failures)
        print(
            f"{suite.name:34}{suite.task:17}{outcome.rows:7}{outcome.in_file:8}{outcome.in_graph:9}"
            f"{outcome.dead:7}{len(outcome.failures):7}{time.perf_counter() - start:9.1f}",
            flush=True,
        )
        for failure in outcome.failures[:5]:
            print(f"    {failure}")
    print(
        "file =, graph =: rows equal to the published numbers; dead: rows whose graph is smaller by its dead branches"
    )
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
