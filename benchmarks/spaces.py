"""Draws networks from every search space, and checks that each one is valid ONNX, is read and has a finite cost.

    python benchmarks/spaces.py [--networks 1000] [--only NAME] [--out FILE] [--processes 2] [--json]

Every network that `sample` gives is built for the first task of its space, saved, checked by `onnx.checker` together
with ONNX's own shape inference, read, and counted. The checker wants the file of weights to exist and does not look
into it, so an empty one lies beside the network. With `--out` the result of every space is kept in that file, and a
space that stands there already is not drawn again.

A network whose output does not depend on its input, which some spaces allow, is a constant: it is read and costs
nothing.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import joblib
import onnx
from rich.console import Console
from rich.progress import track

from archgauge.datasets.cache import builder
from archgauge.datasets.corpus import different_spaces
from archgauge.datasets.onnx_builder import WEIGHTS_FILE
from archgauge.encoders.files import replacing
from archgauge.encoders.onnx_reader import read

CHUNK = 25
"""Networks that a process takes at a time."""


@dataclass(frozen=True)
class Outcome:
    """What came of the networks of one space.

    Attributes:
        space: Name of the space.
        task: Task that the networks were built for.
        size: How many networks `sample` can give.
        seed: Seed of the draw.
        networks: Networks drawn.
        valid: Those that `onnx.checker` and shape inference accept.
        read: Those that are read without an unknown operator.
        counted: Those with parameters and multiply-accumulates that are finite and above zero.
        constant: Those whose output does not depend on the input, so that nothing is left of them.
        specs: Different specs.
        graphs: Different graphs.
        seconds: How long it took.
        failures: (spec, what was wrong) of the first networks that failed.
    """

    space: str
    task: str
    size: int
    seed: int
    networks: int
    valid: int
    read: int
    counted: int
    constant: int
    specs: int
    graphs: int
    seconds: float
    failures: list[tuple[str, str]]

    @property
    def fine(self) -> bool:
        """Whether every network passed."""
        return self.networks == self.valid == self.read == self.counted + self.constant == self.specs


class Checked(NamedTuple):
    """Whether a network is valid, read, counted and a constant, its graph's hash, and what was wrong."""

    valid: bool
    read: bool = False
    counted: bool = False
    constant: bool = False
    hash: str = ""
    wrong: str = ""


def check(module: str, space: str, task: str, specs: Sequence[str]) -> list[Checked]:
    """Build and check networks; runs in a process of its own."""
    source = builder(module, space)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / WEIGHTS_FILE).touch()
        return [_check(source, spec, task, Path(folder) / "network.onnx") for spec in specs]


def _check(source: Any, spec: str, task: str, path: Path) -> Checked:
    try:
        path.write_bytes(source.build(spec, task).SerializeToString())
        onnx.checker.check_model(path, full_check=True)
    except Exception as error:
        return Checked(False, wrong=f"{type(error).__name__}: {error}")
    try:
        graph = read(path)
    except Exception as error:
        return Checked(True, wrong=f"{type(error).__name__}: {error}")
    unknown = ", ".join(graph.unknown_ops)
    costs = (graph.params, graph.macs)
    counted = all(math.isfinite(cost) and cost > 0 for cost in costs)
    constant = costs == (0, 0) and not any(node.op == "Input" for node in graph.nodes)
    wrong = f"unknown operators {unknown}" if unknown else ""
    if not counted and not constant:
        wrong = f"{graph.params} parameters, {graph.macs} multiply-accumulates"
    return Checked(True, not unknown, counted, constant, graph.hash, wrong)


def draw(name: str, module: str, space: str, task: str, networks: int, seed: int, processes: int) -> Outcome:
    """Draw and check networks of a space, all where it has fewer."""
    start = time.perf_counter()
    size = builder(module, space).SIZE
    specs = builder(module, space).sample(min(networks, size), seed)
    chunks = [specs[at : at + CHUNK] for at in range(0, len(specs), CHUNK)]
    jobs = (joblib.delayed(check)(module, space, task, chunk) for chunk in chunks)
    parallel = joblib.Parallel(n_jobs=processes, return_as="generator")(jobs)
    found = [row for rows in track(parallel, name, len(chunks), console=Console(stderr=True)) for row in rows]
    return Outcome(
        name,
        task,
        size,
        seed,
        len(specs),
        sum(row.valid for row in found),
        sum(row.read for row in found),
        sum(row.counted for row in found),
        sum(row.constant for row in found),
        len(set(specs)),
        len({row.hash for row in found if row.hash}),
        round(time.perf_counter() - start, 1),
        [(spec, row.wrong) for spec, row in zip(specs, found, strict=True) if row.wrong][:20],
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw from all spaces and print a table; 1 if a network failed."""
    parser = argparse.ArgumentParser(description="Draw networks from every space and check them.")
    parser.add_argument("--networks", type=int, default=1000, help="networks per space (all where there are fewer)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="only spaces whose name contains this")
    parser.add_argument("--out", type=Path, help="file of results so far; spaces in it are not drawn again")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args(arguments)
    known = json.loads(options.out.read_text()) if options.out and options.out.exists() else []
    done = {row["space"]: Outcome(**row) for row in known}
    chosen = [record for record in different_spaces() if options.only in record.name]
    outcomes = []
    for record in chosen:
        before = done.get(record.name)
        if before is None or before.seed != options.seed or before.networks != min(options.networks, before.size):
            done[record.name] = draw(
                record.name,
                record.module,
                record.space,
                record.tasks[0].name,
                options.networks,
                options.seed,
                options.processes,
            )
            if options.out:
                with replacing(options.out) as file:
                    file.write(json.dumps([asdict(outcome) for outcome in done.values()], indent=1).encode())
        outcomes.append(done[record.name])
    if options.json:
        print(json.dumps([asdict(outcome) for outcome in outcomes], indent=1))
    else:
        columns = ("networks", "valid", "read", "counted", "constant", "specs", "graphs", "seconds")
        print(f"{'space':52}{'task':17}{'size':>10}" + "".join(f"{name:>9}" for name in columns))
        for outcome in outcomes:
            values = "".join(f"{getattr(outcome, name):9}" for name in columns)
            print(f"{outcome.space:52}{outcome.task:17}{outcome.size:10}{values}")
            for spec, text in outcome.failures:
                print(f"    {spec[:100]}: {text[:200]}")
        print("size: what sample can give; specs, graphs: how many are different; counted: a finite cost above zero")
    return int(not all(outcome.fine for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())
