"""Builds every network of the benchmarks and compares its parameters and multiply-accumulates with the published ones.

    python benchmarks/costs.py [--limit N] [--only NAME] [--file-only]

Three numbers are compared per network: what was published, what the ONNX file of the network holds, and what the graph
says that the reader makes of that file. File and publication must agree on every network. The graph has no dead
branches (operators that do not depend on the input or do not reach the output), so it must agree with the publication
where there are none, and with a separate count of the file's live operators everywhere.

Some sources count more than our convention; what they add is computed from the file and added before comparing. A
published number may be the mean of trainings of unlike networks; those rows are counted apart.

With `--file-only` nothing is read, so only file and publication are compared, which takes a tenth of the time.

Where no multiply-accumulates are published, those of the graph may be fewer than the file's: what is computed twice
there is computed once in the graph.
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
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto

from archgauge.datasets import (
    accel_nasbench,
    channel_bench_macro,
    darts,
    ec_nas,
    graphgym_gnn,
    lm_scaling,
    nas_bench_101,
    nas_bench_201,
    nas_bench_graph,
    nas_bench_macro,
    nas_bench_nlp,
    nats_bench_sss,
    ofa_mbv3,
    tabular_dl,
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
        needs: Published file with the costs that the benchmark does not need for its labels; empty if there is none.
        is_mean: Spec, published parameters and those of the file → whether the former are a mean of unlike networks.
        unlike: Rows of the whole benchmark whose published number is known to differ; more are an error.
    """

    name: str
    task: str
    published: Callable[[Path], Published]
    build: Callable[[str, str], ModelProto]
    added: Callable[[ModelProto], int] = lambda model: 0
    needs: str = ""
    is_mean: Callable[[str, float, int], bool] = lambda spec, published, stored: False
    unlike: int = 0

    def ready(self, root: Path) -> bool:
        """Whether the file with the costs is there."""
        return not self.needs or (root / self.name.split("/")[0] / "raw" / self.needs).is_file()


class Outcome(NamedTuple):
    """What a comparison found; `failures` names networks whose difference has no explanation."""

    rows: int
    in_file: int
    in_graph: int
    dead: int
    means: int
    failures: list[str]


def compare(suite: Suite, root: Path, limit: int | None = None, file_only: bool = False) -> Outcome:
    """Compare `limit` networks of a benchmark, spread evenly over it, or all of them."""
    published = suite.published(root / suite.name.split("/")[0])
    total = len(published.specs)
    chosen = np.unique(np.linspace(0, total - 1, min(total, limit or total)).round().astype(int))
    in_file = in_graph = dead = means = 0
    failures: list[str] = []
    for i in chosen:
        spec = published.specs[i]
        model = suite.build(spec, suite.task)
        stored = stored_costs(model)
        if suite.is_mean(spec, published.params[i], stored[0]):
            means += 1
            continue
        wanted = (
            int(published.params[i]),
            stored[1] if published.macs is None else int(published.macs[i]) - suite.added(model),
        )
        in_file += stored == wanted
        if file_only:
            if stored != wanted:
                failures.append(f"{spec}: published {wanted}, file {stored}")
            continue
        live = live_costs(model)
        graph = read(model.SerializeToString())
        found = (graph.params, graph.macs)
        shared = published.macs is None and found[0] == live[0] and found[1] < live[1]
        in_graph += found == wanted or (shared and found[0] == wanted[0])
        dead += found[0] != wanted[0] and (found == live or shared)
        if stored != wanted or not (found == live or shared):
            failures.append(f"{spec}: published {wanted}, file {stored}, live part {live}, graph {found}")
    return Outcome(len(chosen), in_file, in_graph, dead, means, failures)


def live_costs(model: ModelProto) -> tuple[int, int]:
    """`stored_costs` of the operators that depend on the input, or are learned tokens, and reach the output."""
    graph = model.graph
    zeros = {t.name for t in graph.initializer if not t.dims and t.raw_data == bytes(4)}
    learned = {t.name for t in graph.initializer if t.data_location == TensorProto.EXTERNAL}
    varying = {value.name for value in graph.input}
    for node in graph.node:
        zeroed = node.op_type == "Mul" and zeros.intersection(node.input)
        token = node.op_type == "Add" and learned.intersection(node.input)
        if not zeroed and (token or varying.intersection(node.input)):
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
    return {path.name: path for path in (folder / "raw").iterdir()} if (folder / "raw").is_dir() else {}


def _tables(folder: Path) -> dict[str, Path]:
    return _raw(folder) | {path.name: path for path in folder.glob("*.csv.gz")}


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


def _ec_nas(folder: Path, space: str) -> Published:
    specs, _ = ec_nas.read_labels(_tables(folder), "cifar10", space)
    return Published(specs, *ec_nas.published_costs(_tables(folder), "cifar10", space))


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
    specs, _ = darts.read_labels(_raw(folder), "cifar10", "oncenas")
    return Published(specs, *darts.published_costs(_raw(folder), "cifar10"))


def _nas_efh(folder: Path) -> Published:
    rows = _table(folder / "nas_efh_random.csv.gz")
    return Published([f"{row['normal']}|{row['reduce']}" for row in rows], _millions(rows, "params_m"))


def _parameters(folder: Path, task: str, module: Any) -> Published:
    specs, _ = module.read_labels(_tables(folder), task)
    return Published(specs, *module.published_costs(_tables(folder), task))


def _mean_of_three(spec: str, published: float, stored: int) -> bool:
    """Whether the published parameters of a network on `physics` are the mean of unlike trainings.

    One of three then had 128 channels instead of 256 and no layer before the cell. Some numbers fit no such mean, but
    are not whole, so they are a mean too; 26 others are whole by chance (one in three would be) and stand as different.
    """
    usual, other = nas_bench_graph.Layers(256, 1, 0), nas_bench_graph.Layers(128, 0, 0)
    odd, _ = stored_costs(nas_bench_graph.build(spec, "physics", other))
    total = 2 * (stored + nas_bench_graph.without_effect(spec, usual))
    total += odd + nas_bench_graph.without_effect(spec, other)
    mean = abs(3 * (published + nas_bench_graph.without_effect(spec, usual)) - total) < 0.05
    return published != stored and (mean or published != round(published))


def _on_every_task(folder: Path, module: Any) -> Published:
    """Networks of all tasks of a benchmark; a spec here is a task, a space and a spec of the module."""
    parts = {task: _parameters(folder, task, module) for task in module.TASKS}
    specs = [f"{task} {spec}" for task, part in parts.items() for spec in part.specs]
    return Published(specs, np.concatenate([part.params for part in parts.values()]))


def _build_on_its_task(spec: str, task: str, module: Any) -> ModelProto:
    name, _, inner = spec.partition(" ")
    model: ModelProto = module.build(inner, name)
    return model


def _gemstones(folder: Path) -> Published:
    specs, _ = lm_scaling.read_labels(_raw(folder), "fineweb_edu", "gemstones")
    return Published(specs, *lm_scaling.published_costs(_raw(folder)))


def _openlm(folder: Path) -> Published:
    """The six networks of the testbed, whose parameters are published; those of the grid are not."""
    rows = {
        f"d={row['hidden_dim']}_l={row['n_layers']}_h={row['n_heads']}": float(row["params"])
        for row in _table(folder / "openlm_testbed.csv.gz")
    }
    return Published(list(rows), np.array(list(rows.values())))


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
    Suite("nas_bench_101", "cifar10", _nas_bench_101, nas_bench_101.build, added_by_naslib),
    *(
        Suite(f"nas_bench_101/{space}", "cifar10", partial(_ec_nas, space=space), nas_bench_101.build)
        for space in ec_nas.SPACES
    ),
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
    Suite("darts_trained/nas_efh", "cifar10", _nas_efh, darts.build),
    *(
        Suite(
            "nas_bench_graph",
            task,
            partial(_parameters, task=task, module=nas_bench_graph),
            nas_bench_graph.build,
            needs=nas_bench_graph.WHEEL,
            is_mean=_mean_of_three if task == "physics" else Suite._field_defaults["is_mean"],
            unlike=26 if task == "physics" else 0,
        )
        for task in nas_bench_graph.TASKS
    ),
    Suite(
        "nas_bench_nlp",
        "wikitext2",
        partial(_parameters, task="wikitext2", module=nas_bench_nlp),
        nas_bench_nlp.build,
    ),
    *(
        Suite(
            name,
            f"{len(module.TASKS)} tasks",
            partial(_on_every_task, module=module),
            partial(_build_on_its_task, module=module),
        )
        for name, module in (("graphgym_gnn", graphgym_gnn), ("tabular_dl", tabular_dl))
    ),
    Suite("lm_scaling/openlm", "openlm", _openlm, lm_scaling.SPACES["openlm"].build),
    Suite("lm_scaling/gemstones", "fineweb_edu", _gemstones, lm_scaling.SPACES["gemstones"].build),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the comparisons and print a table; 1 if a network differs without explanation."""
    parser = argparse.ArgumentParser(description="Compare built networks with published parameters and MACs.")
    parser.add_argument("--limit", type=int, default=None, help="networks per benchmark (default: all)")
    parser.add_argument("--only", default="", help="only benchmarks whose name contains this")
    parser.add_argument("--file-only", action="store_true", help="do not compare the graphs")
    options = parser.parse_args(arguments)
    default = Path(__file__).resolve().parents[2] / "shared" / "benchmarks"
    root = Path(os.environ.get("ARCHGAUGE_DATA", default))
    columns = f"{'rows':>7}{'file =':>8}{'graph =':>9}{'dead':>7}{'means':>7}{'other':>7}{'seconds':>9}"
    print(f"{'benchmark':34}{'task':17}{columns}")
    failed = False
    for suite in SUITES:
        if options.only not in suite.name:
            continue
        if not suite.ready(root):
            print(f"{suite.name:34}{suite.task:17}left out: put {suite.needs} into {suite.name.split('/')[0]}/raw")
            continue
        start = time.perf_counter()
        outcome = compare(suite, root, options.limit, options.file_only)
        failed |= len(outcome.failures) > suite.unlike
        print(
            f"{suite.name:34}{suite.task:17}{outcome.rows:7}{outcome.in_file:8}{outcome.in_graph:9}"
            f"{outcome.dead:7}{outcome.means:7}{len(outcome.failures):7}{time.perf_counter() - start:9.1f}",
            flush=True,
        )
        for failure in outcome.failures[:5]:
            print(f"    {failure}")
    print(
        "file =, graph =: rows equal to the published numbers; dead: rows whose graph is smaller by its dead branches; "
        "means: rows whose published number is the mean of unlike networks"
    )
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
