"""GraphGym designs: published parameters, layers by hand, strict specs and tables."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

from archgauge.datasets import graphgym_gnn
from archgauge.datasets.gnn_layers import NODES
from archgauge.datasets.onnx_builder import stored_costs, with_zero_weights
from archgauge.encoders.errors import DataError
from archgauge.encoders.onnx_reader import read

SPEC = "pre=1,mp=2,post=2,stage=skipsum,agg=add,bn=1,act=prelu"
NAME = "design_v2_grid_round2_val.csv"


@pytest.fixture(scope="module")
def table(benchmarks_root: Path) -> dict[str, Path]:
    folder = benchmarks_root / "graphgym_gnn"
    return {NAME: folder / "raw" / NAME, graphgym_gnn.LINK_TABLE: folder / graphgym_gnn.LINK_TABLE}


def test_every_task_has_the_whole_grid(table: dict[str, Path]) -> None:
    assert len(graphgym_gnn.TASKS) == 43
    for task in graphgym_gnn.TASKS:
        specs, accuracy = graphgym_gnn.read_labels(table, task)
        assert len(set(specs)) == len(specs) == (91 if task == "coauthorphysics-link" else 96)
        assert specs == sorted(specs)
        assert 13 < accuracy.min() < accuracy.max() < 98


def test_published_parameters_are_ours(table: dict[str, Path]) -> None:
    for task in graphgym_gnn.TASKS[::4]:
        specs, _ = graphgym_gnn.read_labels(table, task)
        params, _ = graphgym_gnn.published_costs(table, task)
        for at in range(0, len(specs), 23):
            model = graphgym_gnn.build(specs[at], task)
            assert stored_costs(model)[0] == params[at]
            if at % 3 == 0:
                graph = read(model)
                assert (graph.params, graph.macs) == stored_costs(model)


@pytest.mark.slow
def test_every_published_parameter_count_is_ours(table: dict[str, Path]) -> None:
    for task in graphgym_gnn.TASKS:
        specs, _ = graphgym_gnn.read_labels(table, task)
        params, _ = graphgym_gnn.published_costs(table, task)
        assert [stored_costs(graphgym_gnn.build(spec, task))[0] for spec in specs] == params.tolist()


def test_width_of_the_reference_design() -> None:
    assert graphgym_gnn.width(graphgym_gnn.Design(1, 2, 1, "stack", "add", 1, "prelu"), 1) == 256
    assert graphgym_gnn.width(graphgym_gnn.parse(SPEC), 1) == 209


@pytest.mark.parametrize("task", ["cora", "enzymes", "scalefree-const-path", "cora-link"])
def test_samples_are_valid(task: str) -> None:
    for spec in graphgym_gnn.sample(6, 3):
        model = graphgym_gnn.build(spec, task)
        onnx.checker.check_model(with_zero_weights(model), full_check=True)
        graph = read(model)
        assert (graph.params, graph.macs) == stored_costs(model)
        assert graph.unknown_ops == ()


def test_choices_give_different_graphs() -> None:
    base = graphgym_gnn.parse(SPEC)
    designs = [
        base,
        base._replace(pre=2),
        base._replace(mp=4),
        base._replace(post=1),
        base._replace(stage="stack"),
        base._replace(stage="skipconcat"),
        base._replace(agg="mean"),
        base._replace(agg="max"),
        base._replace(bn=0),
        base._replace(act="relu"),
        base._replace(act="swish"),
    ]
    hashes = {read(graphgym_gnn.build(graphgym_gnn.spec_of(design), "cora")).hash for design in designs}
    assert len(hashes) == len(designs)


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_output_belongs_to_nodes_or_to_the_graph() -> None:
    data: Any = {"adjacency": np.ones((NODES, NODES), np.float32), "features": np.ones((NODES, 3), np.float32)}
    graph_level = with_zero_weights(graphgym_gnn.build(SPEC, "enzymes"))
    found: Any = ReferenceEvaluator(graph_level).run(None, data)
    assert found[0].shape == (1, 6)
    data["features"] = np.ones((NODES, 1433), np.float32)
    node_level = with_zero_weights(graphgym_gnn.build(SPEC, "cora"))
    found = ReferenceEvaluator(node_level).run(None, data)
    assert found[0].shape == (NODES, 7)
    links = with_zero_weights(graphgym_gnn.build(SPEC, "cora-link"))
    found = ReferenceEvaluator(links).run(None, data)
    assert found[0].shape == (NODES, NODES)


def test_one_slope_serves_the_whole_network() -> None:
    model = graphgym_gnn.build(SPEC, "cora")
    slopes = {node.input[1] for node in model.graph.node if node.op_type == "PRelu"}
    assert len(slopes) == 1


def test_samples_are_distinct_and_repeatable() -> None:
    specs = graphgym_gnn.sample(300, 1)
    assert specs == graphgym_gnn.sample(300, 1) != graphgym_gnn.sample(300, 2)
    assert len(set(specs)) == 300
    for n in (-1, 10_000_000):
        with pytest.raises(DataError, match="can sample"):
            graphgym_gnn.sample(n, 0)


@pytest.mark.parametrize(
    "spec",
    [
        "",
        SPEC + ",x=1",
        SPEC.replace("pre=1", "pre=4"),
        SPEC.replace("pre=1,mp=2", "mp=2,pre=1"),
        SPEC.replace("skipsum", "skip"),
        SPEC.replace("pre=1", "pre=1,pre=1"),
        SPEC.replace("bn=1", "bn=True"),
    ],
)
def test_malformed_specs_are_refused(spec: str) -> None:
    with pytest.raises(DataError, match="expected"):
        graphgym_gnn.build(spec, "cora")


HEADER = "dataset,feature,label,l_pre,l_mp,l_post,stage,agg,accuracy,params\n"
ROW = "Cora,,,1,2,2,skipsum,add,0.8,100\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dataset\nCora\n", "no column feature"),
        (HEADER, "no row for cora"),
        (HEADER + ROW + ROW, "line 3: the design .* occurs twice"),
        (HEADER + ROW.replace("0.8", "x"), "expected a number"),
        (HEADER + ROW.replace("skipsum", "skip"), "line 2: GraphGym design"),
    ],
)
def test_damaged_tables_are_refused(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / NAME
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        graphgym_gnn.read_labels({NAME: path}, "cora")


def test_unknown_task_and_missing_file_are_named() -> None:
    with pytest.raises(DataError, match="no task 'mnist'"):
        graphgym_gnn.build(SPEC, "mnist")
    for task in ("cora", "cora-link"):
        with pytest.raises(DataError, match="is needed, got none"):
            graphgym_gnn.read_labels({}, task)
