"""What stands in the way of reading a network: `doctor` looks a file or a torch module over and says what to do."""

from __future__ import annotations

import inspect
import linecache
import os
import re
import sys
import sysconfig
import traceback
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import lru_cache
from importlib import import_module, util
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import onnx

from .difference import diff
from .errors import ArchGaugeError, ReadError
from .graph import ArchGraph
from .model_names import build, is_name
from .onnx_file import CONTROL, structure
from .operators import Kind, kind_of
from .quiet import quiet
from .reading import Shapes, is_module, read
from .text import is_description, parse, read_file

if TYPE_CHECKING:
    import torch

    from .reading import Source

Level = Literal["ok", "note", "problem"]
DTypes = Mapping[str, str] | str


@dataclass(frozen=True)
class Finding:
    """One thing that was found.

    Attributes:
        level: "ok": as it should be; "note": good to know; "problem": stands in the way of reading.
        topic: What it is about, in a word or two, such as "inputs".
        what: What was found.
        advice: What to do about it; empty if there is nothing to do.
    """

    level: Level
    topic: str
    what: str
    advice: str = ""


@dataclass(frozen=True)
class Report:
    """What `doctor` found.

    Attributes:
        source: What was looked over: a path, a name, or the class of a module.
        reads: Whether `read` gives a graph with the same arguments.
        findings: In the order of the examination.
        graph: The graph, if it reads.
        seconds: Time that building, exporting and reading took.
    """

    source: str
    reads: bool
    findings: tuple[Finding, ...]
    graph: ArchGraph | None = field(default=None, repr=False)
    seconds: float = 0.0

    def __str__(self) -> str:
        return self.text()

    def text(self) -> str:
        """The report to read: the verdict, then a line a finding, with advice beneath."""
        lines = [f"{self.source}: {'reads' if self.reads else 'does not read'}"]
        for finding in self.findings:
            lines.append(f"  {finding.level:<8} {finding.topic}: {finding.what}")
            if finding.advice:
                lines.append(f"  {'':<8} → {finding.advice}")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """The report as plain values for JSON, without the graph but with its size."""
        graph = self.graph
        return {
            "source": self.source,
            "reads": self.reads,
            "seconds": round(self.seconds, 3),
            "graph": None
            if graph is None
            else {"nodes": len(graph), "params": graph.params, "macs": graph.macs, "hash": graph.hash},
            "findings": [
                {"level": f.level, "topic": f.topic, "what": f.what, "advice": f.advice} for f in self.findings
            ],
        }


def doctor(source: Source, input_shapes: Shapes | None = None, dtypes: DTypes | None = None) -> Report:
    """Looks over a network that does not read, or reads in a surprising way.

    Args:
        source: What `read` takes; or, as a text, a factory of your own: `"package.module:factory"` or
            `"path/to/file.py:factory"`, a class or function that is imported and called without arguments (this runs
            your code), or a module that is already there under that name.
        input_shapes: As for `read`. For a file, shapes without names are taken in the order of its inputs.
        dtypes: As for `read`.

    Returns:
        The report. What is wrong with the source is a finding, never an exception.
    """
    start = perf_counter()
    found = _Findings()
    label, graph = _label(source), None
    if isinstance(source, ArchGraph):
        graph = source
        found.result(graph)
    elif isinstance(source, str) and is_name(source):
        graph = _examine_name(found, source, input_shapes, dtypes)
    elif isinstance(source, str | os.PathLike) and (described := _description(found, source)) is not None:
        graph = described
    elif isinstance(source, str) and _is_factory(source):
        module = _from_factory(found, source)
        if module is not None:
            graph = _examine_module(found, module, input_shapes, dtypes)
    elif is_module(source):
        graph = _examine_module(found, source, input_shapes, dtypes)
    elif not isinstance(source, str | os.PathLike) or _examine_bytes(found, Path(source)):
        graph = _examine_onnx(found, source, input_shapes)
    return Report(label, graph is not None, tuple(found), graph, perf_counter() - start)


def _description(found: _Findings, source: str | os.PathLike[str]) -> ArchGraph | None:
    """The graph of a text description, or of a file that holds one."""
    try:
        if isinstance(source, str) and is_description(source):
            graph: ArchGraph | None = parse(source)
        else:
            graph = read_file(source) if Path(source).is_file() else None
    except ArchGaugeError as error:
        found.problem("description", str(error))
        return None
    if graph is not None:
        found.ok("format", "a text description of a network")
        found.result(graph)
    return graph


def _label(source: Any) -> str:
    if isinstance(source, str | os.PathLike):
        return str(source)
    return type(source).__name__


class _Findings(list[Finding]):
    """The findings so far."""

    def __init__(self) -> None:
        super().__init__()
        self.told: dict[tuple[str, str], str] = {}

    def ok(self, topic: str, what: str) -> None:
        self.append(Finding("ok", topic, what))

    def note(self, topic: str, what: str, advice: str = "") -> None:
        self.append(Finding("note", topic, what, advice))

    def problem(self, topic: str, what: str, advice: str = "") -> None:
        self.append(Finding("problem", topic, what, advice))

    def failure(self, level: Level, topic: str, start: str, failure: _Failure) -> None:
        """A failure; one that was told of already is only named."""
        told = (failure.cause, failure.place)
        if told in self.told:
            self.append(Finding(level, topic, f"{start} like {self.told[told]}"))
            return
        self.told[told] = topic
        self.append(Finding(level, topic, f"{start}: {failure.cause}{failure.place}", failure.advice))

    def result(self, graph: ArchGraph, seconds: float = 0.0) -> None:
        """What was read, and what archgauge does not understand of it."""
        time = f" in {seconds:.2f} s" if seconds else ""
        self.ok(
            "result",
            f"reads{time}: {len(graph):,} nodes, {graph.params:,} parameters, {graph.macs:,} MACs, depth {graph.depth}",
        )
        unknown = [node for node in graph.nodes if kind_of(node.op) is Kind.UNKNOWN]
        if unknown:
            counts = Counter(node.op for node in unknown)
            params = sum(node.params for node in unknown)
            first = next(i for i, node in enumerate(graph.nodes) if kind_of(node.op) is Kind.UNKNOWN)
            self.note(
                "unknown operators",
                f"{_tally(counts)}: {_share(len(unknown), len(graph))} of the nodes, {_share(params, graph.params)} "
                f"of the parameters, {100 * graph.unknown_share:.1f} % of the elements that are put out; the first is "
                f"node {first}. Their MACs are not known and count as none",
                "scores are less sure the more of the network is unknown; export without custom operators if you can",
            )
        if not graph.macs:
            self.note(
                "result",
                "no convolution, linear layer, matrix product or recurrent cell was found",
                "check that this is the network itself, not a step before or after it",
            )


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "0 %"


def _tally(counts: Mapping[str, int], most: int = 6) -> str:
    """`Conv (12), Relu (3) and 2 others`."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    text = ", ".join(f"{name} ({count})" for name, count in ordered[:most])
    return text + (f" and {len(ordered) - most} others" if len(ordered) > most else "")


# --- files that are something else ----------------------------------------------------------------------------------

_TORCH_ADVICE = (
    "build the module in Python, load these weights if you like, and pass it to archgauge.read, or write a file "
    "with torch.onnx.export"
)
_KERAS_ADVICE = "load it with Keras and convert it: tf2onnx.convert.from_keras(model, output_path='model.onnx')"
_SIGNS: tuple[tuple[int, bytes, str, str], ...] = (
    (0, b"\x89HDF\r\n\x1a\n", "an HDF5 file, as Keras writes it (.h5)", _KERAS_ADVICE),
    (4, b"TFL3", "a TensorFlow Lite model", "python -m tf2onnx.convert --tflite FILE --output model.onnx"),
    (4, b"ORTM", "a model in the format of ONNX Runtime (.ort)", "use the .onnx file it was made from"),
    (0, b"GGUF", "a GGUF file of llama.cpp: weights, but no graph", "use the transformers model it was made from"),
    (0, b"ftrt", "a TensorRT engine", "use the .onnx file it was made from"),
    (0, b"ptrt", "a TensorRT engine", "use the .onnx file it was made from"),
    (0, b"\x1f\x8b", "compressed with gzip", "unpack it: gunzip FILE"),
    (0, b"\xfd7zXZ\x00", "compressed with xz", "unpack it: unxz FILE"),
    (0, b"\x28\xb5\x2f\xfd", "compressed with Zstandard", "unpack it: unzstd FILE"),
    (0, b"BZh", "compressed with bzip2", "unpack it: bunzip2 FILE"),
    (257, b"ustar", "a tar archive", "unpack it: tar -xf FILE"),
    (0, b"\x93NUMPY", "a NumPy array", "pass the network's ONNX file, not its inputs or weights"),
    (0, b"7767517", "a network of ncnn (.param)", "use the .onnx file it was made from"),
)
_HEAD = 4096


def _examine_bytes(found: _Findings, path: Path) -> bool:
    """Whether the file may be ONNX; if it is plainly something else, that is a finding."""
    try:
        if path.is_dir():
            _examine_folder(found, path)
            return False
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except OSError as error:
        if isinstance(error, FileNotFoundError):
            found.problem("file", "does not exist", _near(path))
        else:
            found.problem("file", f"cannot be opened: {error.strerror or error}", "check its permissions")
        return False
    if not size:
        found.problem("file", "is empty (0 bytes)", "export or download it again; was the disk full?")
        return False
    kind = _recognise(path, head, size)
    if kind is not None:
        found.problem("file", f"is no ONNX model but {kind[0]} ({size:,} bytes)", kind[1].replace("FILE", str(path)))
        return False
    found.ok("file", f"{size:,} bytes")
    return True


def _near(path: Path) -> str:
    folder = path.parent
    if not folder.is_dir():
        return f"there is no folder {folder}; check the path"
    here = sorted(file.name for file in folder.glob("*.onnx"))
    return f"{folder} holds {', '.join(here[:5])}" if here else "check the path"


def _examine_folder(found: _Findings, path: Path) -> None:
    files = sorted(str(file) for file in path.rglob("*.onnx"))
    if files:
        found.problem("file", "is a folder", f"pass one of its ONNX files, such as {files[0]}")
    elif (path / "saved_model.pb").exists():
        found.problem(
            "file",
            "is a folder with a SavedModel of TensorFlow",
            f"python -m tf2onnx.convert --saved-model {path} --output model.onnx",
        )
    elif (path / "config.json").exists():
        found.problem("file", "is a folder with a model of transformers", f"pass the name transformers:{path}")
    else:
        found.problem("file", "is a folder without ONNX files", "pass the path of an ONNX file")


def _recognise(path: Path, head: bytes, size: int) -> tuple[str, str] | None:
    """What a file that is not ONNX is, and what to do; None if it may be ONNX."""
    if head.startswith(b"version https://git-lfs"):
        real = re.search(rb"^size (\d+)", head, re.MULTILINE)
        of = f" of a file of {int(real[1]):,} bytes" if real else ""
        return f"a Git LFS pointer, the stand-in{of}", "fetch the file itself: git lfs pull"
    for offset, sign, kind, advice in _SIGNS:
        if head[offset : offset + len(sign)] == sign:
            return kind, advice
    if head.startswith(b"PK\x03\x04"):
        return _recognise_zip(path)
    if head[:1] == b"\x80" and head[1:2] in b"\x02\x03\x04\x05":
        return "a Python pickle, as old versions of torch.save wrote it", _TORCH_ADVICE
    if size > 8 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") < size:
        return "a safetensors file: weights, but no graph", _TORCH_ADVICE
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n")[:200].lower()
    if text.startswith((b"<!doctype html", b"<html")):
        return "a web page", "download the file itself (on GitHub or Hugging Face: the raw or download link)"
    if text.startswith(b"<?xml") or text.startswith(b"<net"):
        return "an XML file, such as OpenVINO writes", "use the .onnx file it was made from"
    if text.startswith(b"{") and b'"' in text:
        return "a JSON file", "pass the ONNX file; for a config.json of transformers: transformers:FOLDER"
    if text.startswith((b"name:", b"layer {", b"input:")):
        return "a text file of Caffe (.prototxt)", "convert it with caffe2onnx, or export from another framework"
    if _is_tensorflow(head):
        if path.name == "saved_model.pb":
            command = f"python -m tf2onnx.convert --saved-model {path.parent} --output model.onnx"
        else:
            command = "python -m tf2onnx.convert --graphdef FILE --inputs x:0 --outputs y:0 --output model.onnx"
        return "a graph of TensorFlow (.pb)", command
    return None


def _recognise_zip(path: Path) -> tuple[str, str]:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError):
        return "a damaged zip archive", "download it again"
    inner = {name.rsplit("/", 1)[-1] for name in names}
    models = [name for name in names if name.endswith(".onnx")]
    if models:
        return f"a zip archive with {models[0]} in it", "unpack it: unzip FILE"
    if "constants.pkl" in inner:
        return "a TorchScript archive (torch.jit.save)", (
            "load it with torch.jit.load and write an ONNX file with torch.onnx.export(..., dynamo=False), or pass the "
            "module it was made from to archgauge.read"
        )
    if "data.pkl" in inner:
        return "a file of torch.save", _TORCH_ADVICE
    if any("exported_program" in name or name.endswith("archive_format") for name in inner):
        return "a program of torch.export (.pt2)", (
            "torch.onnx.export(torch.export.load('FILE'), dynamo=True).save('model.onnx'), or pass the module it was "
            "made from to archgauge.read"
        )
    if "model.weights.h5" in inner:
        return "a Keras model (.keras)", _KERAS_ADVICE
    if any(name.endswith(".npy") for name in inner):
        return "a NumPy archive (.npz)", "pass the network's ONNX file, not its inputs or weights"
    return "a zip archive", "unpack it and pass the ONNX file in it"


def _is_tensorflow(head: bytes) -> bool:
    """Whether this begins like a GraphDef (nodes with a name and an operator) or a SavedModel."""
    if head[:2] == b"\x08\x01" and (b"serve" in head or b"tensorflow" in head.lower()) and b"\x12\x05serve" in head:
        return True
    match = re.match(rb"\x0a[\x00-\xff]{1,3}?\x0a[\x01-\x7f]([\w./:-]+)\x12[\x01-\x40]([A-Z]\w+)", head)
    return match is not None


# --- ONNX -----------------------------------------------------------------------------------------------------------


def _examine_onnx(found: _Findings, source: Any, input_shapes: Shapes | None) -> ArchGraph | None:
    """Findings on an ONNX model; its graph if it reads."""
    try:
        model = structure(source)
    except ReadError as error:
        hint = "export it again"
        if "truncated" in str(error) or "parsing" in str(error):
            hint = "it may be incomplete: compare its size with the original, download or export it again"
        found.problem("format", error.reason, hint)
        return None
    _versions(found, model)
    shapes = _inputs(found, model, input_shapes)
    _contents(found, model)
    start = perf_counter()
    try:
        graph = read(source, input_shapes=shapes.given)
    except ArchGaugeError as error:
        if shapes.missing:
            found.problem(
                "inputs",
                f"the sizes of {', '.join(shapes.missing)} are left open",
                f"pass input_shapes={shapes.proposal!r}, on the command line "
                + " ".join(f"--input-shape {name}:{','.join(map(str, s))}" for name, s in shapes.proposal.items())
                + ", with the sizes the network is meant for",
            )
            _trial(found, model, source, shapes.proposal)
        else:
            _failure(found, model, error)
        return None
    except Exception as error:  # a fault of the reader is a finding as well
        found.problem("reading", f"{type(error).__name__}: {error}", "please report this as a fault of archgauge")
        return None
    found.result(graph, perf_counter() - start)
    return graph


def _versions(found: _Findings, model: onnx.ModelProto) -> None:
    opsets = {entry.domain: entry.version for entry in model.opset_import}
    opset = max((v for d, v in opsets.items() if d in _STANDARD), default=0)
    producer = " ".join(filter(None, (model.producer_name, model.producer_version))) or "unknown"
    found.ok("format", f"ONNX, IR version {model.ir_version}, opset {opset or 'not stated'}, written by {producer}")
    if opset > onnx.defs.onnx_opset_version():
        found.note(
            "format",
            f"opset {opset} is newer than the installed onnx package knows ({onnx.defs.onnx_opset_version()})",
            "update the onnx package, or export with an older opset",
        )
    elif 0 < opset < 7:
        found.note("format", f"opset {opset} is from before 2018; some operators had other meanings then")


_STANDARD = frozenset({"", "ai.onnx"})


class _Inputs(NamedTuple):
    """Input shapes that were given, the inputs that lack one, and shapes that would do for these."""

    given: dict[str, tuple[int, ...]] | None
    missing: list[str]
    proposal: dict[str, tuple[int, ...]]


def _inputs(found: _Findings, model: onnx.ModelProto, input_shapes: Shapes | None) -> _Inputs:
    graph = model.graph
    stored = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in stored]
    given: dict[str, tuple[int, ...]] | None = None
    if isinstance(input_shapes, Mapping):
        given = {name: tuple(shape) for name, shape in input_shapes.items()}
    elif input_shapes is not None:
        listed: Any = [input_shapes] if all(isinstance(size, int) for size in input_shapes) else input_shapes
        given = {value.name: tuple(shape) for value, shape in zip(inputs, listed, strict=False)}
    if len(inputs) != 1 or len(graph.output) != 1:
        found.note(
            "inputs",
            f"{len(inputs)} inputs ({_names([v.name for v in inputs])}) and {len(graph.output)} outputs "
            f"({_names([v.name for v in graph.output])})",
        )
    missing: list[str] = []
    proposal: dict[str, tuple[int, ...]] = {}
    for value in inputs:
        tensor = value.type.tensor_type
        if not value.type.HasField("tensor_type"):
            found.note("inputs", f"{value.name} is no tensor but a {value.type.WhichOneof('value')}")
            continue
        if not tensor.HasField("shape"):
            missing.append(value.name)
            proposal[value.name] = (1, 3, 224, 224)
            continue
        dims = [
            d.dim_value if d.HasField("dim_value") and d.dim_value > 0 else d.dim_param or "?" for d in tensor.shape.dim
        ]
        shown = f"{value.name} {_dims(dims)} {onnx.TensorProto.DataType.Name(tensor.elem_type).lower()}"
        opened = [axis for axis, size in enumerate(dims) if isinstance(size, str)]
        if given and value.name in given:
            found.ok("inputs", f"{shown}, read at {_dims(given[value.name])}")
        elif any(axis > 0 for axis in opened):
            found.note("inputs", f"{shown} has dynamic sizes")
            missing.append(value.name)
            proposal[value.name] = _proposed(model, value.name, dims)
        elif len(dims) > 3 and isinstance(dims[0], int) and dims[0] > 1:
            found.note("inputs", f"{shown} has a fixed batch of {dims[0]}, and is read with batch 1")
        else:
            found.ok("inputs", shown + (", batch read as 1" if opened else ""))
    return _Inputs(given, missing, proposal)


def _dims(dims: Sequence[int | str]) -> str:
    return "×".join(map(str, dims)) or "scalar"


def _names(names: Sequence[str], most: int = 6) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _proposed(model: onnx.ModelProto, name: str, dims: Sequence[int | str]) -> tuple[int, ...]:
    """A shape that is likely to fit an input with dynamic sizes."""
    channels = 3
    weights = {tensor.name: tensor.dims for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Conv" and name in node.input and len(weights.get(node.input[1], ())) > 1:
            groups = next((a.i for a in node.attribute if a.name == "group"), 1)
            channels = weights[node.input[1]][1] * groups
            break
    rank = len(dims)
    last = isinstance(dims[-1], int) and rank == 4 and dims[-1] in (1, 3)
    usual = {4: (1, 224, 224, channels) if last else (1, channels, 224, 224), 5: (1, channels, 16, 112, 112)}
    sizes = usual.get(rank, (1, *(128,) * (rank - 1)))
    return tuple(size if isinstance(size, int) else guess for size, guess in zip(dims, sizes, strict=True))


def _trial(found: _Findings, model: onnx.ModelProto, source: Any, proposal: Mapping[str, Sequence[int]]) -> None:
    """Whether the model would read with the proposed shapes."""
    try:
        graph = read(source, input_shapes=dict(proposal))
    except ArchGaugeError as error:
        found.note("inputs", f"with the sizes proposed it does not read either: {error}")
    else:
        found.ok(
            "inputs",
            f"with the sizes proposed it reads: {len(graph):,} nodes, {graph.params:,} parameters, {graph.macs:,} MACs",
        )


_HALF = {onnx.TensorProto.FLOAT16: "float16", onnx.TensorProto.BFLOAT16: "bfloat16"}
_QUANTISED = re.compile(r"^(Q[A-Z]|QLinear|.*Quantize|.*Integer$|MatMulNBits|GatherBlockQuantized)")


def _contents(found: _Findings, model: onnx.ModelProto) -> None:
    """What in the operators and weights is out of the ordinary."""
    graph = model.graph
    nodes = list(_all_nodes(graph.node))
    for function in model.functions:
        nodes.extend(_all_nodes(function.node))
    found.ok("graph", f"{len(nodes):,} operators, {len(graph.initializer):,} stored tensors")
    outside = sum(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in graph.initializer)
    if outside:
        found.note("weights", f"{outside:,} tensors lie in external files, which are not needed")
    types = Counter(_HALF[t.data_type] for t in graph.initializer if t.data_type in _HALF)
    if types:
        found.note("weights", f"half precision, which plays no part: {_tally(types)}")
    if model.functions:
        names = Counter(function.name for function in model.functions)
        found.note("functions", f"{len(model.functions)} local functions, written out on reading: {_tally(names)}")
    control = Counter(node.op_type for node in nodes if node.op_type in CONTROL)
    if control:
        found.note(
            "control flow",
            f"{_tally(control)}: an If with an unknown condition counts as its costlier branch, a loop with an unknown "
            "number of turns as one turn",
            "export with fixed input sizes, or simplify the model, if a condition only looks at shapes",
        )
    quantised = Counter(node.op_type for node in nodes if _QUANTISED.match(node.op_type))
    if quantised:
        found.note(
            "quantised",
            _tally(quantised),
            "read the float model the quantised one was made from: its graph says more",
        )
    training = _training(graph, nodes)
    if training:
        found.note(
            "training mode",
            _tally(training),
            "call module.eval() before the export: in training mode the graph may differ",
        )
    local = {(function.domain, function.name) for function in model.functions}
    opset = max((entry.version for entry in model.opset_import if entry.domain in _STANDARD), default=1)
    strange = Counter(
        f"{node.domain}::{node.op_type}" if node.domain not in _STANDARD else node.op_type
        for node in nodes
        if (node.domain, node.op_type) not in local and not _has_schema(node, opset)
    )
    if strange:
        count = sum(strange.values())
        found.note(
            "custom operators",
            f"{_tally(strange)}: {_share(count, len(nodes))} of the operators are none of ONNX's, opset {opset}",
            "their outputs get the shape that the file states, else that of the first operand; state shapes in the "
            "file, or export without a backend's own operators",
        )
        stated = {value.name for value in (*graph.value_info, *graph.output)}
        silent = [
            n
            for n in graph.node
            if n.output
            and n.output[0] not in stated
            and (n.domain, n.op_type) not in local
            and not _has_schema(n, opset)
        ]
        if silent:
            found.note(
                "shapes",
                f"{len(silent)} of them have no stated output shape, first {silent[0].output[0]!r} "
                f"({silent[0].op_type}): taken for the shape of the first operand",
            )


def _all_nodes(nodes: Any) -> Iterator[onnx.NodeProto]:
    for node in nodes:
        yield node
        if node.op_type in CONTROL:
            for attribute in node.attribute:
                if attribute.HasField("g"):
                    yield from _all_nodes(attribute.g.node)


def _has_schema(node: onnx.NodeProto, opset: int) -> bool:
    if node.domain not in _STANDARD and node.domain not in ("ai.onnx.ml", "ai.onnx.preview.training"):
        return False
    if node.domain not in _STANDARD:
        return bool(onnx.defs.has(node.op_type, node.domain))
    try:
        onnx.defs.get_schema(node.op_type, min(max(opset, 1), onnx.defs.onnx_opset_version()), "")
    except onnx.defs.SchemaError:
        return bool(onnx.defs.has(node.op_type))
    return True


def _training(graph: onnx.GraphProto, nodes: Sequence[onnx.NodeProto]) -> Counter[str]:
    """Operators in training mode."""
    constants = [(a.t, node.output[0]) for node in nodes if node.op_type == "Constant" for a in node.attribute]
    constants += [(tensor, tensor.name) for tensor in graph.initializer]
    true = {
        name
        for tensor, name in constants
        if tensor.data_type == onnx.TensorProto.BOOL and (tensor.raw_data == b"\x01" or list(tensor.int32_data) == [1])
    }
    found: Counter[str] = Counter()
    for node in nodes:
        numbers = {a.name: a.i for a in node.attribute}
        if node.op_type == "Dropout" and len(node.input) > 2 and node.input[2] in true:
            found["Dropout"] += 1
        if node.op_type == "BatchNormalization" and (numbers.get("training_mode") or len(node.output) > 1):
            found["BatchNormalization"] += 1
    return found


def _failure(found: _Findings, model: onnx.ModelProto, error: ArchGaugeError) -> None:
    """Why the model does not read: the first operator that could not be understood."""
    reason = error.reason if isinstance(error, ReadError) else str(error)
    name = error.node if isinstance(error, ReadError) else ""
    where = ""
    nodes = list(_all_nodes(model.graph.node))
    for position, node in enumerate(nodes):
        if name and name in (*node.output, node.name):
            where = (
                f" (operator {position + 1} of {len(nodes)}: {node.op_type} of {_names(list(node.input))}, "
                f"output {name!r})"
            )
            break
    found.problem("reading", f"{reason}{where}", _reading_advice(reason))


def _reading_advice(reason: str) -> str:
    if "depends on the data" in reason:
        return (
            "export the network without what picks boxes or tokens by their values, run onnxsim on the file, or state "
            "the shape in it"
        )
    if "does not fit" in reason:
        return (
            "run onnx.checker.check_model(model, full_check=True) on the file; if that passes, check the input shapes, "
            "and simplify the model with onnxsim"
        )
    if "limits" in reason:
        return "pass limits=Limits(...) to read if the network really is that large"
    if "input_shapes" in reason:
        return ""
    return "run onnx.checker.check_model on the file; if that passes, please report it with the file's structure"


# --- torch modules --------------------------------------------------------------------------------------------------

_FACTORY = re.compile(r"(?P<home>[\w.]+|.*\.py):(?P<name>[A-Za-z_][\w.]*)", re.DOTALL)


def _is_factory(source: str) -> bool:
    match = _FACTORY.fullmatch(source)
    return match is not None and not Path(source).exists()


def _from_factory(found: _Findings, source: str) -> torch.nn.Module | None:
    """The module that a factory of the user's makes."""
    match = _FACTORY.fullmatch(source)
    home, name = (match["home"], match["name"]) if match else (source, "")
    try:
        made: Any = _import_file(Path(home)) if home.endswith(".py") else _import_module(home)
        for part in name.split("."):
            made = getattr(made, part)
        if not is_module(made):
            made = made()
    except (KeyboardInterrupt, SystemExit, MemoryError, GeneratorExit):
        raise
    except BaseException as error:  # the user's code raises what it likes
        failure = _Failure.of(error, None)
        missing = isinstance(error, ModuleNotFoundError)
        found.problem(
            "factory",
            f"{failure.cause}{failure.place}",
            f"install {error.name!r}, or run archgauge in the folder it lies in"
            if missing and isinstance(error, ImportError)
            else "expected package.module:factory or path/to/file.py:factory, a class or function that needs no "
            "arguments",
        )
        return None
    if not is_module(made):
        found.problem("factory", f"gives a {type(made).__name__}", "it has to return a torch.nn.Module")
        return None
    found.ok("factory", f"makes a {type(made).__name__}")
    module: torch.nn.Module = made
    return module


def _import_module(name: str) -> Any:
    with _first_on_path(Path.cwd()):
        return import_module(name)


def _import_file(path: Path) -> Any:
    spec = util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None or not path.exists():
        raise FileNotFoundError(f"no Python file {path}")
    module = util.module_from_spec(spec)
    with _first_on_path(path.resolve().parent):
        spec.loader.exec_module(module)
    return module


@contextmanager
def _first_on_path(folder: Path) -> Iterator[None]:
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))


def _examine_name(found: _Findings, name: str, input_shapes: Shapes | None, dtypes: DTypes | None) -> ArchGraph | None:
    start = perf_counter()
    try:
        built = build(name)
    except ArchGaugeError as error:
        found.problem("name", error.reason if isinstance(error, ReadError) else str(error))
        return None
    found.ok("name", f"builds a {type(built.module).__name__} in {perf_counter() - start:.1f} s")
    usual: Any = built.input_shapes
    shapes: Any = usual if input_shapes is None else input_shapes
    if isinstance(usual, dict) and input_shapes is not None:
        if not isinstance(shapes, Mapping):
            listed = [shapes] if all(isinstance(part, int) for part in shapes) else shapes
            shapes = dict(zip(usual, listed, strict=False))
        shapes = {**usual, **shapes}
    return _examine_module(found, built.module, shapes, built.dtypes if dtypes is None else dtypes)


def _examine_module(
    found: _Findings, module: Any, input_shapes: Shapes | None, dtypes: DTypes | None
) -> ArchGraph | None:
    """Findings on a torch module; the graph that `read` would give."""
    import torch

    from . import torch_reader

    try:
        torch_reader._check_packages()
    except ReadError as error:
        found.problem("packages", error.reason)
        return None
    from torch.nn.parameter import UninitializedParameter

    lazy = [
        name or "the module"
        for name, part in module.named_modules()
        if any(isinstance(parameter, UninitializedParameter) for parameter in part.parameters(recurse=False))
    ]
    if lazy:
        found.problem("module", f"the weights of {_names(lazy)} have no shape yet", "call it once on a real input")
        return None
    count = sum(parameter.numel() for parameter in module.parameters())
    found.ok("module", f"{type(module).__name__}, {count:,} parameters{_devices(module)}, torch {torch.__version__}")
    if module.training:
        found.note("module", "is in training mode; a copy in inference mode is exported")
    signature = _signature(module)
    if input_shapes is None:
        found.problem(
            "inputs",
            f"no input shapes were given; forward() takes {_arguments(signature)}",
            f"pass {_first_guess(module)}, batch 1 included",
        )
        return None
    try:
        inputs = torch_reader._input_specs(module, input_shapes, dtypes, type(module).__name__)
    except ReadError as error:
        found.problem("inputs", error.reason)
        return None
    found.ok("inputs", f"{torch_reader._shown(inputs)}; forward() takes {_arguments(signature)}")
    _forward(found, module, inputs)
    return _roads(found, module, inputs)


def _devices(module: Any) -> str:
    kinds = sorted({str(parameter.device) for parameter in module.parameters()})
    return f" on {', '.join(kinds)}" if kinds else ""


def _signature(module: Any) -> inspect.Signature | None:
    try:
        return inspect.signature(module.forward)
    except (TypeError, ValueError):
        return None


def _arguments(signature: inspect.Signature | None) -> str:
    if signature is None:
        return "unknown arguments"
    shown = [
        name if parameter.default is parameter.empty else f"{name}={parameter.default!r}"
        for name, parameter in signature.parameters.items()
        if parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
    ]
    return f"({_names(shown, 8)})"


def _first_guess(module: Any) -> str:
    """Input shapes to begin with, from the first layer."""
    import torch

    for part in module.modules():
        shape: tuple[int, ...]
        if isinstance(part, torch.nn.Embedding):
            return "input_shapes=(1, 128), dtypes='int64' (--input-shape 1,128 --dtype int64)"
        if isinstance(part, torch.nn.Conv1d):
            shape = (1, part.in_channels, 1000)
        elif isinstance(part, torch.nn.Conv2d):
            shape = (1, part.in_channels, 224, 224)
        elif isinstance(part, torch.nn.Conv3d):
            shape = (1, part.in_channels, 16, 112, 112)
        elif isinstance(part, torch.nn.Linear):
            shape = (1, part.in_features)
        else:
            continue
        return f"input_shapes={shape} (--input-shape {','.join(map(str, shape))})"
    return "input_shapes=(1, 3, 224, 224) (--input-shape 1,3,224,224)"


def _forward(found: _Findings, module: Any, inputs: Any) -> None:
    """Whether forward() runs at all, on the meta device (no numbers, no memory)."""
    import torch

    from . import torch_reader

    twin = None
    try:
        with quiet(torch_reader.NOISY_LOGGERS, streams=True), torch.no_grad():
            twin = torch_reader._twin(module, "meta")
            args, kwargs = torch_reader._examples(inputs, "meta")
            result = twin(*args, **kwargs)
    except (KeyboardInterrupt, SystemExit, MemoryError, GeneratorExit):
        raise
    except BaseException as error:
        failure = _Failure.of(error, twin)
        found.failure("note", "forward on meta", "fails", failure)
    else:
        found.ok("forward on meta", f"runs and returns {_described(result)}")


def _described(value: Any) -> str:
    """What forward() returned: shapes of tensors, types of others."""
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return _dims(list(value.shape))
    if isinstance(value, Mapping):
        return f"{type(value).__name__} of " + ", ".join(f"{k} {_described(v)}" for k, v in list(value.items())[:4])
    if isinstance(value, list | tuple):
        return f"{type(value).__name__} of " + ", ".join(_described(part) for part in value[:4])
    return type(value).__name__


def _roads(found: _Findings, module: Any, inputs: Any) -> ArchGraph | None:
    """Tries every road of export; the graph of the first that leads to a model."""
    import torch

    from . import onnx_reader, torch_reader

    graph: ArchGraph | None = None
    exported = False
    only_traced = ""
    for number, (road, run) in enumerate(torch_reader.roads(module, inputs)):
        start = perf_counter()
        try:
            with quiet(torch_reader.NOISY_LOGGERS, streams=True), torch.no_grad():
                model = torch_reader._weightless(run(), module)
        except (KeyboardInterrupt, SystemExit, MemoryError, GeneratorExit):
            raise
        except BaseException as error:  # exporters raise anything, BaseException included
            failure = _Failure.of(error, module)
            found.failure(
                "note" if exported else "problem", road, f"failed after {perf_counter() - start:.1f} s", failure
            )
            continue
        seconds = perf_counter() - start
        try:
            read_graph = onnx_reader.read(model)
        except ArchGaugeError as error:
            found.append(
                Finding("note" if exported else "problem", road, f"exports in {seconds:.1f} s, but does not read")
            )
            _failure(found, model, error)
            exported = True
            continue
        found.ok(road, f"works in {seconds:.1f} s")
        if not exported:
            graph = read_graph
            only_traced = road if number == 2 else ""
        elif graph is not None and graph != read_graph:
            lines = diff(graph, read_graph).text(limit=3).splitlines()[:6]
            found.note(road, "gives another graph than the first road: " + " | ".join(line.strip() for line in lines))
        exported = True
    if graph is None:
        return None
    found[:] = [replace(f, level="note") if f.level == "problem" else f for f in found]  # another road led there
    found.result(graph)
    if only_traced:
        found.note(
            "result",
            f"only {only_traced} works: it records one pass on made-up numbers, so decisions that forward() takes by "
            "values are frozen as they fell there",
        )
    learned = sum(parameter.numel() for parameter in module.parameters())
    if graph.params < 0.99 * learned:
        found.note(
            "result",
            f"the graph has {_share(graph.params, learned)} of the module's {learned:,} parameters",
            "if that is not because the others only serve training, an exporter took a value that forward() computes "
            "for a constant: see why the other roads fail",
        )
    return graph


class _Failure(NamedTuple):
    """Why some code of others failed: the cause in a line, where in the user's code, what to do."""

    cause: str
    place: str
    advice: str

    @classmethod
    def of(cls, error: BaseException, module: Any) -> _Failure:
        """The failure that an exception tells of.

        Args:
            error: The exception, with its causes.
            module: The module whose forward() ran, or None.
        """
        chain = [error]
        while (before := chain[-1].__cause__ or chain[-1].__context__) is not None and before not in chain:
            chain.append(before)
        frames = next((f for f in map(_frames, reversed(chain)) if any(map(_is_users, f))), _frames(chain[-1]))
        text = "\n".join(str(part) for part in chain)
        layer = _layer(frames, module)
        place = ""
        users = [frame for frame in frames if _is_users(frame)]
        if users:
            place = f", at {_short_path(users[-1].file)} line {users[-1].line}, in {users[-1].function}"
            if users[-1].code:
                place += f": {users[-1].code}"
        if layer:
            place += f" [{layer}]"
        cause = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        advice = _advice(str(cause)) or _advice(text)
        lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
        told = f"{type(cause).__name__}: {lines[0]}" if lines else type(cause).__name__
        return cls(told if len(told) <= 240 else told[:237] + "...", place, advice)


class _Frame(NamedTuple):
    """One level of a traceback."""

    file: str
    line: int
    function: str
    code: str
    owner: Any


def _frames(error: BaseException) -> list[_Frame]:
    """The levels of an exception's traceback, the outermost first."""
    found = []
    for frame, line in traceback.walk_tb(error.__traceback__):
        code = frame.f_code
        text = linecache.getline(code.co_filename, line).strip()
        found.append(_Frame(code.co_filename, line, code.co_name, text[:120], frame.f_locals.get("self")))
    return found


_STANDARD_LIBRARY = sysconfig.get_paths()["stdlib"] + os.sep
_OTHERS = ("torch", "onnx", "onnxscript", "onnx_ir", "torchgen", "numpy", "sympy")
"""Packages whose lines say nothing to a user."""


@lru_cache(maxsize=1)
def _hidden() -> tuple[str, ...]:
    """Folders of the files whose lines are not the user's: our own and those of torch and what it exports with."""
    folders = [str(Path(__file__).resolve().parent)]
    for name in _OTHERS:
        home = getattr(sys.modules.get(name), "__file__", None)
        if home:
            folders.append(str(Path(home).resolve().parent))
    return tuple([folder + os.sep for folder in folders])


def _is_users(frame: _Frame) -> bool:
    """Whether a line is neither Python's nor that of an exporter: the user's own or that of a library of models."""
    if frame.file.startswith("<"):
        return False
    path = str(Path(frame.file).resolve())
    installed = any(f"{os.sep}{part}{os.sep}" in path for part in ("site-packages", "dist-packages"))
    return not path.startswith(_hidden()) and (installed or not path.startswith(_STANDARD_LIBRARY))


def _short_path(file: str) -> str:
    _, _, inner = file.rpartition("site-packages" + os.sep)
    if inner and inner != file:
        return inner
    try:
        return str(Path(file).relative_to(Path.cwd()))
    except ValueError:
        return file


def _layer(frames: Sequence[_Frame], module: Any) -> str:
    """The innermost layer that was running, with its name in the whole module."""
    owners = [frame.owner for frame in frames if is_module(frame.owner)]
    if not owners:
        return ""
    inner = owners[-1]
    whole = next((owner for owner in owners if type(owner) is type(module)), owners[0])
    name = next((name for name, part in whole.named_modules() if part is inner), "")
    described = repr(inner) if not list(inner.children()) else type(inner).__name__
    return f"layer {name}: {described}"[:160] if name else described[:160]


_CONTROL = (
    "forward() takes a decision, or a size, from the values of a tensor: replace `if tensor...`, .item(), .tolist(), "
    "int(tensor) and loops over values by torch.where, torch.cond or sizes from .shape, or switch that part off"
)
_HINTS: tuple[tuple[str, str], ...] = (
    (
        r"missing (?:a |\d+ )?(?:required )?(?:positional |keyword-only )?arguments?: (.+)",
        "forward() needs more inputs: give a shape for {0} too, by name (NAME:1,3,224,224)",
    ),
    (
        r"takes (?:from \d+ to )?\d+ positional arguments? but \d+ |too many positional arguments",
        "more input shapes were given than forward() takes",
    ),
    (r"unexpected keyword argument '(\w+)'", "forward() takes no argument {0}: use the names it has"),
    (
        r"missing the required \"forward\" function",
        "the module has no forward(): is it a container such as ModuleList? Pass the network that uses it",
    ),
    (
        r"scalar types: Long, Int|(?:must be|be of|got an?) .*(?:long|int|Int|Long)\w* .*indices"
        r"|tensors used as indices must be|indices must be|indices to be .*(?:Long|Int)",
        "the input is a row of numbers of tokens or indices: pass dtypes='int64' (--dtype int64)",
    ),
    (
        r"must have the same dtype|expected scalar type \w+ but found|Input type \(.+\) and (?:bias|weight) type",
        "the element type of an input does not go with the weights: pass dtypes=..., or call module.float()",
    ),
    (
        r"mat1 and mat2 shapes cannot be multiplied \((\d+)x(\d+) and (\d+)x(\d+)\)"
        r"|must have same reduction dim, but got \[(\d+), (\d+)\] X \[(\d+), (\d+)\]",
        "a linear layer expects {2} features and gets {1}: the input size is not the one the network was built for",
    ),
    (
        r"expected input\[[\d, ]+\] to have (\d+) channels, but got (\d+)",
        "a convolution expects {0} channels and gets {1}: the axis behind the batch holds the channels "
        "(1,3,224,224, not 1,224,224,3)",
    ),
    (r"Invalid channel dimensions", "a convolution gets another number of channels than it expects"),
    (
        r"Input \w+ (?:size )?\(([\d*, ]+)\) doesn't match model \(([\d*, ]+)\)",
        "the network is built for inputs of size {1}: pass that",
    ),
    (
        r"[Ee]xpected \d+D|[Ee]xpected \d+-dimensional|expects? \d+D",
        "the input has another number of dimensions than the layer takes",
    ),
    (
        r"The size of tensor a \(\d+\) must match|Sizes of tensors must match|is invalid for input of size"
        r"|Attempting to broadcast|shapes? .*not broadcastable",
        "sizes do not fit each other: the network may not work at this input size (try multiples of 32, or the size it "
        "was trained at)",
    ),
    (
        r"Kernel size can't be greater than actual input size|Output size is too small",
        "the input is too small for so many strides: give a larger size",
    ),
    (
        r"Exporting the operator '?([\w:.]+)'? to ONNX|[Uu]nsupported(?: ONNX)? operator:? '?([\w:.]+)",
        "the tracing exporter has no translation of {0}: replace it in forward() by plain operators, if no other road "
        "works",
    ),
    (
        r"No (?:ONNX function|decompositions)[^\n]*?(?:for|of) (?:<OpOverload\(op=)?'?([\w.:]+)",
        "torch cannot translate the operator {0} to ONNX: replace it in forward() by plain operators, or export the "
        "module yourself with a custom_translation_table and read the file",
    ),
    (
        r"[Dd]ata-dependent|DataDependent|Could not guard|is_nonzero|Boolean value of Tensor|_local_scalar_dense"
        r"|item\(\) (?:cannot be called )?on meta|depends on values|[Dd]ynamic control flow|nonzero: attempted"
        r"|aten::equal",
        _CONTROL,
    ),
    (
        r"can't convert .* to numpy|Cannot copy .*to numpy|numpy\(\) is not supported",
        "forward() leaves torch for NumPy, which no exporter can follow: write that part with torch",
    ),
    (
        r"Cannot copy out of meta tensor|device meta|on different devices|on the same device|'Meta' backend",
        "something that forward() uses lies on another device: make it with device=x.device, or register it as a "
        "buffer; if another road works nothing is lost",
    ),
    (
        r"more than 1 value per channel when training",
        "a batch norm runs in training mode: forward() calls .train() or F.batch_norm(training=True)",
    ),
)
"""Words of error messages of torch, and what to do; groups of the expression stand in the advice as {0}, {1}."""


def _advice(text: str) -> str:
    """What to do about an error, judged by its words."""
    for pattern, advice in _HINTS:
        match = re.search(pattern, text)
        if match is None:
            continue
        return advice.format(*[group for group in match.groups() if group is not None])
    return ""
