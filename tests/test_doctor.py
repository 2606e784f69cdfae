"""`doctor`: what a source is, what stands in the way of reading it, and what to do."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import archgauge
from archgauge import describe, read
from archgauge.encoders.doctor import Finding, Report, _advice, doctor

FLOAT = TensorProto.FLOAT


def model(
    nodes: list[onnx.NodeProto],
    shape: list[int | str | None] | None = None,
    weights: dict[str, tuple[int, ...]] | None = None,
    kind: int = FLOAT,
) -> onnx.ModelProto:
    """A network from x to y."""
    stored = [
        helper.make_tensor(name, kind, dims, np.zeros(dims).reshape(-1)) for name, dims in (weights or {}).items()
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", FLOAT, [1, 3, 8, 8] if shape is None else shape)],
        [helper.make_tensor_value_info("y", FLOAT, None)],
        stored,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18), helper.make_opsetid("mine", 1)])


CONV = helper.make_node("Conv", ["x", "w"], ["y"])
KERNEL: dict[str, tuple[int, ...]] = {"w": (4, 3, 3, 3)}


def told(report: Report, topic: str, level: str | None = None) -> Finding:
    """The one finding on a topic."""
    (finding,) = [f for f in report.findings if f.topic == topic and level in (None, f.level)]
    return finding


def zipped(path: Path, *names: str) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, b"")
    return path


# --- files ----------------------------------------------------------------------------------------------------------


def test_a_sound_model_reads_and_has_no_problems(tmp_path: Path) -> None:
    onnx.save_model(model([CONV], weights=KERNEL), tmp_path / "m.onnx")
    report = archgauge.doctor(tmp_path / "m.onnx")
    assert report.reads
    assert report.graph == read(tmp_path / "m.onnx")
    assert {finding.level for finding in report.findings} == {"ok"}
    assert "opset 18" in told(report, "format").what
    assert "2 nodes, 108 parameters, 3,888 MACs" in told(report, "result").what
    assert str(report).startswith(f"{tmp_path / 'm.onnx'}: reads\n")


@pytest.mark.parametrize(
    ("content", "what", "advice"),
    [
        (b"", "is empty", "export or download it again"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 4096\n", "4,096 bytes", "git lfs pull"),
        (pickle.dumps({}), "a Python pickle", "torch.onnx.export"),
        (b"\x89HDF\r\n\x1a\n" + bytes(50), "an HDF5 file", "tf2onnx"),
        (bytes(4) + b"TFL3" + bytes(50), "a TensorFlow Lite model", "--tflite"),
        (bytes(4) + b"ORTM" + bytes(50), "ONNX Runtime", ".onnx file it was made from"),
        ((2).to_bytes(8, "little") + b"{}" + bytes(8), "a safetensors file", "archgauge.read"),
        (b"<!DOCTYPE html><html></html>", "a web page", "raw or download link"),
        (b'<?xml version="1.0"?><net/>', "OpenVINO", ".onnx file"),
        (b'{"model_type": "bert"}', "a JSON file", "transformers:FOLDER"),
        (b"\x1f\x8b" + bytes(20), "gzip", "gunzip"),
        (b"\x0a\x20\x0a\x05input\x12\x0bPlaceholder" + bytes(20), "a graph of TensorFlow", "--graphdef"),
        (b"GGUF" + bytes(20), "a GGUF file", "transformers"),
        (b"PK\x03\x04 cut off", "a damaged zip archive", "download it again"),
    ],
)
def test_files_that_are_no_onnx_are_recognised(tmp_path: Path, content: bytes, what: str, advice: str) -> None:
    file = tmp_path / "model.onnx"
    file.write_bytes(content)
    report = doctor(str(file))
    (finding,) = report.findings
    assert not report.reads
    assert report.graph is None
    assert finding.level == "problem"
    assert what in finding.what
    assert advice in finding.advice


@pytest.mark.parametrize(
    ("names", "what"),
    [
        (("m/data.pkl", "m/version"), "a file of torch.save"),
        (("m/data.pkl", "m/constants.pkl", "m/code/x.py"), "a TorchScript archive"),
        (("serialized_exported_program.json",), "a program of torch.export"),
        (("config.json", "model.weights.h5"), "a Keras model"),
        (("a.npy",), "a NumPy archive"),
        (("net.onnx",), "a zip archive with net.onnx in it"),
        (("a.txt",), "a zip archive"),
    ],
)
def test_zip_archives_are_told_apart(tmp_path: Path, names: tuple[str, ...], what: str) -> None:
    (finding,) = doctor(zipped(tmp_path / "model.onnx", *names)).findings
    assert what in finding.what
    assert finding.advice


def test_an_onnx_model_is_never_taken_for_something_else() -> None:
    data = Path(onnx.__file__).parent / "backend" / "test" / "data"
    files = sorted(data.rglob("*.onnx"))[::5]
    assert len(files) > 20
    for file in files:
        assert told(doctor(file), "file").level == "ok"


def test_a_missing_file_names_its_neighbours(tmp_path: Path) -> None:
    onnx.save_model(model([CONV], weights=KERNEL), tmp_path / "net.onnx")
    finding = told(doctor(tmp_path / "nett.onnx"), "file")
    assert "does not exist" in finding.what
    assert "net.onnx" in finding.advice
    assert "net.onnx" in told(doctor(tmp_path), "file").advice
    assert "no folder" in told(doctor(tmp_path / "none" / "net.onnx"), "file").advice


def test_half_a_file_may_be_incomplete(tmp_path: Path) -> None:
    whole = model([CONV], weights=KERNEL).SerializeToString()
    (tmp_path / "m.onnx").write_bytes(whole[: len(whole) // 2])
    assert "incomplete" in told(doctor(tmp_path / "m.onnx"), "format").advice


# --- ONNX -----------------------------------------------------------------------------------------------------------


def test_open_sizes_come_with_the_shapes_to_pass() -> None:
    graph = model([CONV], ["n", 3, "h", None], KERNEL)
    report = doctor(graph)
    problem = told(report, "inputs", "problem")
    assert not report.reads
    assert "input_shapes={'x': (1, 3, 224, 224)}" in problem.advice
    assert "--input-shape x:1,3,224,224" in problem.advice
    assert "with the sizes proposed it reads" in told(report, "inputs", "ok").what
    assert doctor(graph, (1, 3, 224, 224)).reads
    assert doctor(graph, [(1, 3, 224, 224)]).reads
    assert doctor(graph, {"x": (1, 3, 224, 224)}).reads


def test_channels_are_proposed_from_the_first_kernel() -> None:
    report = doctor(model([CONV], ["n", "c", "h", "w"], {"w": (4, 5, 3, 3)}))
    assert "x:1,5,224,224" in told(report, "inputs", "problem").advice


def test_custom_operators_are_counted() -> None:
    nodes = [helper.make_node("Conv", ["x", "w"], ["z"]), helper.make_node("Zap", ["z"], ["y"], domain="mine")]
    report = doctor(model(nodes, weights=KERNEL))
    assert report.reads
    assert "mine::Zap (1): 50.0 % of the operators" in told(report, "custom operators").what
    assert "mine::Zap (1): 33.3 % of the nodes" in told(report, "unknown operators").what


def test_custom_operators_without_a_stated_shape_are_named() -> None:
    nodes = [helper.make_node("Zap", ["x"], ["z"], domain="mine"), helper.make_node("Relu", ["z"], ["y"])]
    assert "first 'z' (Zap)" in told(doctor(model(nodes)), "shapes").what


def test_an_operator_that_does_not_fit_is_located() -> None:
    nodes = [helper.make_node("Relu", ["x"], ["z"]), helper.make_node("Conv", ["z", "w"], ["y"])]
    report = doctor(model(nodes, weights={"w": (4, 7, 3, 3)}))
    problem = told(report, "reading", "problem")
    assert not report.reads
    assert "operator 2 of 2: Conv of z, w, output 'y'" in problem.what


def test_odd_things_are_noted() -> None:
    yes = helper.make_node("Constant", [], ["t"], value=helper.make_tensor("t", TensorProto.BOOL, [], [True]))
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"]),
        yes,
        helper.make_node("Dropout", ["a", "", "t"], ["b"]),
        helper.make_node("QuantizeLinear", ["b", "s"], ["c"]),
        helper.make_node("If", ["f"], ["d"], then_branch=branch("c"), else_branch=branch("c")),
        helper.make_node("Cast", ["d"], ["y"], to=FLOAT),
    ]
    network = model(nodes, [4, 3, 8, 8], {**KERNEL, "s": (1,)}, TensorProto.FLOAT16)
    network.graph.input.append(helper.make_tensor_value_info("f", TensorProto.BOOL, []))
    network.graph.initializer[0].data_location = TensorProto.EXTERNAL
    report = doctor(network)
    assert told(report, "training mode").what == "Dropout (1)"
    assert told(report, "quantised").what == "QuantizeLinear (1)"
    assert told(report, "control flow").what.startswith("If (1)")
    notes = "\n".join(finding.what for finding in report.findings)
    assert "fixed batch of 4" in notes
    assert "2 inputs (x, f)" in notes
    assert "1 tensors lie in external files" in notes
    assert "float16 (2)" in notes


def branch(name: str) -> onnx.GraphProto:
    out = helper.make_tensor_value_info("o", TensorProto.UINT8, None)
    return helper.make_graph([helper.make_node("Identity", [name], ["o"])], "b", [], [out])


def test_the_dictionary_is_plain() -> None:
    report = doctor(model([CONV], weights=KERNEL)).to_dict()
    assert report["reads"] is True
    assert report["graph"]["params"] == 108
    assert report["findings"][0]["level"] == "ok"
    assert doctor(b"x").to_dict()["graph"] is None


def test_a_graph_is_well() -> None:
    graph = read(model([CONV], weights=KERNEL))
    assert doctor(graph).graph is graph


# --- torch modules --------------------------------------------------------------------------------------------------

MODULES = """
import torch
from torch import nn


class Plain(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3)

    def forward(self, x):
        return self.stem(x)


class Decides(Plain):
    def forward(self, x):
        y = self.stem(x)
        if y.sum() > 0:
            return y
        return y * 2


class Two(Plain):
    def forward(self, x, mask):
        return self.stem(x) * mask


class Head(Plain):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(100, 2)

    def forward(self, x):
        return self.head(self.stem(x).flatten(1))


class Elsewhere(Plain):
    def forward(self, x):
        return torch.from_numpy(self.stem(x).numpy())


class Breaks:
    def __init__(self):
        raise KeyError("settings")


class Tokens(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(10, 4)

    def forward(self, tokens):
        return self.table(tokens)


def number():
    return 7


ready = Plain()
"""


@pytest.fixture(scope="module")
def code(tmp_path_factory: pytest.TempPathFactory) -> str:
    pytest.importorskip("onnxscript")
    file = tmp_path_factory.mktemp("code") / "networks.py"
    file.write_text(MODULES)
    return str(file)


IMAGE = (1, 3, 8, 8)
ROADS = ("torch.export on the meta device", "torch.export with placeholder weights", "the tracing exporter")


@pytest.mark.slow
def test_a_sound_module_goes_every_road(code: str) -> None:
    report = doctor(f"{code}:Plain", IMAGE)
    assert report.reads
    assert [told(report, road).level for road in ROADS] == ["ok"] * 3
    assert "runs and returns 1×8×6×6" in told(report, "forward on meta").what
    assert doctor(f"{code}:ready", IMAGE).graph == report.graph


def test_without_shapes_the_first_layer_says_what_to_pass(code: str) -> None:
    image, tokens = doctor(f"{code}:Plain"), doctor(f"{code}:Tokens")
    assert not image.reads
    assert "--input-shape 1,3,224,224" in told(image, "inputs").advice
    assert "takes (x)" in told(image, "inputs").what
    assert "--dtype int64" in told(tokens, "inputs").advice


def test_a_decision_by_values_is_located_and_reads_only_traced(code: str) -> None:
    report = doctor(f"{code}:Decides", IMAGE)
    assert report.reads
    first = told(report, ROADS[0])
    assert first.level == "note"
    assert "in forward: if y.sum() > 0:" in first.what
    assert "torch.where" in first.advice
    assert any("only the tracing exporter works" in finding.what for finding in report.findings)


def test_what_tracing_loses_is_told(code: str) -> None:
    report = doctor(f"{code}:Elsewhere", IMAGE)
    assert not report.reads
    assert "no parameter has a part" in told(report, ROADS[2]).what
    assert "NumPy" in told(report, ROADS[0]).advice


@pytest.mark.slow
def test_a_missing_input_is_named(code: str) -> None:
    report = doctor(f"{code}:Two", IMAGE)
    assert not report.reads
    assert "'mask'" in told(report, "forward on meta").advice
    assert doctor(f"{code}:Two", {"x": IMAGE, "mask": (1, 8, 6, 6)}).reads


def test_a_layer_that_does_not_fit_is_named(code: str) -> None:
    finding = told(doctor(f"{code}:Head", IMAGE), "forward on meta")
    assert "[layer head: Linear(in_features=100, out_features=2, bias=True)]" in finding.what
    assert "expects 100 features and gets 288" in finding.advice


def test_tokens_want_another_element_type(code: str) -> None:
    assert "dtypes='int64'" in told(doctor(f"{code}:Tokens", (1, 7)), "forward on meta").advice
    assert told(doctor(f"{code}:Tokens", (1, 7), "int64"), "forward on meta").level == "ok"


def test_one_cause_is_told_once(code: str) -> None:
    report = doctor(f"{code}:Head", IMAGE)
    assert told(report, ROADS[1]).what.endswith("like forward on meta")


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("Breaks", "KeyError: 'settings'"),
        ("number", "gives a int"),
        ("Nothing", "has no attribute 'Nothing'"),
    ],
)
def test_a_factory_that_gives_no_module_is_a_finding(code: str, name: str, what: str) -> None:
    report = doctor(f"{code}:{name}", IMAGE)
    assert not report.reads
    assert what in told(report, "factory").what


def test_a_factory_that_is_not_there_is_a_finding(tmp_path: Path) -> None:
    assert "no Python file" in told(doctor(f"{tmp_path / 'none.py'}:Net"), "factory").what
    assert "install 'no_such_package_here'" in told(doctor("no_such_package_here:Net"), "factory").advice


@pytest.mark.slow
def test_a_module_in_python_is_examined_and_left_alone(code: str) -> None:
    torch = pytest.importorskip("torch")
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4)).train()
    report = doctor(module, IMAGE)
    assert report.reads
    assert module.training
    assert report.source == "Sequential"
    lazy = doctor(torch.nn.LazyLinear(3), (1, 4))
    assert "have no shape yet" in told(lazy, "module", "problem").what


def test_wrong_shapes_and_types_are_findings(code: str) -> None:
    assert "positive integers" in told(doctor(f"{code}:Plain", (1, 3, 0, 8)), "inputs").what
    assert "unknown element type" in told(doctor(f"{code}:Plain", IMAGE, "floaty"), "inputs").what


def test_an_unknown_name_is_a_finding() -> None:
    pytest.importorskip("torchvision")
    report = doctor("torchvision:resnet19")
    assert not report.reads
    assert "resnet18" in told(report, "name").what


@pytest.mark.parametrize(
    ("message", "advice"),
    [
        ("forward() missing 2 required positional arguments: 'x' and 'y'", "'x' and 'y'"),
        ("forward() got an unexpected keyword argument 'mask'", "no argument mask"),
        ("mat1 and mat2 shapes cannot be multiplied (1x8 and 9x2)", "expects 9 features and gets 8"),
        (
            "Given groups=1, weight of size [8, 3, 3, 3], expected input[1, 8, 8, 3] to have 3 channels, but got 8",
            "expects 3 channels and gets 8",
        ),
        ("Input height (256) doesn't match model (224).", "of size 224"),
        ("Expected 4D (unbatched) input, got 2D", "number of dimensions"),
        ("The size of tensor a (4) must match the size of tensor b (5) at dimension 1", "do not fit each other"),
        ("Calculated padded input size: (1 x 1). Kernel size can't be greater than actual input size", "too small"),
        ("Exporting the operator 'aten::foo' to ONNX opset version 20 is not supported", "aten::foo"),
        ("No ONNX function found for <OpOverload(op='aten.foo', overload='default')>", "operator aten.foo"),
        ("Could not guard on data-dependent expression Eq(u0, 1)", "values of a tensor"),
        ("Expected more than 1 value per channel when training", "training mode"),
        ("mat1 and mat2 must have the same dtype, but got Float and Half", "element type"),
        ("something nobody has seen", ""),
    ],
)
def test_advice_goes_by_the_message(message: str, advice: str) -> None:
    given = _advice(message)
    assert advice in given
    assert "{" not in given
    assert bool(given) == bool(advice)


def test_text_descriptions(tmp_path: Path) -> None:
    graph = read(model([CONV], weights=KERNEL))
    file = tmp_path / "net.txt"
    file.write_text(describe(graph))
    for source in (file, str(file), describe(graph)):
        report = doctor(source)
        assert report.reads
        assert report.graph == graph
    file.write_text(describe(graph) + " Nonsense {")
    assert told(doctor(file), "description").level == "problem"
