"""Torch modules: exported without weights, read exactly, and left as they were."""

import io
import sys

import onnx
import pytest

from archgauge.encoders import torch_reader
from archgauge.encoders.errors import ReadError
from archgauge.encoders.onnx_reader import read
from archgauge.encoders.torch_reader import BUFFERS_KEY, export, read_module

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript", reason="needs the extra torch-export")
nn = torch.nn


def small_cnn() -> "torch.nn.Module":
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 10),
    )


def token_mlp() -> "torch.nn.Module":
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 8, bias=False))


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(4, 4, 3, padding=1)
        self.second = nn.Conv2d(4, 4, 3, padding=1, groups=2, bias=False)

    def forward(self, x):
        return x + self.second(torch.relu(self.first(x)))


class Block(nn.Module):
    """A pre-norm transformer block with a position table that is a buffer."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.norm, self.attention = nn.LayerNorm(width), nn.MultiheadAttention(width, 4, batch_first=True)
        self.mlp = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )
        self.register_buffer("positions", torch.randn(1, 12, width))

    def forward(self, x):
        x = x + self.positions
        y = self.norm(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        return x + self.mlp(x)


class Fork(nn.Module):
    """Control flow that depends on values: no exporter follows it."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x):
        while x.sum().item() > 0:
            raise RuntimeError("a\nforward that fails")
        raise RuntimeError("forward fails")


class SizedByBuffer(nn.Module):
    """Takes sizes from a buffer, which `torch.export` does not follow."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 6)
        self.register_buffer("sizes", torch.tensor([2, 3]))

    def forward(self, x):
        return self.linear(x).reshape(self.sizes.tolist())


class PlainTensor(nn.Module):
    """Holds a tensor that is neither parameter nor buffer, which stays on the CPU."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.scale = nn.Linear(6, 6), torch.rand(6)

    def forward(self, x):
        return torch.relu(self.linear(x)) * self.scale


def counted(module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def ops(graph) -> list[str]:
    return [node.op for node in graph.nodes]


def test_a_small_cnn_is_read_exactly() -> None:
    module = small_cnn()
    graph = read_module(module, (1, 3, 16, 16))
    assert graph.params == counted(module) == 3 * 8 * 9 + 16 + 90
    assert graph.macs == 16 * 16 * 8 * 27 + 80
    assert ops(graph)[:3] == ["Input", "Conv", "Relu"]
    assert ops(graph)[-1] == "Linear"
    assert graph.unknown_ops == ()


def test_a_residual_block_keeps_its_wiring_and_biases() -> None:
    graph = read_module(Residual(), (1, 4, 8, 8))
    assert ops(graph) == ["Input", "Conv", "Relu", "Conv", "Add"]
    assert sorted(graph.nodes[-1].inputs) == [0, 3]
    assert graph.nodes[1].attribute("bias") == 1
    assert graph.nodes[3].attribute("bias") is None, "a convolution without a bias must not get one"
    assert graph.nodes[3].attribute("group") == 2


def test_a_transformer_block_counts_learned_numbers_only() -> None:
    module = Block()
    model = export(module, (1, 12, 16))
    graph = read(model)
    assert graph.params == counted(module)
    assert graph.unknown_ops == ()
    assert {entry.key: entry.value for entry in model.metadata_props} == {BUFFERS_KEY: "positions"}


def test_the_model_carries_no_weights_and_no_traces() -> None:
    model = export(small_cnn(), (1, 3, 16, 16))
    assert [entry.version for entry in model.opset_import] == [20]
    assert not model.metadata_props
    assert not model.functions
    learned = {tensor.name: tensor for tensor in model.graph.initializer if tensor.data_location}
    assert list(learned["0.weight"].dims) == [8, 3, 3, 3]
    for tensor in learned.values():
        assert not tensor.raw_data
        assert not tensor.float_data
        assert [(entry.key, entry.value) for entry in tensor.external_data] == [("location", "weights.bin")]
    for tensor in model.graph.initializer:
        assert tensor.name in learned or tensor.data_type == onnx.TensorProto.INT64
    assert not any(node.doc_string or node.metadata_props for node in model.graph.node)
    assert len(model.SerializeToString()) < 6000


def test_the_module_is_left_as_it_was() -> None:
    module = small_cnn().train()
    module[0].eval()
    before = {name: (id(value), value.clone()) for name, value in module.state_dict(keep_vars=True).items()}
    modes = [part.training for part in module.modules()]
    export(module, (1, 3, 16, 16))
    assert [part.training for part in module.modules()] == modes
    for name, value in module.state_dict(keep_vars=True).items():
        assert id(value) == before[name][0]
        assert torch.equal(value, before[name][1])
        assert value.device.type == "cpu"


@pytest.mark.slow
def test_meta_real_and_half_modules_give_one_graph() -> None:
    with torch.device("meta"):
        absent = small_cnn()
    real = small_cnn()
    assert read_module(absent, (1, 3, 16, 16)) == read_module(real, (1, 3, 16, 16))
    assert read_module(real.half(), (1, 3, 16, 16)) == read_module(absent, (1, 3, 16, 16))


@pytest.mark.slow
def test_the_same_module_gives_the_same_bytes() -> None:
    one, two = (export(small_cnn(), (1, 3, 16, 16)).SerializeToString(deterministic=True) for _ in range(2))
    assert one == two


def test_named_inputs_and_types() -> None:
    class Table(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.head = nn.Embedding(50, 8), nn.Linear(8, 3)

        def forward(self, tokens, scale=None):
            return self.head(self.table(tokens) * scale)

    module = Table()
    named = export(module, {"tokens": (1, 7), "scale": (1, 7, 1)}, dtypes={"tokens": "int64"})
    assert [value.name for value in named.graph.input] == ["tokens", "scale"]
    listed = export(module, [(1, 7), (1, 7, 1)], dtypes=["int64", "float32"])
    assert read(named) == read(listed)
    assert read(named).params == counted(module)


def test_tied_parameters_count_once() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one = nn.Linear(8, 8, bias=False)
            self.two = nn.Linear(8, 8, bias=False)
            self.two.weight = self.one.weight

        def forward(self, x):
            return self.two(torch.relu(self.one(x)))

    assert read_module(Tied(), (1, 8)).params == 64


def test_a_plain_tensor_takes_the_second_road(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch_reader, "_export_traced")
    graph = read_module(PlainTensor(), (1, 6))
    assert graph.params == 42
    assert ops(graph) == ["Input", "Linear", "Relu", "Mul"]


@pytest.mark.slow
def test_sizes_read_from_a_buffer_take_the_third_road() -> None:
    graph = read_module(SizedByBuffer(), (1, 6))
    assert graph.params == 42
    assert graph.nodes[graph.outputs[0]].shape == (2, 3)


@pytest.mark.slow
def test_the_tracing_exporter_gives_the_same_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    cases = ((small_cnn, (1, 3, 16, 16)), (Residual, (1, 4, 8, 8)), (token_mlp, (1, 5, 8)))
    expected = [read_module(make(), shape) for make, shape in cases]

    def broken(*_: object) -> None:
        raise RuntimeError("not today")

    monkeypatch.setattr(torch_reader, "_export_dynamo", broken)
    for (make, shape), graph_before in zip(cases, expected, strict=True):
        module = make()
        graph = read_module(module, shape)
        assert graph == graph_before
        assert graph.params == counted(module)


def test_a_module_that_cannot_be_exported_gives_one_error(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ReadError) as caught:
        export(Fork(), (1, 4))
    text = str(caught.value)
    assert text.startswith("Fork: the module cannot be exported")
    assert "meta device" in text
    assert "placeholder weights" in text
    assert "tracing exporter" in text
    assert "forward" in text
    assert "\n" not in text
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("shapes", "dtypes", "message"),
    [
        ((), None, "empty"),
        ((1, 0, 4), None, "positive"),
        (["1x3"], None, "input shapes like"),
        ((1, 4), "floaty", "unknown element type"),
        ((1, 4), ["int64", "int64"], "2 entries, expected 1"),
        ({"x": (1, 4)}, {"y": "int64"}, "dtypes names y"),
    ],
)
def test_wrong_arguments_are_named(shapes: object, dtypes: object, message: str) -> None:
    with pytest.raises(ReadError, match=message):
        export(nn.Linear(4, 4), shapes, dtypes=dtypes)


def test_something_else_than_a_module_is_refused() -> None:
    with pytest.raises(ReadError, match=r"expected a torch\.nn\.Module, got BytesIO"):
        export(io.BytesIO(), (1, 4))


def test_missing_onnxscript_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ReadError, match=r"archgauge\[torch-export\]"):
        export(nn.Linear(4, 4), (1, 4))
