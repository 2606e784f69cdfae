"""NAS-Bench-Graph: layers against PyTorch Geometric, published parameters, safe reading of the published pickles."""

import gzip
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

from archgauge.datasets import nas_bench_graph, pickled_numbers
from archgauge.datasets.gnn_layers import NODES, GnnBuilder
from archgauge.datasets.onnx_builder import Value, stored_costs
from archgauge.encoders.errors import DataError, GraphError
from archgauge.encoders.onnx_reader import read

FEATURES, WIDTH = 5, 8
SPEC = "0-0-1-2|gcn-gin-fc-cheb"


def random_graph(seed: int) -> np.ndarray[Any, Any]:
    upper = np.triu(np.random.default_rng(seed).random((NODES, NODES)) < 0.15, 1)
    adjacency = (upper | upper.T).astype(np.float32)
    adjacency[0] = adjacency[:, 0] = 0  # a node without neighbours
    return adjacency


def run(model: onnx.ModelProto, weights: list[Any], features: Any, adjacency: Any) -> Any:
    missing = [t for t in model.graph.initializer if t.data_location == onnx.TensorProto.EXTERNAL]
    for tensor, weight in zip(missing, weights, strict=True):
        array = np.ascontiguousarray(weight, dtype=np.float32)
        assert tuple(tensor.dims) == array.shape
        tensor.ClearField("data_location")
        tensor.ClearField("external_data")
        tensor.raw_data = array.tobytes()
    result: Any = ReferenceEvaluator(model).run(None, {"features": features, "adjacency": adjacency})
    return result[0]


def layers(pyg: Any, torch: Any) -> dict[str, tuple[Any, Callable[[Any], list[Any]], Callable[[GnnBuilder], Value]]]:
    """Name → layer of PyTorch Geometric, its weights in our order, our layer."""
    return {
        "gcn": (
            pyg.GCNConv(FEATURES, WIDTH),
            lambda m: [m.lin.weight.T, m.bias],
            lambda b: b.gcn(b.input, WIDTH),
        ),
        "gat": (
            pyg.GATConv(FEATURES, WIDTH // 4, 4),
            lambda m: [m.lin.weight.T, m.att_src[0], m.att_dst[0], m.bias],
            lambda b: b.gat(b.input, WIDTH, 4),
        ),
        "gin": (
            pyg.GINConv(torch.nn.Linear(FEATURES, WIDTH)),
            lambda m: [m.nn.weight.T, m.nn.bias],
            lambda b: b.gin(b.input, WIDTH),
        ),
        "cheb": (
            pyg.ChebConv(FEATURES, WIDTH, K=2),
            lambda m: [m.lins[0].weight.T, m.lins[1].weight.T, m.bias],
            lambda b: b.chebyshev(b.input, WIDTH),
        ),
        "sage": (
            pyg.SAGEConv(FEATURES, WIDTH),
            lambda m: [m.lin_l.weight.T, m.lin_l.bias, m.lin_r.weight.T],
            lambda b: b.sage(b.input, WIDTH),
        ),
        "arma": (
            pyg.ARMAConv(FEATURES, WIDTH),
            lambda m: [m.init_weight[0], m.root_weight[0, 0], m.bias.reshape(-1)],
            lambda b: b.arma(b.input, WIDTH),
        ),
        "graph": (
            pyg.GraphConv(FEATURES, WIDTH),
            lambda m: [m.lin_rel.weight.T, m.lin_rel.bias, m.lin_root.weight.T],
            lambda b: b.k_gnn(b.input, WIDTH),
        ),
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gcn", "gat", "gin", "cheb", "sage", "arma", "graph"])
def test_layers_compute_what_pytorch_geometric_does(assert_onnx_agrees: Callable[..., Any], name: str) -> None:
    torch = pytest.importorskip("torch")
    pyg = pytest.importorskip("torch_geometric.nn")
    torch.manual_seed(0)
    layer, weights, ours = layers(pyg, torch)[name]
    features = np.random.default_rng(0).normal(size=(NODES, FEATURES)).astype(np.float32)
    adjacency = random_graph(1)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_()
        wanted = layer(torch.from_numpy(features), torch.from_numpy(np.stack(adjacency.nonzero()))).numpy()
        b = GnnBuilder(name, FEATURES)
        model = b.build(ours(b))
        assert_onnx_agrees(model)
        found = run(model, [weight.numpy() for weight in weights(layer)], features, adjacency)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)


def test_aggregations_of_a_path_by_hand(assert_onnx_agrees: Callable[..., Any]) -> None:
    b = GnnBuilder("path", 1)
    x = b.input
    model = b.build(b.sum_of_neighbours(x), b.mean_of_neighbours(x), b.max_of_neighbours(x))
    assert_onnx_agrees(model)
    adjacency = np.zeros((NODES, NODES), np.float32)
    adjacency[0, 1] = adjacency[1, 0] = adjacency[1, 2] = adjacency[2, 1] = 1
    features = np.arange(1, NODES + 1, dtype=np.float32)[:, None]
    total, mean, largest = (
        np.asarray(result)[:3, 0].tolist()
        for result in ReferenceEvaluator(model).run(None, {"features": features, "adjacency": adjacency})
    )
    assert (total, mean, largest) == ([2, 4, 2], [2, 2, 2], [2, 3, 2])


@pytest.mark.parametrize("task", nas_bench_graph.TASKS)
def test_samples_are_valid_and_keep_their_parameters_in_the_graph(
    assert_onnx_agrees: Callable[..., Any], task: str
) -> None:
    for spec in nas_bench_graph.sample(3, 5):
        model = nas_bench_graph.build(spec, task)
        assert_onnx_agrees(model)
        graph = read(model)
        assert (graph.params, graph.macs) == stored_costs(model)
        assert graph.unknown_ops == ()


def test_parameters_by_hand() -> None:
    """Cora: GCN and GIN from the raw features, a linear layer and a Chebyshev filter on them, two layers after."""
    hidden = 1433 * 256 + 256
    cell = 2 * hidden + (256 * 256 + 256) + (2 * 256 * 256 + 256) + 2 * (2 * 256)
    after = (512 * 256 + 256) + (256 * 7 + 7)
    assert stored_costs(nas_bench_graph.build(SPEC, "cora"))[0] == cell + after


def test_operations_and_tasks_give_different_graphs() -> None:
    specs = [f"0-1-2-3|gcn-{op}-gcn-fc" for op in nas_bench_graph.OPERATIONS]
    hashes = {read(nas_bench_graph.build(spec, "cora")).hash for spec in specs}
    hashes |= {read(nas_bench_graph.build(SPEC, task)).hash for task in nas_bench_graph.TASKS}
    assert len(hashes) == len(nas_bench_graph.OPERATIONS) + len(nas_bench_graph.TASKS)


def test_samples_are_distinct_and_repeatable() -> None:
    specs = nas_bench_graph.sample(500, 1)
    assert specs == nas_bench_graph.sample(500, 1) != nas_bench_graph.sample(500, 2)
    assert len(set(specs)) == 500
    for n in (-1, 10_000_000):
        with pytest.raises(DataError, match="can sample"):
            nas_bench_graph.sample(n, 0)


@pytest.mark.parametrize(
    "spec",
    ["", "0-0-1-2", "0-0-1-2|gcn-gin-fc", "0-0-2-1|gcn-gin-fc-fc", "0-0-1-2|gcn-gin-fc-conv", "0-0-0-0|skip-fc-fc-fc"],
)
def test_malformed_specs_are_refused(spec: str) -> None:
    with pytest.raises(DataError, match="expected"):
        nas_bench_graph.build(spec, "cora")


def test_unknown_task_and_missing_file_are_named() -> None:
    with pytest.raises(DataError, match="no task 'mnist'"):
        nas_bench_graph.build(SPEC, "mnist")
    with pytest.raises(DataError, match="is needed, got none"):
        nas_bench_graph.read_labels({}, "cora")


def test_extract_has_every_network(benchmarks_root: Path) -> None:
    path = benchmarks_root / "nas_bench_graph" / nas_bench_graph.TABLE
    specs, accuracy = nas_bench_graph.read_labels({path.name: path}, "cora")
    assert len(specs) == len(set(specs)) == 26_206
    assert accuracy.max() == pytest.approx(83.1333)
    assert len(nas_bench_graph.read_labels({path.name: path}, "proteins")[0]) == 2_021


def scalar_pickle(entries: dict[int, dict[str, float]]) -> bytes:
    """The layout of the published files: plain floats, and parameters as numpy scalars, protocol 3."""
    table = {key: values | {"para": np.float64(values["para"])} for key, values in entries.items()}
    content = pickle.dumps(table, protocol=3)
    return content.replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")


def test_published_pickles_are_read_without_unpickling(tmp_path: Path) -> None:
    path = tmp_path / "cora.bench"
    path.write_bytes(scalar_pickle({78888: {"perf": 0.75, "para": 1.0}}))
    with pytest.raises(DataError, match="an output is the input itself"):
        nas_bench_graph.read_labels({path.name: path}, "cora")
    entries = {
        0: {"perf": 0.5, "para": 1.736711},
        31273: {"perf": 0.625, "para": 2.0},
    }
    path.write_bytes(scalar_pickle(entries))
    specs, accuracy = nas_bench_graph.read_labels({path.name: path}, "cora")
    assert specs == ["0-0-0-0|gat-gat-gat-gat", "0-0-1-2|gcn-gin-fc-cheb"]
    assert accuracy.tolist() == [50.0, 62.5]
    params, _ = nas_bench_graph.published_costs({path.name: path}, "cora")
    assert params[0] == 1_736_711 - 4 * 512 == stored_costs(nas_bench_graph.build(specs[0], "cora"))[0]


def test_published_files_are_read_from_the_wheel(tmp_path: Path) -> None:
    path = tmp_path / nas_bench_graph.WHEEL
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("nas_bench_graph/light/cora.bench", scalar_pickle({31273: {"perf": 0.625, "para": 2.0}}))
        wheel.writestr("nas_bench_graph/readbench.py", "import pickle")
    specs, accuracy = nas_bench_graph.read_labels({path.name: path}, "cora")
    assert (specs, accuracy.tolist()) == ([SPEC], [62.5])
    with pytest.raises(DataError, match=r"expected one file light/arxiv\.bench, got 0"):
        nas_bench_graph.read_labels({path.name: path}, "arxiv")


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("touched"),))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (pickle.dumps({1: {"perf": Evil()}}, protocol=3), "expected numbers only"),
        (pickle.dumps({1: {"perf": Evil()}}, protocol=4), "has no place"),
        (pickle.dumps({1: {"perf": np.float32(1)}}, protocol=3), "expected float64|expected numbers"),
        (pickle.dumps({1: {"perf": [1.0]}}, protocol=3), "has no place"),
        (pickle.dumps({1: {"perf": float("nan")}}, protocol=3), "finite"),
        (pickle.dumps({1: 2}, protocol=3), "with a dict"),
        (pickle.dumps(1, protocol=3), "expected a dict"),
        (pickle.dumps({99999: {"perf": 0.5, "para": 1.0}}, protocol=3), "no network"),
        (pickle.dumps({11: {"perf": 0.5}}, protocol=3), "no network"),
        (b"", "not a pickled table"),
        (b"\x80\x03}q\x00(K\x01", "not a pickled table|cut off"),
        (b"not a pickle", "not a pickled table|no place"),
    ],
)
def test_other_pickles_are_refused(
    content: bytes, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "cora.bench"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        nas_bench_graph.read_labels({path.name: path}, "cora")
    assert not (tmp_path / "touched").exists()


def test_pickle_length_is_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "cora.bench"
    path.write_bytes(pickle.dumps({11: {"perf": 0.5, "para": 1.0}}, protocol=3))
    monkeypatch.setattr(pickled_numbers, "_MAX_OPCODES", 5)
    with pytest.raises(DataError, match="more than 5 opcodes"):
        nas_bench_graph.read_labels({path.name: path}, "cora")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("link,ops\n", "no column cora_test"),
        ("link,ops,cora_test\n", "holds no row"),
        ("link,ops,cora_test\n0-0-0-0,gcn-gcn\n", "too few fields"),
        ("link,ops,cora_test\n0-0-0-0,gcn-gcn-gcn,50\n", "expected inputs"),
        ("link,ops,cora_test\n0-0-0-0,fc-fc-fc-fc,x\n", "expected a number"),
        ("link,ops,cora_test\n" + "0-0-0-0,fc-fc-fc-fc,50\n" * 2, "occurs twice"),
    ],
)
def test_damaged_extracts_are_refused(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / nas_bench_graph.TABLE
    path.write_bytes(gzip.compress(text.encode()))
    with pytest.raises(DataError, match=message):
        nas_bench_graph.read_labels({path.name: path}, "cora")
    path.write_bytes(gzip.compress(text.encode())[:-6])
    with pytest.raises(DataError, match="cut off"):
        nas_bench_graph.read_labels({path.name: path}, "cora")
    path.write_bytes(b"plain")
    with pytest.raises(DataError, match="not a readable gzip table"):
        nas_bench_graph.read_labels({path.name: path}, "cora")


def test_array_builder_refuses_what_does_not_fit() -> None:
    b = GnnBuilder("wrong", 4)
    wrongs: list[Callable[[], Value]] = [
        lambda: b.concat([b.input, b.adjacency], axis=0),
        lambda: b.reshape(b.input, (3,)),
        lambda: b.transpose(b.input, (0, 0)),
        lambda: b.binary("Add", b.input, b.adjacency),
        lambda: b.part(b.input, 1, 2, 9),
    ]
    for wrong in wrongs:
        with pytest.raises(GraphError):
            wrong()
