"""The command line: `archgauge read | score | rank | train | finetune | evaluate | benchmarks`.

Results go to standard output (a table for people, JSON with `--json`), progress and errors to standard error. Exit code
0: all done; 1: an error, or some networks could not be scored; 2: the command was called wrongly.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, ParamSpec, TypeVar

import typer

from ..encoders.errors import ArchGaugeError, ConfigError
from .tables import aligned, json_text

if TYPE_CHECKING:
    from .config import TrainConfig
    from .model import Predictor
    from .score import Score

P = ParamSpec("P")
R = TypeVar("R")

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="How good would this neural network be once trained? Answered from its architecture alone.",
)

Files = Annotated[list[Path], typer.Argument(help="ONNX files; weights are not needed.", show_default=False)]
Task = Annotated[str | None, typer.Option(help="Data set the accuracy is for, e.g. imagenet1k; see `benchmarks`.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
PredictorFolder = Annotated[
    Path | None,
    typer.Option("--predictor", help="Folder of a saved predictor; default: the one that ships.", show_default=False),
]
Shapes = Annotated[
    list[str] | None,
    typer.Option("--input-shape", help="NAME:1,3,224,224 for an input with dynamic dimensions.", show_default=False),
]
Pool = Annotated[
    bool, typer.Option("--pool", help="Let ranks among the networks given enter the score: better in unseen spaces.")
]
Root = Annotated[
    Path | None,
    typer.Option("--data", help="Folder that holds benchmarks; default: $ARCHGAUGE_DATA.", show_default=False),
]
Download = Annotated[
    bool, typer.Option("--download", help="Fetch missing benchmark files from where they were published.")
]


def main() -> None:
    """Entry point of the `archgauge` command."""
    app()


def train_main() -> None:
    """Entry point of `train.py`."""
    alone = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    alone.command()(train)
    alone()


def _guarded(function: Callable[P, R]) -> Callable[P, R]:
    """Errors of our own become one line on standard error and exit code 1."""

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except ArchGaugeError as error:
            typer.echo(f"error: {error}", err=True)
            raise typer.Exit(1) from error
        except OSError as error:
            typer.echo(f"error: {error}", err=True)
            raise typer.Exit(1) from error
        except KeyboardInterrupt as error:
            typer.echo("interrupted; what was built so far is cached", err=True)
            raise typer.Exit(130) from error

    return call


@app.command()
@_guarded
def read(files: Files, input_shape: Shapes = None, as_json: Json = False) -> None:
    """What is understood of a network: size, cost, depth, unknown operators."""
    from ..encoders.reading import read as read_network

    rows: list[dict[str, Any]] = []
    failed = False
    for file in files:
        try:
            graph = read_network(file, input_shapes=_shapes(input_shape))
        except ArchGaugeError as error:
            failed = True
            rows.append({"file": str(file), "error": str(error)})
            continue
        rows.append(
            {
                "file": str(file),
                "nodes": len(graph),
                "params": graph.params,
                "macs": graph.macs,
                "activations": graph.activations,
                "depth": graph.depth,
                "unknown_ops": list(graph.unknown_ops),
                "hash": graph.hash,
            }
        )
    if as_json:
        _print_json(rows)
    else:
        names = ("file", "nodes", "params", "macs", "activations", "depth", "unknown_ops", "hash")
        good = [row for row in rows if "error" not in row]
        _print_table(names, [[_cell(name, row[name]) for name in names] for row in good])
        _print_errors([row["error"] for row in rows if "error" in row])
    raise typer.Exit(1 if failed else 0)


@app.command()
@_guarded
def score(
    files: Files,
    task: Task = None,
    predictor: PredictorFolder = None,
    input_shape: Shapes = None,
    pool: Pool = False,
    as_json: Json = False,
) -> None:
    """Scores networks, in the order given."""
    scores = _model(predictor).score(
        _paths(files), task=task, input_shapes=_shapes(input_shape), on_error="skip", pool=pool
    )
    _show_scores(scores, files, as_json)


@app.command()
@_guarded
def rank(
    files: Files,
    task: Task = None,
    predictor: PredictorFolder = None,
    input_shape: Shapes = None,
    pool: Pool = False,
    as_json: Json = False,
) -> None:
    """Ranks networks against each other, the best first."""
    ranked = _model(predictor).rank(
        _paths(files), task=task, input_shapes=_shapes(input_shape), on_error="skip", pool=pool
    )
    _show_scores([entry.score for entry in ranked], [files[entry.index] for entry in ranked], as_json)


@app.command()
@_guarded
def train(
    config: Annotated[Path | None, typer.Option(help="TOML file with options; flags override it.")] = None,
    benchmark: Annotated[
        list[str] | None, typer.Option(help="Benchmark to train on, NAME or NAME:TASK; repeat for several.")
    ] = None,
    out: Annotated[str | None, typer.Option(help="Folder for the run.  [default: runs/latest]")] = None,
    encoder: Annotated[list[str] | None, typer.Option(help="Encoder; repeat for several.")] = None,
    head: Annotated[list[str] | None, typer.Option(help="Head; repeat for several.")] = None,
    n_seeds: Annotated[int | None, typer.Option(help="Members of each kind of head.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of everything.")] = None,
    folds: Annotated[int | None, typer.Option(help="Folds of families for the table; 0: no table.")] = None,
    limit: Annotated[int | None, typer.Option(help="Networks taken of each benchmark; 0: all.")] = None,
    data: Root = None,
    download: Download = False,
) -> None:
    """Trains a predictor, prints its out-of-family table beside the trivial rows, and saves the run.

    Without options it uses the real ImageNet networks that come with archgauge.
    """
    from .training import train as run_training

    settings = _config(
        config,
        benchmarks=benchmark,
        out=out,
        encoders=encoder,
        heads=head,
        n_seeds=n_seeds,
        seed=seed,
        folds=folds,
        limit=limit,
    )
    run = run_training(
        settings,
        root=data,
        download=download,
        progress=_interactive(),
        report=lambda text: typer.echo(f"\n{_table_title(settings)}\n{text}"),
    )
    typer.echo(f"\nThe run is in {run.folder}; score a network with:")
    typer.echo(f"  archgauge score model.onnx --predictor {run.folder / 'predictor'}")


@app.command()
@_guarded
def finetune(
    labels: Annotated[Path, typer.Argument(help="CSV with a row for each network: name and accuracy.")],
    models: Annotated[Path, typer.Option(help="Folder with the networks' ONNX files.")],
    out: Annotated[Path, typer.Option(help="Folder for the tuned predictor.")] = Path("runs/finetuned"),
    accuracy: Annotated[str, typer.Option(help="Column with the accuracy.")] = "accuracy",
    name: Annotated[str, typer.Option(help="Column with the file name of the network.")] = "name",
    unit: Annotated[Literal["percent", "fraction"], typer.Option(help="Unit of the accuracy.")] = "percent",
    task: Annotated[str, typer.Option(help="What to call the data set of the labels.")] = "custom",
    test_share: Annotated[
        float, typer.Option(help="Share of the rows kept back to measure the tuned predictor on.", min=0, max=0.9)
    ] = 0.0,
    predictor: PredictorFolder = None,
    seed: Annotated[int, typer.Option(help="Seed of the split.")] = 0,
    as_json: Json = False,
) -> None:
    """Adapts a predictor to your own labelled networks; 10 rows are enough to start."""
    from ..datasets.benchmark import Benchmark

    mine = Benchmark.from_csv(
        labels, onnx_dir=models, accuracy=accuracy, name=name, unit=unit, task=task, on_error="skip"
    )
    _print_errors([f"{row}: {reason}" for row, reason in mine.skipped])
    kept = round(len(mine) * test_share)
    few, rest = mine.split(len(mine) - kept, seed=seed) if kept else (mine, None)
    before = _model(predictor)
    tuned = before.finetune(few)
    tuned.save(out)
    report: dict[str, Any] = {"labels": len(few), "skipped": len(mine.skipped), "folder": str(out), **tuned.report}
    if rest is not None:
        after = tuned.evaluate(rest)
        untuned = before.evaluate(rest)
        report["test"], report["test_before"] = after.to_dict(), untuned.to_dict()
        if not as_json:
            typer.echo(f"after tuning\n{after.table()}\n\nbefore\n{untuned.table()}\n")
    if as_json:
        _print_json(report)
        return
    for key in ("labels", "skipped", *tuned.report, "folder"):
        typer.echo(f"{key}: {report[key]}")


@app.command()
@_guarded
def evaluate(
    benchmark: Annotated[str, typer.Argument(help="Benchmark to measure on, NAME or NAME:TASK.")],
    predictor: PredictorFolder = None,
    limit: Annotated[int, typer.Option(help="Networks to measure on, drawn at random; 0: all.")] = 0,
    seed: Annotated[int, typer.Option(help="Seed of that draw.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Write the result as JSON to this file.")] = None,
    data: Root = None,
    download: Download = False,
    as_json: Json = False,
) -> None:
    """Measures a predictor on a benchmark beside the trivial rows (MACs, parameters, depth, convolutions)."""
    from ..datasets.registry import load_benchmark
    from ..encoders.files import replacing

    name, _, task = benchmark.partition(":")
    target = load_benchmark(name, task or None, root=data, download=download, limit=limit or None, seed=seed)
    result = _model(predictor).evaluate(target)
    if out is not None:
        with replacing(out) as file:
            file.write(json_text(result.to_dict()).encode())
    if as_json:
        _print_json(result.to_dict())
    else:
        typer.echo(result.table())


@app.command()
@_guarded
def benchmarks(data: Root = None, as_json: Json = False) -> None:
    """Lists the benchmarks archgauge knows: tasks, size of the files, licence, and whether they are here."""
    from ..datasets.registry import data_root, list_benchmarks

    records = list_benchmarks()
    if as_json:
        _print_json([asdict(record) | {"present": record.present(data)} for record in records])
        return
    rows = []
    for record in records:
        size = sum(file.size for file in record.files)
        here = "comes with archgauge" if not record.files else "yes" if record.present(data) else "no"
        tasks = " ".join(task.name for task in record.tasks)
        rows.append([record.name, tasks, f"{size / 1e6:.1f} MB" if size else "-", here, record.licence])
    _print_table(("benchmark", "tasks", "files", "present", "licence"), rows)
    typer.echo(f"\nFiles are looked for in {data_root(data)}.")


# --- helpers --------------------------------------------------------------------------------------------------------


def _model(folder: Path | None) -> Predictor:
    from .model import Predictor

    return Predictor.load(folder)


def _paths(files: Sequence[Path]) -> list[str | os.PathLike[str] | bytes]:
    return list(files)


def _shapes(options: Sequence[str] | None) -> dict[str, tuple[int, ...]] | None:
    """`NAME:1,3,224,224` options as a mapping."""
    shapes: dict[str, tuple[int, ...]] = {}
    for option in options or ():
        name, _, sizes = option.rpartition(":")
        try:
            shapes[name] = tuple(int(size) for size in sizes.split(","))
        except ValueError:
            name = ""
        if not name:
            raise ConfigError(f"--input-shape is {option!r}, expected NAME:1,3,224,224")
    return shapes or None


def _config(file: Path | None, **flags: Any) -> TrainConfig:
    from .config import TrainConfig

    base = TrainConfig.load(file) if file is not None else TrainConfig()
    return base.updated(**{key: value for key, value in flags.items() if value is not None})


def _table_title(config: TrainConfig) -> str:
    if len(config.benchmarks) == 1:
        return f"Families left out of training, {config.folds} folds (95 % intervals in brackets):"
    return "One space left out of training at a time, zero-shot (95 % intervals in brackets):"


def _interactive() -> bool:
    return sys.stderr.isatty()


def _show_scores(scores: Sequence[Score], files: Sequence[Path], as_json: bool) -> None:
    if as_json:
        _print_json([{"file": str(file), **asdict(score)} for file, score in zip(files, scores, strict=True)])
    else:
        rows = [
            [
                str(file) if len({f.name for f in files}) < len(files) else file.name,
                f"{s.rank_score:.3f}",
                "-" if s.accuracy is None else f"{s.accuracy:.1f}",
                "-" if s.low is None or s.high is None else f"{s.low:.1f} to {s.high:.1f}",
                f"{s.distance:.2f}",
                s.task or "-",
                " ".join(s.unknown_ops) or "-",
            ]
            for file, s in zip(files, scores, strict=True)
            if s.error is None
        ]
        _print_table(("network", "rank score", "accuracy %", "90 % interval", "distance", "task", "unknown ops"), rows)
        _print_errors([s.error for s in scores if s.error is not None])
    raise typer.Exit(1 if any(s.error is not None for s in scores) else 0)


def _cell(name: str, value: Any) -> str:
    if name == "hash":
        return str(value)[:12]
    if isinstance(value, int):
        return f"{value:,}"
    return " ".join(value) or "-" if isinstance(value, list) else str(value)


def _print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    if rows:
        typer.echo(aligned([list(header), *map(list, rows)]))


def _print_json(value: Any) -> None:
    typer.echo(json_text(value), nl=False)


def _print_errors(messages: Sequence[str]) -> None:
    for message in messages:
        typer.echo(f"skipped: {message}", err=True)
