"""Reading files: every promise about input, every typed error, hostile files, costs against torch."""

import random
import resource
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import TensorProto, helper, numpy_helper

from archgauge.datasets import nas_bench_201, nas_bench_macro
from archgauge.datasets.onnx_builder import OnnxBuilder
from archgauge.encoders import onnx_file
from archgauge.encoders.errors import LimitError, ReadError, UnreadableFileError
from archgauge.encoders.graph import ArchGraph
from archgauge.encoders.onnx_reader import BUFFERS_KEY, Limits, read


def parsed(text: str, opset: int = 20, ir: int = 10) -> onnx.ModelProto:
    return onnx.parser.parse_model(f'<ir_version: {ir}, opset_import: ["": {opset}]> {text}')


def small(width: int = 4, inputs: str = "float[N,4,8,8] x") -> onnx.ModelProto:
    """A convolution, a batch norm, a relu, with weights inside."""
    model = parsed(
        f"g ({inputs}) => (float[] y) {{ a = Conv<pads=[1,1,1,1]>(x, k) "
        "n = BatchNormalization(a, s, b, m, v) y = Relu(n) }"
    )
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(width, 4, 3, 3)).astype(np.float32)
    model.graph.initializer.append(numpy_helper.from_array(kernel, "k"))
    for name in "sbmv":
        model.graph.initializer.append(numpy_helper.from_array(np.ones(width, np.float32), name))
    return model


def weightless(model: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto.FromString(model.SerializeToString())
    for tensor in copy.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            tensor.ClearField("raw_data")
            tensor.data_location = TensorProto.EXTERNAL
            tensor.external_data.add(key="location", value="weights.bin")
    return copy  # type: ignore[no-any-return]


def save(folder: Path, content: bytes | onnx.ModelProto, name: str = "net.onnx") -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.SerializeToString())
    return path


def cut_wire(model: onnx.ModelProto) -> onnx.ModelProto:
    model.graph.node[2].input[0] = "nowhere"
    return model


# --- sources --------------------------------------------------------------------------------------------------------


def test_a_fixed_batch_is_one() -> None:
    model = nas_bench_macro.build("00120000", "cifar10")
    alone = read(model)
    for size in (1, 8):
        model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = size
        assert read(model) == alone
    assert read(model, input_shapes={model.graph.input[0].name: (8, 3, 32, 32)}) == alone


def test_path_text_bytes_and_model_are_one(tmp_path: Path) -> None:
    model = small()
    path = save(tmp_path, model)
    graphs = [read(source) for source in (path, str(path), path.read_bytes(), model)]
    assert len({graph.hash for graph in graphs}) == 1
    assert graphs[0].params == 144 + 8
    assert [node.op for node in graphs[0].nodes] == ["Input", "Conv", "Relu"]


def test_the_model_that_is_read_is_not_changed() -> None:
    model = small()
    before = model.SerializeToString()
    read(model)
    assert model.SerializeToString() == before


def test_weights_do_not_matter_and_need_not_exist() -> None:
    model = small()
    assert read(weightless(model)) == read(model)
    assert read(weightless(model)).params == read(model).params


def test_external_data_outside_the_folder_is_never_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"x" * 1000)
    (tmp_path / "models").mkdir()
    model = weightless(small())
    for tensor, location in zip(
        model.graph.initializer, ("../secret", str(secret), "/dev/zero", "..", "\0"), strict=True
    ):
        tensor.external_data[0].value = location
    path = save(tmp_path / "models", model)
    opened: list[str] = []
    plain = Path.open

    def watched(self: Path, *arguments: object, **options: object) -> object:
        opened.append(str(self))
        return plain(self, *arguments, **options)  # type: ignore[call-overload]

    monkeypatch.setattr(Path, "open", watched)
    monkeypatch.setattr("builtins.open", lambda *_: pytest.fail("opened a file"))
    assert read(path) == read(small())
    assert opened == [str(path)]


def test_large_inline_weights_are_stripped_without_being_loaded(tmp_path: Path) -> None:
    model = parsed("g (float[N,4096] x) => (float[] y) { a = MatMul(x, k) y = Add(a, b) }")
    for name, shape in (("k", (4096, 3200)), ("b", (3200,))):
        model.graph.initializer.append(numpy_helper.from_array(np.ones(shape, np.float32), name))
    path = save(tmp_path, model)
    assert path.stat().st_size > 50_000_000
    expected = read(weightless(model))
    stripped = b"".join(onnx_file._stripped(memoryview(path.read_bytes()), onnx_file._MODEL))
    assert len(stripped) < 50_000
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    graph = read(path)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert graph == expected
    assert graph.params == expected.params == 4097 * 3200
    assert grown < 80_000  # KiB; the mapped pages of the file itself may count


def test_stripping_keeps_everything_but_large_tensors() -> None:
    model = nas_bench_201.build(nas_bench_201.sample(1, seed=0)[0], "cifar10")
    data = model.SerializeToString()
    again = onnx.ModelProto.FromString(b"".join(onnx_file._stripped(memoryview(data), onnx_file._MODEL)))
    assert again == model


def test_weights_of_constants_functions_and_bodies_are_stripped_too() -> None:
    large = numpy_helper.from_array(np.arange(1e4, dtype=np.float32).reshape(100, 100), "t")
    constant = helper.make_node("Constant", [], ["k"], value=large)
    body = helper.make_graph([constant], "b", [], [helper.make_empty_tensor_value_info("k")])
    branch = helper.make_node("If", ["c"], ["w"], then_branch=body, else_branch=body)
    function = helper.make_function("f", "F", [], ["k"], [constant], [helper.make_opsetid("", 20)])
    graph = helper.make_graph([branch], "g", [], [helper.make_empty_tensor_value_info("w")], [large])
    model = helper.make_model(graph, functions=[function])
    data = model.SerializeToString()
    assert len(data) > 150_000
    assert len(b"".join(onnx_file._stripped(memoryview(data), onnx_file._MODEL))) < 2_000


def test_sparse_initialisers_count_what_they_store() -> None:
    model = parsed("g (float[N,8] x) => (float[] y) { y = MatMul(x, k) }")
    values = numpy_helper.from_array(np.ones(5, np.float32), "k")
    indices = numpy_helper.from_array(np.arange(5), "i")
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [8, 8]))
    graph = read(model)
    assert (graph.params, graph.macs) == (5, 64)


def test_buffers_named_in_the_metadata_are_not_learned() -> None:
    model = parsed("g (float[N,4] x) => (float[] y) { a = Mul(x, mask) y = MatMul(a, k) }")
    for name, shape in (("mask", (4,)), ("k", (4, 4))):
        model.graph.initializer.append(numpy_helper.from_array(np.full(shape, 2.0, np.float32), name))
    assert read(model).params == 20
    helper.set_model_props(model, {BUFFERS_KEY: "other\nmask"})
    assert read(model).params == 16


# --- errors ---------------------------------------------------------------------------------------------------------

BROKEN: dict[str, tuple[Callable[[], bytes | onnx.ModelProto], str]] = {
    "empty file": (lambda: b"", "empty"),
    "text": (lambda: b"This is not a model.\n" * 20, "not an ONNX model|holds no ONNX graph"),
    "random bytes": (lambda: random.Random(1).randbytes(5000), "not an ONNX model|holds no ONNX graph"),
    "truncated": (lambda: small(64).SerializeToString()[:5000], "not an ONNX model"),
    "no graph": (lambda: onnx.ModelProto(ir_version=8).SerializeToString(), "no ONNX graph"),
    "empty graph": (lambda: parsed("g (float[1] x) => (float[1] x) { }"), "no nodes"),
    "no outputs": (lambda: parsed("g (float[1] x) => () { y = Relu(x) }"), "no outputs"),
    "output nobody computes": (
        lambda: parsed("g (float[1] x) => (float[] z) { y = Relu(x) }"),
        "no node computes.*'z'",
    ),
    "undefined operand": (lambda: cut_wire(small()), "node 'y'.*'nowhere'.*does not exist"),
    "cycle": (
        lambda: parsed("g (float[1] x) => (float[] y) { a = Add(x, b) b = Relu(a) y = Tanh(b) }"),
        "node '[aby]'.*cycle",
    ),
    "value computed twice": (
        lambda: parsed("g (float[1] x) => (float[] y) { y = Relu(x) y = Tanh(x) }"),
        "node 'y'.*computed twice",
    ),
    "input computed": (lambda: parsed("g (float[1] x) => (float[] x) { x = Relu(x) }"), "node 'x'.*computed twice"),
    "dynamic size": (lambda: parsed("g (float[N,3,H,W] x) => (float[] y) { y = Relu(x) }"), "input_shapes=.*'x'"),
    "no input shape": (
        lambda: parsed("g (float[] x) => (float[] y) { y = Relu(x) }"),
        "node 'x'.*no shape.*input_shapes",
    ),
    "shapes that do not fit": (
        lambda: parsed("g (float[1,3] x, float[1,4] z) => (float[] y) { y = Add(x, z) }"),
        r"node 'y'.*\(1, 3\), \(1, 4\)",
    ),
    "kernel too large": (
        lambda: parsed("g (float[1,3,4,4] x) => (float[] y) { y = MaxPool<kernel_shape=[5,5]>(x) }"),
        "node 'y'.*MaxPool.*does not fit",
    ),
    "attributes of another kind": (
        lambda: parsed("g (float[1,3,4,4] x) => (float[] y) { y = Transpose<perm=[0,1,2,7]>(x) }"),
        "node 'y'.*Transpose",
    ),
    "Split into billions": (
        lambda: parsed("g (float[1,3] x) => (float[] y) { y, z = Split<axis=1, num_outputs=2147483647>(x) }"),
        "node 'y'.*Split has 2 outputs",
    ),
    "equation that hangs onnx": (
        lambda: parsed('g (float[5,2,3] x) => (float[] y) { y = Einsum<equation="bij,\x01bjk->bik">(x, x) }'),
        "node 'y'.*Einsum",
    ),
    "missing operand": (lambda: parsed("g (float[1,3] x) => (float[] y) { y = Mul(x) }"), "node 'y'"),
    "function that calls itself": (
        lambda: onnx.parser.parse_model(
            '<ir_version: 10, opset_import: ["": 20, "f": 1]> g (float[1] x) => (float[] y) { y = f.F(x) } '
            '<domain: "f", opset_import: ["": 20, "f": 1]> F (a) => (b) { b = f.F(a) }'
        ),
        "calls itself",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_files_are_typed_errors_that_name_the_file(case: str, tmp_path: Path) -> None:
    make, message = BROKEN[case]
    path = save(tmp_path, make())
    with pytest.raises(ReadError, match=message) as caught:
        read(path)
    assert caught.value.source == str(path)
    assert str(path) in str(caught.value)
    with pytest.raises(ReadError):
        read(path.read_bytes())


def test_files_that_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(UnreadableFileError, match=r"gone.onnx.*check the path"):
        read(tmp_path / "gone.onnx")
    with pytest.raises(UnreadableFileError):
        read(tmp_path)
    with pytest.raises(OSError, match=r"gone.onnx"):
        read(str(tmp_path / "gone.onnx"))
    with pytest.raises(ReadError, match="expected a path, bytes"):
        read(42)  # type: ignore[arg-type]


def test_truncation_anywhere_is_a_typed_error_or_a_graph() -> None:
    data = small().SerializeToString()
    for length in range(0, len(data), 7):
        with suppress(ReadError):
            assert isinstance(read(data[:length]), ArchGraph)


# --- input shapes ---------------------------------------------------------------------------------------------------


def test_a_dynamic_batch_simply_works() -> None:
    fixed = read(small(inputs="float[1,4,8,8] x"))
    assert read(small(inputs="float[N,4,8,8] x")) == fixed
    assert read(small(inputs="float[?,4,8,8] x")) == fixed
    assert read(small(inputs="float[0,4,8,8] x")) == fixed


def test_dynamic_sizes_are_asked_for() -> None:
    dynamic = small(inputs="float[N,4,H,W] x")
    with pytest.raises(ReadError, match=r"dynamic shape \(1, 4, 'H', 'W'\).*input_shapes=\{'x'"):
        read(dynamic)
    assert read(dynamic, input_shapes={"x": (1, 4, 8, 8)}) == read(small())
    assert read(dynamic, input_shapes={"x": [1, 4, 16, 16]}).macs == 4 * read(small()).macs
    assert read(small(inputs="float[] x"), input_shapes={"x": (1, 4, 8, 8)}) == read(small())


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({"z": (1, 4, 8, 8)}, r"names 'z'.*\['x'\]"),
        ({"x": (4, 8, 8)}, "4 dimensions"),
        ({"x": (1, 4, 0, 8)}, "positive integers"),
        ({"x": (1, 4, -1, 8)}, "positive integers"),
        ({"x": (1, 4, 8.5, 8)}, "positive integers"),
        ({"x": (1, 5, 8, 8)}, "does not fit"),
    ],
)
def test_wrong_input_shapes(shapes: dict[str, tuple[int, ...]], message: str) -> None:
    with pytest.raises(ReadError, match=message):
        read(small(inputs="float[N,4,H,W] x"), input_shapes=shapes)


def test_old_files_list_their_weights_among_the_inputs() -> None:
    model = small()
    for tensor in model.graph.initializer:
        model.graph.input.append(helper.make_tensor_value_info(tensor.name, TensorProto.FLOAT, list(tensor.dims)))
    model.ir_version = 3
    assert read(model) == read(small())


def test_inputs_of_other_types_and_several_inputs_and_outputs() -> None:
    graph = read(
        parsed(
            "g (int64[N,6] i, float[N,6] x) => (float[] y, float[] x2) { c = Cast<to=1>(i) y = Add(c, x) x2 = Relu(x) }"
        )
    )
    assert [node.attributes for node in graph.nodes if node.op == "Input"].count((("type", "int"),)) == 1
    assert [graph.nodes[i].op for i in graph.outputs] == ["Add", "Relu"]


@pytest.mark.parametrize("opset", range(7, 25))
def test_opsets(opset: int) -> None:
    text = """g (float[N,4,8,8] x) => (float[] y) {
        a = Conv<pads=[1,1,1,1]>(x, k) n = BatchNormalization(a, s, b, m, v)
        r = Relu(n) d = Dropout(r) p = GlobalAveragePool(d) f = Flatten(p) y = Softmax(f) }"""
    model = parsed(text, opset=opset)
    model.graph.initializer.extend(small().graph.initializer)
    graph = read(model)
    assert [node.op for node in graph.nodes] == ["Input", "Conv", "Relu", "GlobalAveragePool", "Softmax", "Reshape"]
    assert graph.params == 152


# --- limits ---------------------------------------------------------------------------------------------------------


def test_too_many_nodes() -> None:
    model = parsed("g (float[1] x) => (float[] y) { a = Relu(x) b = Tanh(a) y = Relu(b) }")
    assert len(read(model, limits=Limits(nodes=3))) == 4
    with pytest.raises(LimitError, match=r"3 nodes.*at most 2.*limits\.nodes"):
        read(model, limits=Limits(nodes=2))


def test_too_many_nodes_by_functions_of_functions() -> None:
    levels = 40
    functions = "".join(
        f'<domain: "f", opset_import: ["": 20, "f": 1]> F{i} (a) => (b) {{ c = f.F{i + 1}(a) b = f.F{i + 1}(c) }} '
        for i in range(levels)
    )
    model = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["": 20, "f": 1]> g (float[1] x) => (float[] y) { y = f.F0(x) } '
        + functions
        + f'<domain: "f", opset_import: ["": 20]> F{levels} (a) => (b) {{ b = Relu(a) }}'
    )
    with pytest.raises(LimitError, match="nodes"):
        read(model)


@pytest.mark.parametrize(
    "text",
    [
        "g (float[1,9999999999,9999999999] x) => (float[] y) { y = Relu(x) }",
        "g (float[1,4] x) => (float[] y) { s = Constant<value_ints=[999999999999999,4]>() y = Expand(x, s) }",
        "g (float[1,4] x) => (float[] y) { y = Tile(x, t) }",
        "g (float[99999,1] x, float[1,99999] z) => (float[] y) { a = MatMul(x, z) b = MatMul(a, a) c = MatMul(b, b) "
        "y = Concat<axis=0>(c, c) }",
    ],
)
def test_absurd_sizes(text: str) -> None:
    model = parsed(text)
    model.graph.initializer.append(numpy_helper.from_array(np.asarray([2**40, 2**40]), "t"))
    with pytest.raises(LimitError):
        read(model, limits=Limits(macs=1 << 48))


def test_absurd_stored_tensors() -> None:
    model = small()
    model.graph.initializer[0].dims[0] = 2**62
    with pytest.raises(LimitError):
        read(model)
    model.graph.initializer[0].dims[0] = -4
    with pytest.raises(LimitError):
        read(model)


def test_large_structure() -> None:
    with pytest.raises(LimitError, match="structure_bytes"):
        read(small().SerializeToString(), limits=Limits(structure_bytes=100))


def test_deep_nesting_is_refused() -> None:
    data = b""
    for _ in range(20_000):  # a graph in an attribute of a node of a graph …
        node = b"\x0a" + onnx_file._to_varint(len(data)) + data if data else b""
        data = bytes(node)
        attribute = b"\x2a" + onnx_file._to_varint(len(data)) + data
        data = bytes(b"\x32" + onnx_file._to_varint(len(attribute)) + attribute)
        if len(data) > 300_000:
            break
    with pytest.raises(ReadError):
        read(bytes(b"\x3a" + onnx_file._to_varint(len(data)) + data))


# --- functions and control flow -------------------------------------------------------------------------------------


def test_local_functions_are_written_out() -> None:
    model = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["": 20, "f": 1]> g (float[N,8] x) => (float[] y) { y = f.Silu(x) } '
        '<domain: "f", opset_import: ["": 20]> Silu (a) => (b) { s = Sigmoid(a) b = Mul(a, s) }'
    )
    assert [node.op for node in read(model).nodes] == ["Input", "Silu"]


BRANCHES = """
    y = If(c) <
        then_branch = t () => (float[1,4] u) { u = Relu(x) },
        else_branch = e () => (float[1,4] w) { w = MatMul(x, k) }
    >
"""
KERNEL = numpy_helper.from_array(np.ones((4, 4), np.float32), "k")


@pytest.mark.parametrize(("number", "op"), [(1, "Relu"), (0, "Linear")])
def test_if_with_a_known_condition_is_the_branch_taken(number: int, op: str) -> None:
    model = parsed(
        f"g (float[N,4] x) => (float[] y) {{ n = Constant<value_int={number}>() c = Cast<to=9>(n) {BRANCHES} }}"
    )
    model.graph.initializer.append(KERNEL)
    assert [node.op for node in read(model).nodes] == ["Input", op]


def test_if_counts_as_its_costlier_branch() -> None:
    model = parsed(f"g (float[N,4] x, bool c) => (float[] y) {{ {BRANCHES} }}")
    model.graph.initializer.append(KERNEL)
    graph = read(model)
    assert [node.op for node in graph.nodes] == ["Input", "Input", "If"]
    assert (graph.params, graph.macs, graph.nodes[-1].shape) == (16, 16, (1, 4))
    assert len(graph.nodes[-1].inputs) == 2
    assert graph.unknown_ops == ()


def test_loop_counts_its_turns() -> None:
    model = parsed(
        """g (float[N,4] x) => (float[] y, float[] z) {
            m = Constant<value_int=5>() t = Constant<value_int=1>() c = Cast<to=9>(t)
            y, z = Loop(m, c, x) <body = b (int64 i, bool ci, float[1,4] a) => (bool co, float[1,4] o, float[1,4] s) {
                co = Identity(ci) o = MatMul(a, k) s = Relu(o) }> }"""
    )
    model.graph.initializer.append(KERNEL)
    graph = read(model)
    assert [node.op for node in graph.nodes] == ["Input", "Loop", "Select"]
    assert (graph.params, graph.macs) == (16, 5 * 16)
    assert [node.shape for node in graph.nodes[1:]] == [(1, 4), (5, 1, 4)]


def test_loop_of_unknown_turns_counts_once() -> None:
    model = parsed(
        """g (float[N,4] x, int64 m, bool c) => (float[] y) {
            y = Loop(m, c, x) <body = b (int64 i, bool ci, float[1,4] a) => (bool co, float[1,4] o) {
                co = Identity(ci) o = MatMul(a, k) }> }"""
    )
    model.graph.initializer.append(KERNEL)
    assert read(model).macs == 16


def test_scan_counts_the_length_of_its_axis() -> None:
    model = parsed(
        """g (float[N,4] h, float[7,1,4] x) => (float[] y, float[] z) {
            y, z = Scan<num_scan_inputs=1, body = b (float[1,4] a, float[1,4] t) => (float[1,4] o, float[1,4] s) {
                p = Add(a, t) o = MatMul(p, k) s = Relu(o) }>(h, x) }"""
    )
    model.graph.initializer.append(KERNEL)
    graph = read(model)
    assert graph.macs == 7 * 16
    assert [graph.nodes[i].shape for i in graph.outputs] == [(1, 4), (7, 1, 4)]


def test_bodies_count_for_identity() -> None:
    def loop(op: str) -> ArchGraph:
        return read(
            parsed(
                f"""g (float[N,4] x, int64 m, bool c) => (float[] y) {{
                    y = Loop(m, c, x) <body = b (int64 i, bool ci, float[1,4] a) => (bool co, float[1,4] o) {{
                        co = Identity(ci) o = {op}(a) }}> }}"""
            )
        )

    assert loop("Relu") != loop("Tanh")
    assert loop("Relu") == loop("Relu")


def test_broken_bodies_are_typed_errors() -> None:
    model = parsed(f"g (float[N,4] x, bool c) => (float[] y) {{ {BRANCHES} }}")
    with pytest.raises(ReadError, match=r"'k'|does not exist"):
        read(model)


def test_sizes_that_depend_on_the_data_are_one_unless_stated() -> None:
    text = "g (float[N,4] x) => (float[] y) {{ n = NonZero(x) c = Cast<to=1>(n) y = Relu(c) }}"
    assert read(parsed(text.format())).nodes[-1].shape == (2, 1)
    stated = parsed(text.format())
    stated.graph.value_info.append(helper.make_tensor_value_info("n", TensorProto.INT64, [2, 9]))
    assert read(stated).nodes[-1].shape == (2, 9)


# --- costs against torch --------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_transformer_costs_are_those_of_torch() -> None:
    """Half of what `torch.utils.flop_counter` counts on the meta device, for an encoder layer of every size."""
    torch = pytest.importorskip("torch")
    flop_counter = pytest.importorskip("torch.utils.flop_counter")
    for length, width, heads in ((5, 8, 2), (16, 32, 4), (50, 24, 3)):
        with torch.device("meta"):
            attention = torch.nn.MultiheadAttention(width, heads, batch_first=True)
            layers = torch.nn.Sequential(
                torch.nn.Linear(width, 4 * width), torch.nn.GELU(), torch.nn.Linear(4 * width, width)
            )
            x = torch.zeros(1, length, width)
            with flop_counter.FlopCounterMode(display=False) as counter:
                layers(attention(x, x, x, need_weights=False)[0])
        net = OnnxBuilder("block", (length, width))
        parts = net.transpose(
            net.reshape(net.linear(net.input, 3 * width), (length, 3, heads, width // heads)), (1, 2, 0, 3)
        )
        q, k, v = (
            net.reshape(net.slice(parts, (0,), (i,), (i + 1,)), (heads, length, width // heads)) for i in range(3)
        )
        mixed = net.matmul(net.softmax(net.matmul(q, net.transpose(k, (0, 2, 1)))), v)
        y = net.linear(net.reshape(net.transpose(mixed, (1, 0, 2)), (length, width)), width)
        y = net.linear(net.activation(net.linear(y, 4 * width), "Gelu"), width)
        graph = read(net.build(y))
        assert graph.macs == counter.get_total_flops() // 2
        assert graph.params == sum(p.numel() for p in [*attention.parameters(), *layers.parameters()])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "vit_b_32", "swin_t", "densenet121"])
def test_costs_of_torchvision_networks_are_those_of_torch(name: str) -> None:
    torch = pytest.importorskip("torch")
    torchvision = pytest.importorskip("torchvision")
    pytest.importorskip("onnxscript")
    flop_counter = pytest.importorskip("torch.utils.flop_counter")
    from archgauge.encoders.torch_reader import read_module

    with torch.device("meta"):
        module = getattr(torchvision.models, name)().eval()
        with flop_counter.FlopCounterMode(display=False) as counter:
            module(torch.zeros(1, 3, 224, 224))
    graph = read_module(module, (1, 3, 224, 224))
    assert graph.macs == pytest.approx(counter.get_total_flops() / 2, rel=1e-3)
    assert graph.params == sum(p.numel() for p in module.parameters())


# --- hostile files --------------------------------------------------------------------------------------------------


FUZZ = Path(__file__).parents[1] / "benchmarks" / "fuzz.py"


@pytest.mark.parametrize("count", [500, pytest.param(20_000, marks=pytest.mark.slow)])
def test_mutated_files(count: int) -> None:
    run = subprocess.run([sys.executable, FUZZ, "--count", str(count)], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    outcomes = dict(
        line.split() for line in run.stdout.splitlines() if line.startswith("  ") and len(line.split()) == 2
    )
    assert count // 20 < int(outcomes["read"]) < count * 19 // 20
