"""Commands: `archgauge read | describe | diff | doctor | score | rank | train | finetune | evaluate | benchmarks`.

Results go to standard output (a table for people, JSON with `--json`), progress and errors to standard error. Exit code
0: all done; 1: an error, or some networks could not be scored; 2: the command was called wrongly. `diff` ends with 0 if
the networks are the same, 1 if they differ, 2 on an error.
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
    from .grid import Cell
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

Files = Annotated[
    list[str],
    typer.Argument(help="ONNX files (weights are not needed) or names such as timm:resnet18.", show_default=False),
]
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
Epochs = Annotated[
    float | None,
    typer.Option(help="Training epochs after which the accuracy is wanted; default: as in the benchmarks of the task."),
]
Pool = Annotated[bool, typer.Option("--pool", help="Let ranks by size among the networks given enter the score.")]
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
    """What is understood of a network: stages, costs, unknown operators, passes; of several, a line each."""
    from ..encoders.explanation import explain

    rows: list[dict[str, Any]] = []
    texts: list[str] = []
    failed = False
    for file in files:
        try:
            found = explain(file, input_shapes=_shapes(input_shape))
        except ArchGaugeError as error:
            failed = True
            rows.append({"file": file, "error": str(error)})
            continue
        rows.append({"file": file, **found.to_dict()})
        texts.append(found.text())
    if as_json:
        _print_json(rows)
    else:
        names = ("file", "nodes", "params", "macs", "activations", "depth", "unknown_ops", "hash")
        good = [row for row in rows if "error" not in row]
        if len(files) == 1 and texts:
            typer.echo(texts[0])
        else:
            _print_table(names, [[_cell(name, row[name]) for name in names] for row in good])
        _print_errors([row["error"] for row in rows if "error" in row])
    raise typer.Exit(1 if failed else 0)


@app.command()
@_guarded
def describe(
    file: Annotated[
        str, typer.Argument(help="An ONNX file, a name like timm:resnet18, or a description.", show_default=False)
    ],
    level: Annotated[
        Literal["compact", "full", "summary"],
        typer.Option(help="compact: what repeats is written once; full: a line for each operator; summary: few lines."),
    ] = "compact",
    input_shape: Shapes = None,
) -> None:
    """Writes a network as text, which other commands read as they read an ONNX file (but for a summary)."""
    from ..encoders.reading import read as read_network
    from ..encoders.text import describe as text_of

    typer.echo(text_of(read_network(file, input_shapes=_shapes(input_shape)), level), nl=False)


@app.command()
@_guarded
def diff(
    a: Annotated[str, typer.Argument(help="The first network: an ONNX file or a name like timm:resnet18.")],
    b: Annotated[str, typer.Argument(help="The second network.")],
    input_shape: Shapes = None,
    limit: Annotated[int, typer.Option(help="Lines of changes to print at most.", min=1)] = 12,
    as_json: Json = False,
) -> None:
    """Says why two networks are, or are not, the same architecture.

    Exit code 0: the same; 1: different; 2: one of them cannot be read, or the command was called wrongly.
    """
    from ..encoders.difference import diff as find_difference
    from ..encoders.difference import read_pair

    try:
        found = find_difference(*read_pair(a, b, _shapes(input_shape)))
    except (ArchGaugeError, OSError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from error
    if as_json:
        _print_json(found.to_dict())
    else:
        typer.echo(f"A: {a}\nB: {b}\n{found.text(limit)}")
    raise typer.Exit(0 if found.same else 1)


@app.command()
@_guarded
def doctor(
    source: Annotated[
        str,
        typer.Argument(
            help="An ONNX file, a name like timm:resnet18, or a factory of yours: package.module:factory or "
            "path/to/file.py:factory, which is imported and called (your code runs).",
            show_default=False,
        ),
    ],
    input_shape: Annotated[
        list[str] | None,
        typer.Option(
            "--input-shape",
            help="Shape of an input, batch included: 1,3,224,224, in the order of the inputs, or NAME:1,3,224,224.",
            show_default=False,
        ),
    ] = None,
    dtype: Annotated[
        list[str] | None,
        typer.Option("--dtype", help="Element type of a module's inputs: int64, or NAME:int64.", show_default=False),
    ] = None,
    as_json: Json = False,
) -> None:
    """Finds out why a network does not read, and says what to do.

    Looks a file or a torch module over: what it is, its inputs, what is out of the ordinary, which ways of exporting it
    work, and where the others fail. Exit code 0: it reads; 1: it does not.
    """
    from ..encoders.doctor import doctor as find_problems

    report = find_problems(source, _shapes(input_shape), _dtypes(dtype))
    if as_json:
        _print_json(report.to_dict())
    else:
        typer.echo(report.text())
    raise typer.Exit(0 if report.reads else 1)


@app.command()
@_guarded
def score(
    files: Files,
    task: Task = None,
    predictor: PredictorFolder = None,
    input_shape: Shapes = None,
    pool: Pool = False,
    epochs: Epochs = None,
    as_json: Json = False,
) -> None:
    """Scores networks, in the order given."""
    scores = _model(predictor).score(
        _paths(files), task=task, input_shapes=_shapes(input_shape), on_error="skip", pool=pool, epochs=epochs
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
    epochs: Epochs = None,
    as_json: Json = False,
) -> None:
    """Ranks networks against each other, the best first."""
    ranked = _model(predictor).rank(
        _paths(files), task=task, input_shapes=_shapes(input_shape), on_error="skip", pool=pool, epochs=epochs
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
    epochs: Annotated[
        float | None, typer.Option(help="Training epochs behind the labels, if all have the same.", show_default=False)
    ] = None,
    test_share: Annotated[
        float, typer.Option(help="Share of the rows kept back to measure the tuned predictor on.", min=0, max=0.9)
    ] = 0.0,
    proxies: Annotated[
        bool, typer.Option("--proxies", help="Also run every network with random weights, in some 50 ms.")
    ] = False,
    predictor: PredictorFolder = None,
    seed: Annotated[int, typer.Option(help="Seed of the split.")] = 0,
    as_json: Json = False,
) -> None:
    """Adapts a predictor to your own labelled networks; 10 rows are enough to start."""
    from ..datasets.benchmark import Benchmark

    mine = Benchmark.from_csv(
        labels, onnx_dir=models, accuracy=accuracy, name=name, unit=unit, task=task, on_error="skip", epochs=epochs
    )
    _print_errors([f"{row}: {reason}" for row, reason in mine.skipped])
    kept = round(len(mine) * test_share)
    few, rest = mine.split(len(mine) - kept, seed=seed) if kept else (mine, None)
    before = _model(predictor)
    tuned = before.finetune(few, evidence=("proxies",)) if proxies else before.finetune(few)
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
    benchmark: Annotated[
        str | None, typer.Argument(help="Benchmark to measure on, NAME or NAME:TASK.", show_default=False)
    ] = None,
    predictor: PredictorFolder = None,
    protocol: Annotated[
        str | None,
        typer.Option(
            help="Run a whole grid instead: leave-one-space-out, families-out, train-on, few-shot, in-space or zoo.",
            show_default=False,
        ),
    ] = None,
    ranker: Annotated[
        list[str] | None,
        typer.Option(help="What to measure by a protocol; repeat for several.  [default: archgauge]"),
    ] = None,
    target: Annotated[
        list[str] | None,
        typer.Option(
            help="Target of a protocol, NAME, NAME:TASK or NAME:TASK@NETWORKS (@0: all), or a set of targets, "
            "`default` or `study`; repeat for several."
        ),
    ] = None,
    source: Annotated[
        list[str] | None, typer.Option(help="Benchmark to learn from in a protocol, like --target; repeat for several.")
    ] = None,
    labels: Annotated[
        list[int] | None, typer.Option(help="Numbers of labels for few-shot and in-space; repeat for several.")
    ] = None,
    folds: Annotated[int | None, typer.Option(help="Folds of families for zoo; 0: one family at a time.")] = None,
    seeds: Annotated[int, typer.Option(help="Seeds (or draws of the labels) of a protocol.", min=1)] = 3,
    accuracy: Annotated[
        bool, typer.Option("--accuracy", help="Also measure accuracies in percent and their intervals by a protocol.")
    ] = False,
    limit: Annotated[
        int | None,
        typer.Option(help="Networks taken of each benchmark, drawn at random; 0: all.  [default: all; 400]", min=0),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of that draw (without a protocol).")] = 0,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Write the result as JSON to this file; of a protocol: folder for result.json, table.txt and the "
            "finished cells, so that a second run goes on where the first stopped.  [default: runs/PROTOCOL]"
        ),
    ] = None,
    figure: Annotated[
        Path | None, typer.Option(help="Draw a protocol's grid into this .png, .pdf or .svg.", show_default=False)
    ] = None,
    data: Root = None,
    download: Download = False,
    as_json: Json = False,
) -> None:
    """Measures a predictor on a benchmark, or rankers by a protocol, beside the trivial rows (MACs, parameters, …)."""
    from ..datasets.registry import load_benchmark
    from ..encoders.files import replacing

    if (benchmark is None) == (protocol is None):
        raise ConfigError("name a benchmark to measure a predictor on, or a --protocol to run, and not both")
    if protocol is None:
        only = {
            "ranker": ranker,
            "target": target,
            "source": source,
            "labels": labels,
            "folds": folds,
            "figure": figure,
        }
        if given := [name for name, value in only.items() if value is not None]:
            raise ConfigError(f"--{given[0]} belongs to a --protocol, and none is named")
        name, _, task = str(benchmark).partition(":")
        bench = load_benchmark(name, task or None, root=data, download=download, limit=limit or None, seed=seed)
        result = _model(predictor).evaluate(bench)
        if out is not None:
            with replacing(out) as file:
                file.write(json_text(result.to_dict()).encode())
        if as_json:
            _print_json(result.to_dict())
        else:
            typer.echo(result.table())
        return
    if predictor is not None:
        raise ConfigError("a protocol trains what it measures: name it with --ranker instead of --predictor")
    from .figure import check_figure, draw
    from .protocols import Run, run_protocol

    if figure is not None:
        check_figure(figure)
    folder = out or Path("runs") / protocol
    run = Run(
        tuple(ranker or ("archgauge",)),
        seeds=seeds,
        limit=400 if limit is None else limit,
        accuracy=accuracy,
        folder=folder,
        root=data,
        download=download,
        report=_show_cell,
    )
    grid = run_protocol(protocol, run, spaces=target, sources=source, labels=labels, folds=folds)
    for file_name, text in (("result.json", json_text(grid.to_dict())), ("table.txt", f"{grid.table()}\n")):
        with replacing(folder / file_name) as file:
            file.write(text.encode())
    if figure is not None:
        draw(grid, figure)
    if as_json:
        _print_json(grid.to_dict())
    else:
        typer.echo(grid.table())


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
        if record.definition:
            here = "definition only"
        tasks = " ".join(task.name for task in record.tasks)
        rows.append([record.name, tasks, f"{size / 1e6:.1f} MB" if size else "-", here, record.licence])
    _print_table(("benchmark", "tasks", "files", "present", "licence"), rows)
    typer.echo(f"\nFiles are looked for in {data_root(data)}.")


# --- helpers --------------------------------------------------------------------------------------------------------


def _model(folder: Path | None) -> Predictor:
    from .model import Predictor

    return Predictor.load(folder)


def _paths(files: Sequence[str]) -> list[str | os.PathLike[str] | bytes]:
    return list(files)


def _shapes(options: Sequence[str] | None) -> dict[str, tuple[int, ...]] | list[tuple[int, ...]] | None:
    """`NAME:1,3,224,224` options as a mapping, `1,3,224,224` options as a list."""
    named: dict[str, tuple[int, ...]] = {}
    listed: list[tuple[int, ...]] = []
    for option in options or ():
        name, _, sizes = option.rpartition(":")
        try:
            shape = tuple(int(size) for size in sizes.split(","))
        except ValueError as error:
            raise ConfigError(
                f"--input-shape is {option!r}, expected NAME:1,3,224,224, or 1,3,224,224 for inputs in their order"
            ) from error
        if name:
            named[name] = shape
        else:
            listed.append(shape)
    if named and listed:
        raise ConfigError("--input-shape is given with and without names; name all of the inputs or none")
    return named or listed or None


def _dtypes(options: Sequence[str] | None) -> dict[str, str] | str | None:
    """`int64`, or `NAME:int64` options as a mapping."""
    if not options:
        return None
    if len(options) == 1 and ":" not in options[0]:
        return options[0]
    named = [option.rpartition(":") for option in options]
    for option, (name, _, dtype) in zip(options, named, strict=True):
        if not name or not dtype:
            raise ConfigError(f"--dtype is {option!r}, expected one TYPE for all inputs or NAME:TYPE for each")
    return {name: dtype for name, _, dtype in named}


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


def _show_cell(cell: Cell) -> None:
    """A line on standard error for every result of a protocol as it comes."""
    few = f", {cell.labels} labels" if cell.labels else ""
    told = f"spearman {cell.metrics['spearman']:.3f}  kendall {cell.metrics['kendall']:.3f}"
    typer.echo(f"{cell.row}, seed {cell.seed}: {cell.target}{few}: {told}  ({cell.seconds:.1f} s)", err=True)


def _show_scores(scores: Sequence[Score], files: Sequence[str], as_json: bool) -> None:
    if as_json:
        _print_json([{"file": file, **asdict(score)} for file, score in zip(files, scores, strict=True)])
    else:
        rows = [
            [
                file if len({score.name for score in scores}) < len(scores) else s.name,
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
