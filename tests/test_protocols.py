"""Protocols: who may learn what, nothing leaks, finished cells are kept, and the table says what was measured."""

import json
from dataclasses import replace
from math import inf, isnan, nan
from typing import ClassVar

import numpy as np
import pytest
from typer.testing import CliRunner

from archgauge.datasets.benchmark import Benchmark
from archgauge.datasets.registry import benchmark_record
from archgauge.encoders.errors import ConfigError, DataError
from archgauge.encoders.graph import ArchGraph, Node
from archgauge.predictor import protocols
from archgauge.predictor.cli import app
from archgauge.predictor.figure import check_figure, draw
from archgauge.predictor.grid import Cell, Grid, published_rows
from archgauge.predictor.metrics import kendall, spearman
from archgauge.predictor.protocols import PROTOCOLS, SPACES, Run, run_protocol
from archgauge.predictor.ranker import PredictorRanker, RankerEntry, ranker_entry


def network(widths, kernel=3):
    nodes = [Node("Input", (), (1, 3, 16, 16))]
    for width in widths:
        weights = ((int(width), nodes[-1].shape[1], kernel, kernel),)
        shape = (1, int(width), 16, 16)
        pads = (("pads", (kernel // 2,) * 4),) if kernel > 1 else ()
        nodes.append(Node("Conv", (len(nodes) - 1,), shape, pads, weights, params=int(np.prod(weights[0]))))
        nodes.append(Node("Relu", (len(nodes) - 1,), shape))
    return ArchGraph(tuple(nodes), (len(nodes) - 1,))


def space(name, seed, kernel, n=36, relatives="", shared=()):
    """Networks of one kernel size; `shared` graphs stand first."""
    random = np.random.default_rng(seed)
    found = dict.fromkeys(shared, 60.0)
    while len(found) < n:
        widths = tuple((4 * random.integers(1, 17, random.integers(1, 6))).tolist())
        found[network(widths, kernel)] = 50 + 8 * len(widths) + 3 * np.log(np.mean(widths)) + random.normal(0, 0.5)
    names = tuple(f"{name} {i}" for i in range(n))
    groups = tuple(f"family {i % 5}" for i in range(n))
    return Benchmark(
        name, "toy", tuple(found), np.clip(np.array(list(found.values())), 0, 100), names, groups, relatives
    )


def toy_spaces():
    alpha = space("alpha", 0, 3)
    return {
        "alpha": alpha,
        "alpha2": space("alpha2", 1, 3, relatives="alpha"),
        "beta": space("beta", 2, 5, shared=alpha.graphs[:4]),
        "gamma": space("gamma", 3, 1),
        "delta": space("delta", 4, 7),
    }


@pytest.fixture
def spaces(monkeypatch):
    """Toy spaces that protocols load by name; a test may replace them."""
    found = toy_spaces()

    def load(name, task=None, *, limit=None, **rest):
        bench = found[name]
        return bench if limit is None or limit >= len(bench) else bench.select(range(limit))

    monkeypatch.setattr(protocols, "load_benchmark", load)
    monkeypatch.setattr(protocols, "FAMILIES", {"beta": "wide", "delta": "wide"})
    return found


class Spy:
    """Ranks by the mean training label plus size, and remembers what it was given."""

    seen: ClassVar[list["Spy"]] = []

    def __init__(self, seed):
        self.seed, self.train, self.few, self.asked = seed, (), None, []
        Spy.seen.append(self)

    def fit(self, benchmarks):
        self.train = tuple(benchmarks)
        return self

    def finetune(self, few):
        tuned = Spy(self.seed)
        tuned.train, tuned.few = self.train, few
        return tuned

    def rank_scores(self, graphs):
        self.asked.append([graph.hash for graph in graphs])
        level = sum(float(bench.accuracy.sum()) for bench in (*self.train, *([self.few] if self.few else [])))
        return np.array([graph.macs * (1 + self.seed) + level for graph in graphs], np.float64)


@pytest.fixture(autouse=True)
def _forget():
    Spy.seen = []


NAMES = ("alpha", "alpha2", "beta", "gamma", "delta")


def test_a_space_is_left_out_with_its_relatives_and_its_graphs(spaces):
    grid = protocols.leave_one_space_out(Run({"spy": Spy}, trivial=False), spaces=NAMES, sources=NAMES)
    assert [cell.target for cell in grid.cells] == list(NAMES)
    by_target = {cell.target: spy for cell, spy in zip(grid.cells, Spy.seen, strict=True)}
    assert {b.name for b in by_target["alpha"].train} == {"beta", "gamma", "delta"}
    assert {b.name for b in by_target["gamma"].train} == {"alpha", "alpha2", "beta", "delta"}
    assert len(next(b for b in by_target["alpha"].train if b.name == "beta")) == 32  # four graphs are alpha's
    for cell in grid.cells:
        held = set(spaces[cell.target].hashes)
        assert not held & {key for b in by_target[cell.target].train for key in b.hashes}
        assert cell.metrics["spearman"] == spearman(
            spaces[cell.target].accuracy, [g.macs for g in spaces[cell.target].graphs]
        )


def test_a_family_is_left_out_whole(spaces):
    grid = protocols.families_out(Run({"spy": Spy}, trivial=False), spaces=("beta",), sources=NAMES)
    assert set(grid.cells[0].training) == {"alpha", "alpha2", "gamma"}


def test_every_family_names_a_benchmark_there_is():
    for name in protocols.FAMILIES:
        benchmark_record(name)
    assert len(protocols.SETS["study"]) == 12
    for spec in (*SPACES, *protocols.MORE_SOURCES, *protocols.SETS["study"]):
        name, _, task = spec.partition(":")
        benchmark_record(name).task(task or None)


def test_training_on_one_space_ranks_all_that_are_no_relatives(spaces):
    run = Run({"spy": Spy}, trivial=False)
    grid = protocols.train_on(run, sources=("alpha",), spaces=("alpha2", "beta", "gamma"))
    assert [cell.target for cell in grid.cells] == ["beta", "gamma"]
    (spy,) = Spy.seen  # fitted once
    assert len(spy.train[0]) == 32
    assert len(spy.asked[0]) == len(spy.asked[1]) == 36
    with pytest.raises(ConfigError, match="relatives"):
        protocols.train_on(run, sources=("alpha",), spaces=("alpha2",))


def test_few_labels_come_from_the_target_and_are_not_measured_on(spaces):
    run = Run({"spy": Spy}, seeds=2, trivial=False)
    grid = protocols.few_shot(run, spaces=("gamma",), sources=NAMES, labels=(5, 10, 99))
    assert grid.places == (("gamma", 5), ("gamma", 10))  # 99 are more than there are
    assert [cell.seed for cell in grid.cells] == [0, 1, 0, 1]
    tuned = [spy for spy in Spy.seen if spy.few is not None]
    assert len(Spy.seen) == len(tuned) + 1  # one prior for all draws
    draws = [set(spy.few.names) for spy in tuned]
    assert draws[0] < draws[2]
    assert draws[0] != draws[1]
    for spy, cell in zip(tuned, grid.cells, strict=True):
        assert len(spy.few) == cell.labels
        assert not set(spy.few.hashes) & set(spy.asked[0])
        assert "gamma" not in {b.name for b in spy.train}


def test_copies_of_the_few_count_only_where_papers_count_them(spaces):
    gamma = spaces["gamma"]
    twice = Benchmark("gamma", "toy", (*gamma.graphs, *gamma.graphs), [*gamma.accuracy] * 2, tuple(map(str, range(72))))
    spaces["gamma"] = twice
    grid = protocols.in_space(Run({"spy": Spy}, trivial=False), spaces=("gamma",), labels=(8,))
    (cell,) = grid.cells
    few, _ = twice.split(8, seed=0)
    apart = [i for i in range(72) if twice.hashes[i] not in set(few.hashes)]
    rest = [i for i in range(72) if twice.names[i] not in set(few.names)]
    macs = np.array([graph.macs for graph in twice.graphs])
    assert cell.n == len(apart)
    assert cell.metrics["kendall"] == kendall(twice.accuracy[apart], macs[apart])
    assert cell.metrics["kendall_copies_kept"] == kendall(twice.accuracy[rest], macs[rest])
    assert Spy.seen[0].train[0].names == few.names


def test_zoo_leaves_out_families_and_scores_every_network_once(spaces):
    grid = protocols.zoo(Run({"spy": Spy}, trivial=False), spaces=("alpha",), folds=3)
    (cell,) = grid.cells
    assert cell.n == 36
    assert sorted(key for spy in Spy.seen for key in spy.asked[0]) == sorted(spaces["alpha"].hashes)
    for spy in Spy.seen:
        train = {g for bench in spy.train for g in bench.groups}
        asked = {spaces["alpha"].groups[spaces["alpha"].hashes.index(key)] for key in spy.asked[0]}
        assert not train & asked
    one_at_a_time = protocols.zoo(Run({"spy": Spy}, trivial=False), spaces=("alpha",), folds=0)
    assert len(Spy.seen) == 3 + 5
    assert one_at_a_time.cells[0].n == 36


QUICK = {"heads": ("gbdt",), "n_seeds": 1, "options": {"gbdt": {"n_trees": 20}}}


def predictor(seed):
    return PredictorRanker({**QUICK, "seed": seed})


@pytest.mark.parametrize("name", ["leave-one-space-out", "families-out", "train-on"])
def test_labels_of_the_target_change_no_zero_shot_score_by_a_bit(spaces, name):
    sources = ("alpha", "alpha2", "delta") if name == "train-on" else NAMES
    run = Run({"predictor": predictor, "spy": Spy}, accuracy=True)

    def scores():
        return {
            (cell.row, cell.target): cell.scores
            for cell in run_protocol(name, run, spaces=("gamma",), sources=sources).cells
        }

    before = scores()
    gamma, delta = spaces["gamma"], spaces["delta"]
    spaces["gamma"] = replace(gamma, accuracy=np.random.default_rng(7).uniform(0, 100, len(gamma)))
    assert scores() == before
    assert ("predictor, pool", "gamma") in before
    spaces["delta"] = replace(delta, accuracy=100 - delta.accuracy)  # labels of a source do matter
    changed = scores()
    assert changed["predictor", "gamma"] != before["predictor", "gamma"]


def test_labels_beyond_the_few_change_no_score_by_a_bit(spaces):
    run = Run({"predictor": predictor}, trivial=False)

    def scores():
        grid = protocols.few_shot(run, spaces=("gamma",), sources=("alpha", "delta"), labels=(6,))
        return [cell.scores for cell in grid.cells]

    before = scores()
    gamma = spaces["gamma"]
    few, _ = gamma.split(6, seed=0)
    noise = np.random.default_rng(7).uniform(0, 100, len(gamma))
    labels = np.where([name in few.names for name in gamma.names], gamma.accuracy, noise)
    spaces["gamma"] = replace(gamma, accuracy=labels)
    assert scores() == before
    spaces["gamma"] = replace(gamma, accuracy=noise)
    assert scores() != before


def test_accuracies_are_measured_only_when_asked_for_and_of_one_budget(spaces):
    plain = protocols.leave_one_space_out(Run({"spy": Spy}, trivial=False), spaces=("gamma",), sources=NAMES)
    assert {bench.task for bench in Spy.seen[-1].train} == {""}
    assert "mae" not in plain.metrics
    run = Run({"predictor": predictor, "spy": Spy}, accuracy=True, trivial=False)
    grid = protocols.leave_one_space_out(run, spaces=("gamma",), sources=NAMES)
    assert [bench.task for bench in Spy.seen[-1].train] == ["toy", "", "", ""]
    told = {cell.row: cell.metrics for cell in grid.cells}
    assert 0 <= told["predictor"]["coverage"] <= 1
    assert told["predictor"]["mae"] < 40
    assert told["predictor"]["width"] > 0
    assert "mae" not in told["predictor, pool"]
    assert "mae" not in told["spy"]


def test_accuracies_are_asked_for_at_the_budget_of_the_target(spaces, tmp_path):
    asked = []

    class Estimating(Spy):
        def estimates(self, graphs, task, epochs=None):
            asked.append((task, epochs))
            return np.full((len(graphs), 3), 50.0)

    run = Run({"spy": Estimating}, accuracy=True, trivial=False, folder=tmp_path)
    spaces["gamma"] = replace(spaces["gamma"], epochs=12)
    protocols.leave_one_space_out(run, spaces=("gamma", "delta"), sources=NAMES)
    spaces["gamma"] = replace(spaces["gamma"], epochs=200)  # another cell
    protocols.leave_one_space_out(run, spaces=("gamma",), sources=NAMES)
    protocols.leave_one_space_out(run, spaces=("gamma",), sources=NAMES)
    assert asked == [("toy", 12), ("toy", inf), ("toy", 200)]


def test_seeds_repeat_what_a_seed_changes(spaces):
    run = Run({"spy": Spy}, seeds=3)
    grid = protocols.leave_one_space_out(run, spaces=("gamma", "delta"), sources=NAMES)
    assert len(grid.values("spy", ("gamma", 0), "spearman")) == 3
    assert len(grid.values("macs", ("gamma", 0), "spearman")) == 1
    assert len(grid.over_targets("spy", "spearman")) == 3
    assert grid.rows == ("spy", "macs", "params", "depth", "convolutions", "nwot", "best size", "best trivial")


def test_a_second_run_goes_on_where_the_first_stopped(spaces, tmp_path):
    reported = []
    run = Run({"spy": Spy}, folder=tmp_path, report=reported.append)
    first = protocols.leave_one_space_out(run, spaces=("gamma", "delta"), sources=NAMES)
    count, made = len(reported), len(list((tmp_path / "cells").iterdir()))
    assert count == made == 2 * 6  # a ranker and five trivial ones
    Spy.seen = []
    again = protocols.leave_one_space_out(run, spaces=("gamma", "delta"), sources=NAMES)
    assert again.cells == first.cells
    assert not any(spy.train for spy in Spy.seen)
    assert len(reported) == count
    spaces["alpha"] = replace(spaces["alpha"], accuracy=spaces["alpha"].accuracy[::-1])
    protocols.leave_one_space_out(run, spaces=("gamma", "delta"), sources=NAMES)
    assert len(reported) == count + 2  # what learnt from alpha is measured anew, the rest is kept


def test_kept_cells_depend_on_the_code_that_made_them():
    tree, whole = (protocols._code_of(ranker_entry(name)) for name in ("gbdt_nas", "archgauge"))
    assert "archgauge.predictor.baselines" in tree
    assert "archgauge.encoders.operators" in tree
    assert "archgauge.predictor.model" not in tree
    assert {"archgauge.predictor.model", "archgauge.predictor.heads", "archgauge.encoders.statistics"} <= set(whole)
    assert "archgauge.predictor.cli" not in whole
    assert protocols._code_of(RankerEntry(Spy)) == whole  # a function of one's own may use anything


def test_a_damaged_cell_says_which_file(spaces, tmp_path):
    run = Run({"spy": Spy}, folder=tmp_path, trivial=False)
    protocols.leave_one_space_out(run, spaces=("gamma",), sources=NAMES)
    (file,) = (tmp_path / "cells").iterdir()
    file.write_text("[{}]")
    with pytest.raises(DataError, match=file.name):
        protocols.leave_one_space_out(run, spaces=("gamma",), sources=NAMES)


def test_a_ranker_without_finite_scores_is_refused(spaces):
    class Broken(Spy):
        def rank_scores(self, graphs):
            return np.full(len(graphs), nan)

    with pytest.raises(DataError, match="gamma"):
        protocols.leave_one_space_out(Run({"broken": Broken}), spaces=("gamma",), sources=NAMES)


def test_what_is_called_wrongly_says_so(spaces, monkeypatch):
    with pytest.raises(ConfigError, match="leave-one-space-out"):
        run_protocol("leave-one-out", Run({"spy": Spy}))
    with pytest.raises(ConfigError, match="takes no labels"):
        run_protocol("zoo", Run({"spy": Spy}), labels=(5,))
    with pytest.raises(ConfigError, match="@"):
        protocols.load_spaces(Run({"spy": Spy}), ("alpha@many",))
    with pytest.raises(ConfigError, match="seeds"):
        Run(seeds=0)
    with pytest.raises(ConfigError, match="labels"):
        protocols.in_space(Run({"spy": Spy}), spaces=("gamma",), labels=(0,))
    with pytest.raises(DataError, match="nothing to learn"):
        protocols.leave_one_space_out(Run({"spy": Spy}), spaces=("alpha",), sources=("alpha2",))
    monkeypatch.setattr(protocols, "SETS", {"two": ("alpha", "beta@9")})
    assert [b.name for b in protocols.load_spaces(Run({"spy": Spy}), ("two", "gamma", "alpha"))] == [
        "alpha",
        "beta",
        "gamma",
    ]
    assert [len(b) for b in protocols.load_spaces(Run({"spy": Spy}, limit=7), ("alpha", "beta@9", "gamma@0"))] == [
        7,
        9,
        36,
    ]


def test_nas_bench_201_is_measured_with_and_without_none(spaces):
    gamma = spaces["gamma"]
    names = tuple(f"{'|none~0|' if i % 3 else '|skip_connect~0|'} {i}" for i in range(36))
    target = replace(gamma, name="nas_bench_201", task="cifar10", names=names, relatives="nas_bench_201")
    spaces["nas_bench_201"] = target
    run = Run({"spy": Spy}, trivial=False)
    grid = protocols.leave_one_space_out(run, spaces=("nas_bench_201", "beta"), sources=NAMES)
    sizes = {cell.target: (cell.n, cell.counted) for cell in grid.cells}
    assert sizes == {
        "nas_bench_201:cifar10": (36, True),
        "nas_bench_201:cifar10 without none": (12, False),
        "beta": (36, True),
    }
    assert "mean of 2" in grid.table()


# -- the grid --------------------------------------------------------------------------------------------------------


def cell(ranker, target, spearman=0.5, seed=0, labels=0, regret=1.0, **rest):
    metrics = {"spearman": spearman, "kendall": spearman, "ndcg_at_10": 0.5, "regret_top_1_percent": regret}
    return Cell(ranker, rest.pop("mode", "single"), target, seed, labels, rest.pop("n", 10), metrics, **rest)


TRIVIAL = ("macs", "params", "depth", "convolutions", "nwot")


def toy_grid(protocol="leave-one-space-out"):
    values = {"a": (0.6, 0.2, nan, 0.1, 0.9), "b": (0.3, 0.4, 0.1, -0.2, 0.2)}
    cells = [cell("mine", "a", 0.7, 0), cell("mine", "a", 0.8, 1), cell("mine", "b", 0.2, 0), cell("mine", "b", nan, 1)]
    cells += [cell("mine", "a", 0.9, mode="pool"), cell("mine", "b", 0.5, mode="pool")]
    for target, row in values.items():
        cells += [cell(n, target, v, regret=r) for r, (n, v) in enumerate(zip(TRIVIAL, row, strict=True))]
    return Grid(protocol, tuple(cells), {"seeds": 2})


def test_means_count_an_undefined_correlation_as_none():
    grid = toy_grid()
    assert grid.over_targets("mine", "spearman") == pytest.approx((0.45, 0.4))
    assert grid.mean("mine", ("b", 0), "spearman") == 0.2
    assert grid.over_targets("mine, pool", "spearman") == pytest.approx((0.7,))


def test_hindsight_picks_the_best_in_every_cell_and_metric():
    grid = toy_grid()
    assert grid.values("best size", ("a", 0), "spearman") == (0.6,)
    assert grid.values("best trivial", ("a", 0), "spearman") == (0.9,)
    assert grid.values("best size", ("b", 0), "spearman") == (0.4,)
    assert grid.values("best size", ("b", 0), "regret_top_1_percent") == (0,)


def test_the_table_prints_means_spread_and_wins():
    lines = toy_grid().table(("spearman",)).splitlines()
    header = lines[0].split()
    assert header[:4] == ["spearman", "n", "mine", "mine,"]
    row = {line.split("  ")[0]: line for line in lines}
    assert "0.750 ± 0.050" in row["a"]
    assert "0.425 ± 0.025" in row["mean of 2"]
    assert row["above macs in"].split()[3] == "1"  # mine: above in a alone; its pool row: in both
    assert row["above macs in"].split()[4] == "2"
    assert row["above best size in"].split()[4:6] == ["1", "2"]


def test_a_grid_is_json_without_nan():
    text = json.dumps(toy_grid().to_dict(), allow_nan=False)
    content = json.loads(text)
    cells = [Cell.from_dict(values) for values in content["cells"]]
    assert [c.row for c in cells] == [c.row for c in toy_grid().cells]
    assert isnan(cells[3].metrics["spearman"])
    mean = next(m for m in content["mean_over_targets"] if m["row"] == "mine")["metrics"]["spearman"]
    assert mean == {"mean": pytest.approx(0.425), "std": pytest.approx(0.025), "seeds": 2}
    with pytest.raises(DataError, match="delete"):
        Cell.from_dict({"metrics": {}})


def test_published_numbers_stand_beside_their_targets():
    for row in published_rows():
        assert row.protocol in PROTOCOLS
        assert row.metric in ("spearman", "kendall")
        assert 0 < row.value < 1
        assert row.source
        assert row.same_test == bool(row.networks)
        name, _, task = row.target.removesuffix(" without none").partition(":")
        benchmark_record(name).task(task or None)
    full = Grid("train-on", (cell("mine", "nas_bench_201:cifar10", n=15_625),))
    part = Grid("train-on", (cell("mine", "nas_bench_201:cifar10", n=400),))
    found = {row.method: row for row in full.published()}
    assert found["ONNX-Net, 50,000 networks"].value == 0.747
    line, marked = (
        next(line for line in grid.table().splitlines() if line.startswith("ONNX-Net, 50,000")) for grid in (full, part)
    )
    assert "*" not in line
    assert "*" in marked
    assert not toy_grid().published()


# -- figure and command ----------------------------------------------------------------------------------------------


def test_a_figure_needs_matplotlib_and_a_known_ending(monkeypatch, tmp_path):
    with pytest.raises(ConfigError, match=r"\.png"):
        check_figure(tmp_path / "figure.gif")
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.backends.backend_agg", None)
    with pytest.raises(ConfigError, match="plots"):
        check_figure(tmp_path / "figure.png")


@pytest.mark.parametrize("labels", [(0,), (16, 39)])
def test_a_figure_is_drawn_the_same_twice(tmp_path, labels):
    pytest.importorskip("matplotlib")
    cells = [replace(c, labels=n) for n in labels for c in toy_grid().cells]
    grid = Grid("few-shot" if labels[0] else "leave-one-space-out", tuple(cells))
    for name in ("one.png", "two.png"):
        draw(grid, tmp_path / name)
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()
    assert (tmp_path / "one.png").stat().st_size > 10_000
    with pytest.raises(ConfigError, match="no cells"):
        draw(Grid("zoo", ()), tmp_path / "none.png")


def test_the_command_runs_a_protocol_and_keeps_its_results(tmp_path):
    call = ["evaluate", "--protocol", "zoo", "--ranker", "gbdt_nas", "--target", "imagenet_zoo@40", "--folds", "2"]
    result = CliRunner().invoke(app, [*call, "--seeds", "1", "--out", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert "gbdt_nas, seed 0: imagenet_zoo" in result.stderr
    assert result.stdout == (tmp_path / "table.txt").read_text()
    content = json.loads((tmp_path / "result.json").read_text())
    assert content["protocol"] == "zoo"
    assert {c["ranker"] for c in content["cells"]} == {"gbdt_nas", *TRIVIAL}
    again = CliRunner().invoke(app, [*call, "--seeds", "1", "--out", str(tmp_path)])
    assert again.stderr == ""
    assert again.stdout == result.stdout


def test_the_command_refuses_what_does_not_fit():
    for call, expected in (
        ([], "name a benchmark"),
        (["nas_bench_macro", "--protocol", "zoo"], "not both"),
        (["nas_bench_macro", "--ranker", "graf"], "--ranker belongs to a --protocol"),
        (["--protocol", "zoo", "--predictor", "somewhere"], "--ranker instead"),
        (["--protocol", "leave-one-space", "--ranker", "graf"], "leave-one-space-out"),
        (["--protocol", "zoo", "--figure", "grid.gif"], ".png"),
    ):
        result = CliRunner().invoke(app, ["evaluate", *call])
        assert result.exit_code == 1
        assert expected in " ".join(result.stderr.split())
