"""Graphs that run: against torch with the same weights, by shapes, and what random instantiations tell."""

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from archgauge.datasets import (
    accel_nasbench,
    darts,
    enas_dvae,
    nas_bench_101,
    nas_bench_201,
    nas_bench_macro,
    nats_bench_sss,
    ofa_mbv3,
)
from archgauge.encoders import onnx_reader
from archgauge.encoders.errors import GraphError
from archgauge.encoders.executable import Executable, UnfitError
from archgauge.encoders.graph import ArchGraph, Node
from archgauge.encoders.proxies import PROXY_NAMES, ProxiesEncoder, proxies
from archgauge.encoders.reading import read
from archgauge.encoders.registry import encode_table, get_encoder
from archgauge.predictor.metrics import spearman


class Small(nn.Module):
    """All weights have different shapes, so that each can be found again in the graph."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.first = nn.Conv2d(8, 12, 3, stride=2, padding=1, bias=False)
        self.scaled = nn.BatchNorm2d(12)
        self.deep = nn.Conv2d(12, 12, 5, padding=4, dilation=2, groups=12, bias=False)
        self.point = nn.Conv2d(12, 20, 1, bias=False)
        self.gate = nn.Linear(20, 6, bias=False)
        self.open = nn.Linear(6, 20, bias=False)
        self.norm = nn.LayerNorm(20)
        self.last = nn.Linear(40, 5, bias=False)

    def forward(self, x):
        x = torch.relu(self.stem(x))
        x = torch.relu(self.scaled(self.first(x)))
        x = x + nn.functional.hardswish(self.deep(x))
        x = nn.functional.max_pool2d(self.point(x), 3, 2, 1)
        gate = torch.sigmoid(self.open(torch.nn.functional.silu(self.gate(x.mean((2, 3))))))
        x = x * gate[:, :, None, None]
        left = nn.functional.avg_pool2d(x, 2).flatten(2).transpose(1, 2)
        left = self.norm(nn.functional.scaled_dot_product_attention(left, left, left)).mean(1)
        return self.last(torch.cat([left, x.amax((2, 3))], 1))


def test_it_computes_what_torch_computes():
    torch.manual_seed(0)
    module = Small().train()  # batch norms as at the start of training
    graph = read(Small().eval(), input_shapes=[(1, 3, 16, 16)])
    given = {}
    for parameter in module.parameters():
        given.setdefault(tuple(parameter.shape), parameter.detach())

    def draw(at, shape):
        return given[shape[::-1]].T if len(shape) == 2 else given[shape]

    x = torch.randn(6, 3, 16, 16)
    (found,) = Executable(graph, draw).run([x])
    torch.testing.assert_close(found, module(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "module", [nas_bench_101, nas_bench_201, nas_bench_macro, nats_bench_sss, accel_nasbench, ofa_mbv3, enas_dvae]
)
def test_every_node_of_a_space_has_the_shape_the_graph_says(module):
    graph = onnx_reader.read(module.build(module.sample(1, 1)[0], module.TASKS[0]))
    if not any(node.op == "Input" for node in graph.nodes):
        pytest.skip("a dead network")
    shapes = [graph.nodes[at].shape for at in Executable.random(graph, 0).inputs]
    seen = []
    with torch.no_grad():  # `run` compares the shape of every node with the graph's
        executable = Executable.random(graph, 0)
        executable.run([torch.randn(2, *shape[1:]) for shape in shapes], lambda at, node, value: seen.append(at))
    assert len(seen) == sum(node.op != "Input" for node in graph.nodes)


def test_real_models_run():
    folder = onnx.__file__.replace("__init__.py", "backend/test/data/light")
    graph = read(f"{folder}/light_shufflenet.onnx")
    with torch.no_grad():
        (out,) = Executable.random(graph, 0).run([torch.randn(2, 3, 224, 224)])
    assert out.shape == (2, 1000)
    assert torch.isfinite(out).all()


def chain(*rest, size=16):
    nodes = [Node("Input", (), (1, 3, size, size))]
    conv = Node("Conv", (0,), (1, 8, size, size), (("pads", (1, 1, 1, 1)),), ((8, 3, 3, 3),), params=216)
    nodes += [conv, Node("Relu", (1,), conv.shape), *rest]
    return ArchGraph(tuple(nodes), (len(nodes) - 1,))


def reshaped(before, after, smaller, batch=2):
    """Sizes that a Reshape from `before` to `after` gives for the input `smaller`."""
    graph = ArchGraph((Node("Input", (), before), Node("Reshape", (0,), after)), (1,))
    (out,) = Executable.random(graph, 0).run([torch.zeros(batch, *smaller[1:])])
    return tuple(out.shape)


def test_reshapes_follow_a_batch_and_smaller_inputs():
    assert reshaped((1, 6, 8, 8), (1, 2, 3, 8, 8), (1, 6, 4, 4)) == (2, 2, 3, 4, 4)
    assert reshaped((1, 6, 8, 8), (1, 6, 64), (1, 6, 4, 4)) == (2, 6, 16)
    assert reshaped((1, 6, 1, 1), (1, 6), (1, 6, 1, 1)) == (2, 6)
    assert reshaped((1, 8, 8, 4), (64, 4), (1, 8, 8, 4)) == (128, 4)
    assert reshaped((1, 6), (1, 6, 1, 1), (1, 6)) == (2, 6, 1, 1)
    with pytest.raises(UnfitError, match="reshape"):
        reshaped((1, 6, 8), (1, 6, 2, 4), (1, 6, 6))


def test_tied_weights_are_one_weight():
    first = Node("Conv", (0,), (1, 3, 4, 4), (), ((3, 3, 1, 1),))
    graph = ArchGraph((Node("Input", (), (1, 3, 4, 4)), first, first._replace(inputs=(1,), tied=1)), (1, 2))
    x = torch.randn(2, 3, 4, 4)
    executable = Executable.random(graph, 0)
    one, two = executable.run([x])
    weight = executable.weight(1, graph.nodes[1])
    torch.testing.assert_close(two, nn.functional.conv2d(nn.functional.conv2d(x, weight), weight))
    assert (one != two).any()


def test_what_cannot_run_says_which_node():
    odd = chain(Node("my.domain::Odd", (2,), (1, 8, 16, 16)))
    with pytest.raises(UnfitError, match=r"node 3.*my.domain::Odd"):
        Executable.random(odd, 0).run([torch.randn(2, 3, 16, 16)])
    wrong = chain(Node("GlobalAveragePool", (2,), (1, 9, 1, 1)))
    with pytest.raises(UnfitError, match=r"node 3.*\(2, 8, 1, 1\).*\(2, 9, 1, 1\)"):
        Executable.random(wrong, 0).run([torch.randn(2, 3, 16, 16)])
    words = ArchGraph((Node("Input", (), (1, 7), (("type", "int"),)),), (0,))
    with pytest.raises(GraphError, match="input 0"):
        Executable.random(words, 0)


def test_a_network_that_cannot_run_spoils_no_batch():
    good = chain(Node("GlobalAveragePool", (2,), (1, 8, 1, 1)))
    odd = chain(Node("my.domain::Odd", (2,), (1, 8, 16, 16)))
    found = proxies(odd)
    assert "my.domain::Odd" in found.reason
    assert np.isnan(found.values).all()
    constant = proxies(ArchGraph((Node("Zero", (), (1, 10)),), (0,)))
    assert constant.reason == "the network has no input"
    huge = proxies(chain(Node("Conv", (2,), (1, 8, 16, 16), (), ((30_000, 8_000, 1, 1),), params=240_000_000)))
    assert "weights" in huge.reason
    table = ProxiesEncoder().encode([odd, good, odd])
    assert np.isfinite(table).all()
    assert table[:, -1].tolist() == [1, 0, 1]
    assert table[0, :-1].tolist() == [0] * len(PROXY_NAMES)


def test_the_same_seed_gives_the_same_bytes():
    graph = onnx_reader.read(nas_bench_201.build(nas_bench_201.sample(1, 3)[0], "cifar10"))
    one, two, other = proxies(graph), proxies(graph), proxies(graph, seed=1)
    assert not one.reason
    assert one == two
    assert one.values != other.values
    assert one["naswot"] == one.values[0]
    assert one.shape == (1, 3, 16, 16)


def test_smaller_inputs_are_taken_where_they_fit():
    pooled = chain(Node("GlobalAveragePool", (2,), (1, 8, 1, 1)), size=224)
    assert proxies(pooled).shape == (1, 3, 32, 32)
    flat = 8 * 40 * 40
    weight = Node("Linear", (3,), (1, 10), (), ((flat, 10),), params=flat * 10)
    fixed = chain(Node("Reshape", (2,), (1, flat)), weight, size=40)
    assert proxies(fixed).shape == (1, 3, 40, 40)


def test_wider_networks_tell_more_inputs_apart():
    def wide(width):
        conv = Node("Conv", (0,), (1, width, 8, 8), (("pads", (1, 1, 1, 1)),), ((width, 3, 3, 3),))
        nodes = (Node("Input", (), (1, 3, 8, 8)), conv, Node("Relu", (1,), conv.shape))
        return proxies(ArchGraph((*nodes, Node("GlobalAveragePool", (2,), (1, width, 1, 1))), (3,)))

    scores = [wide(width) for width in (4, 16, 64)]
    assert scores[0]["naswot"] < scores[1]["naswot"] < scores[2]["naswot"]


def test_the_encoder_is_known_by_name_and_cached(tmp_path):
    encoder = get_encoder("proxies")
    assert encoder.columns == (*PROXY_NAMES, "proxies_missing")
    assert len(encoder.monotone) == len(encoder.columns)
    graphs = [chain(Node("GlobalAveragePool", (2,), (1, 8, 1, 1)))]
    table = encode_table(graphs, encoder, cache=tmp_path)
    assert table.tolist() == encode_table(graphs, encoder, cache=tmp_path).tolist()
    assert list((tmp_path / "encodings").glob("proxies-v*.npz"))


@pytest.mark.slow
def test_proxies_rank_nas_bench_201(benchmarks_root):
    from archgauge.datasets.registry import load_benchmark

    bench = load_benchmark("nas_bench_201", "cifar10", root=benchmarks_root, limit=60, seed=1)
    rows = ProxiesEncoder().encode(bench.graphs)
    there = rows[:, -1] == 0
    assert there.mean() > 0.8
    for name in ("naswot", "jacobian"):
        assert spearman(bench.accuracy[there], rows[there, PROXY_NAMES.index(name)]) > 0.4


def test_darts_networks_run():
    graph = onnx_reader.read(darts.SPACES["oncenas"].build(darts.SPACES["oncenas"].sample(1, 0)[0], "cifar10"))
    assert not proxies(graph).reason
