import json
import pickle
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from archgauge.datasets import graph_store, nas_bench_201
from archgauge.datasets.graph_store import GraphStore
from archgauge.encoders import onnx_reader
from archgauge.encoders.errors import DataError
from archgauge.encoders.graph import ArchGraph, Node

sizes = st.integers(0, 5) | st.integers(0, 2**40)
shapes = st.lists(sizes, max_size=4).map(tuple)
# 1, 1.0 and True, 0.0 and -0.0 are equal in Python but not in a hash; NaN is not equal to itself.
numbers = st.sampled_from([0, 1, 1.0, True, 0.0, -0.0, float("nan"), float("inf"), 2**70]) | st.floats() | st.integers()
values = (
    numbers
    | st.text(max_size=5)
    | st.lists(numbers, max_size=3).map(tuple)
    | st.lists(st.text(), max_size=2).map(tuple)
)
attributes = st.lists(st.tuples(st.sampled_from(["axis", "pads", "é\n"]), values), max_size=2).map(tuple)


@st.composite
def graphs(draw: st.DrawFn) -> ArchGraph:
    nodes: list[Node] = []
    for position in range(draw(st.integers(0, 6))):
        earlier = st.integers(0, position - 1)
        nodes.append(
            Node(
                draw(st.sampled_from(["Conv", "Relu", "Add", "my::Op\t"])),
                tuple(draw(st.lists(earlier, max_size=3))) if position else (),
                draw(shapes),
                draw(attributes),
                draw(st.lists(shapes, max_size=2).map(tuple)),
                draw(st.just(-1) | earlier) if position else -1,
                draw(sizes),
            )
        )
    outputs = draw(st.lists(st.integers(0, len(nodes) - 1), max_size=3)) if nodes else []
    return ArchGraph(tuple(nodes), tuple(outputs))


def exact(graph: ArchGraph) -> str:
    """Everything a graph holds; unlike a comparison, it tells 1 from 1.0 and finds NaN equal to NaN."""
    return repr((graph.hash, graph.nodes, graph.outputs))


def chain(*channels: int) -> ArchGraph:
    nodes = [Node("Input", (), (1, channels[0], 8, 8))]
    for at, (before, after) in enumerate(pairwise(channels)):
        nodes.append(
            Node("Conv", (at,), (1, after, 8, 8), (("pads", (1, 1, 1, 1)),), ((after, before, 3, 3),), -1, after)
        )
    return ArchGraph(tuple(nodes), (len(nodes) - 1,))


FIVE = [chain(3, 8), chain(3, 16, 16, 8), chain(3, 8), chain(3), chain(3, 16, 16, 16, 16)]


@settings(max_examples=80)
@given(st.lists(graphs(), max_size=5))
def test_round_trip_is_exact(tmp_path_factory: pytest.TempPathFactory, given_graphs: list[ArchGraph]) -> None:
    folder = tmp_path_factory.mktemp("store")
    store = GraphStore.from_graphs(given_graphs)
    store.save(folder / "a")
    store.save_compressed(folder / "a.xz")
    expected = [exact(graph) for graph in given_graphs]
    for copy in (store, GraphStore.load(folder / "a"), GraphStore.load_compressed(folder / "a.xz")):
        assert [exact(graph) for graph in copy] == expected
        assert copy.hashes == tuple(graph.hash for graph in given_graphs)
        assert copy.params.tolist() == [graph.params for graph in given_graphs]
        assert copy.sizes.tolist() == [len(graph) for graph in given_graphs]


@settings(max_examples=40)
@given(st.lists(graphs(), min_size=1, max_size=5), st.data())
def test_bytes_depend_on_the_graphs_alone(
    tmp_path_factory: pytest.TempPathFactory, given_graphs: list[ArchGraph], data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("store")
    order = data.draw(st.lists(st.integers(0, len(given_graphs) - 1), max_size=6))
    cut = data.draw(st.integers(0, len(order)))
    whole = GraphStore.from_graphs(given_graphs)
    picked = [given_graphs[at] for at in order]
    GraphStore.from_graphs(picked).save(folder / "direct")
    whole.select(order).save(folder / "view")
    GraphStore.concat([whole.select(order[:cut]), GraphStore.from_graphs(picked[cut:])]).save(folder / "concat")
    GraphStore.from_graphs(whole.select(order)).save(folder / "again")
    for name in ("view", "concat", "again"):
        assert (folder / name).read_bytes() == (folder / "direct").read_bytes()


def test_rebuilt_hash_is_that_of_the_content() -> None:
    rebuilt = GraphStore.from_graphs(FIVE)[1]
    assert ArchGraph(rebuilt.nodes, rebuilt.outputs).hash == rebuilt.hash == FIVE[1].hash


def test_is_a_sequence_with_views() -> None:
    store = GraphStore.from_graphs(FIVE)
    assert len(store) == 5
    assert store[-1] == FIVE[-1]
    assert list(store[1:4]) == FIVE[1:4]
    assert list(store[::-2]) == FIVE[::-2]
    assert list(store[1:].select([2, 0])) == [FIVE[3], FIVE[1]]
    assert list(store.select(np.array([True, False, False, True, False]))) == [FIVE[0], FIVE[3]]
    assert store[1:].select([-1]).hashes == (FIVE[-1].hash,)
    assert store.select([1, 4]).params.tolist() == [FIVE[1].params, FIVE[4].params]
    assert store.index(FIVE[3]) == 3
    with pytest.raises(IndexError):
        store[5]
    with pytest.raises(IndexError, match="index 9 of 5 graphs"):
        store.select([0, 9])
    with pytest.raises(TypeError, match="integers or a mask"):
        store.select(np.array([0.5]))


def test_empty_store(tmp_path: Path) -> None:
    GraphStore.from_graphs([]).save(tmp_path / "none")
    store = GraphStore.load(tmp_path / "none")
    assert (len(store), store.hashes, store.params.tolist(), list(GraphStore.concat([]))) == (0, (), [], [])


def test_repetition_costs_two_bytes_a_node() -> None:
    once, often = GraphStore.from_graphs(FIVE), GraphStore.from_graphs(FIVE * 200)
    nodes = sum(map(len, FIVE)) * 199
    graphs_more = 5 * 199
    assert often.nbytes - once.nbytes == 2 * nodes + graphs_more * (32 + 8 + 4)


def test_more_rows_than_two_bytes_can_number() -> None:
    wide = [
        ArchGraph(tuple(Node("Input", (), (at,)) for at in range(start, start + 700)), (0,))
        for start in range(0, 70_000, 700)
    ]
    store = GraphStore.from_graphs(wide)
    assert store[99].nodes == wide[99].nodes
    assert GraphStore.concat([store[:50], store[50:]])[99].nodes == wide[99].nodes


def test_survives_another_process() -> None:
    store = GraphStore.from_graphs(FIVE)
    assert next(iter(store)) == FIVE[0]  # fills the shared nodes, which do not travel
    assert list(pickle.loads(pickle.dumps(store.select([4, 1])))) == [FIVE[4], FIVE[1]]


def test_kept_nodes_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph_store, "_KEPT_NODES", 3)
    assert [exact(graph) for graph in GraphStore.from_graphs(FIVE)] == [exact(graph) for graph in FIVE]


def test_file_is_safetensors(tmp_path: Path) -> None:
    GraphStore.from_graphs(FIVE).save(tmp_path / "five.safetensors")
    arrays = safetensors.numpy.load_file(tmp_path / "five.safetensors")
    assert arrays["hashes"][1].tobytes().hex() == FIVE[1].hash
    assert arrays["starts"].tolist() == [0, 2, 6, 8, 9, 14]


def test_compressed_is_deterministic_and_small(tmp_path: Path) -> None:
    specs = nas_bench_201.sample(40, seed=0)
    store = GraphStore.from_graphs(onnx_reader.read(nas_bench_201.build(spec, "cifar10")) for spec in specs)
    store.save_compressed(tmp_path / "a.xz")
    GraphStore.concat([store[:7], store[7:]]).save_compressed(tmp_path / "b.xz")
    assert (tmp_path / "a.xz").read_bytes() == (tmp_path / "b.xz").read_bytes()
    assert (tmp_path / "a.xz").stat().st_size < 400 * len(specs)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.xz", "b.xz"]


@pytest.mark.parametrize("constant", ["STORE_VERSION", "GRAPH_VERSION"])
def test_other_version_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, constant: str) -> None:
    store = GraphStore.from_graphs(FIVE)
    with monkeypatch.context() as patch:
        patch.setattr(graph_store, constant, 999)
        store.save(tmp_path / "old")
        store.save_compressed(tmp_path / "old.xz")
    with pytest.raises(DataError, match=r"999.*build it again"):
        GraphStore.load(tmp_path / "old")
    with pytest.raises(DataError, match=r"999.*build it again"):
        GraphStore.load_compressed(tmp_path / "old.xz")


def test_damaged_files_are_data_errors(tmp_path: Path) -> None:
    GraphStore.from_graphs(FIVE).save(tmp_path / "good")
    GraphStore.from_graphs(FIVE).save_compressed(tmp_path / "good.xz")
    good, compressed = (tmp_path / "good").read_bytes(), (tmp_path / "good.xz").read_bytes()
    bad = tmp_path / "bad"
    with pytest.raises(DataError, match="bad"):
        GraphStore.load(bad)
    for length in range(0, len(good), 97):
        bad.write_bytes(good[:length])
        with pytest.raises(DataError, match="bad"):
            GraphStore.load(bad)
    for length in range(0, len(compressed), 31):
        bad.write_bytes(compressed[:length])
        with pytest.raises(DataError, match="bad"):
            GraphStore.load_compressed(bad)
    flipped = bytearray(compressed)
    flipped[len(flipped) // 2] ^= 1
    bad.write_bytes(flipped)
    with pytest.raises(DataError, match="bad"):
        GraphStore.load_compressed(bad)


def test_rows_that_do_not_exist_are_data_errors(tmp_path: Path) -> None:
    path = tmp_path / "store"
    GraphStore.from_graphs(FIVE).save(path)
    content = bytearray(path.read_bytes())
    length = int.from_bytes(content[:8], "little")
    start, stop = json.loads(content[8 : 8 + length])["codes"]["data_offsets"]
    content[8 + length + start : 8 + length + stop] = b"\xff" * (stop - start)
    path.write_bytes(content)
    with pytest.raises(DataError, match="graph 1 of the store is damaged"):
        GraphStore.load(path)[1]


def test_values_that_no_graph_may_hold() -> None:
    odd = ArchGraph((Node("Input", (), (1,), (("bytes", b"x"),)),), (0,))  # type: ignore[arg-type]
    with pytest.raises(DataError, match=r"node 0 \(Input\)"):
        GraphStore.from_graphs([odd])


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(RuntimeError), graph_store.replacing(path) as file:  # noqa: PT012
        file.write(b"half")
        raise RuntimeError
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
