"""Reads a torch module: the structure is exported to a weightless ONNX model, which is then read like any other file.

No weight is copied, read or allocated. Needs `onnxscript` (the extra `torch-export`); torch is imported on use.
"""

from __future__ import annotations

import copy
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import prod
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from .draft import SMALL
from .errors import ReadError
from .onnx_reader import BUFFERS_KEY, read
from .quiet import one_line, quiet

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir
    import torch

    from .graph import ArchGraph
    from .trace import Trace

InputShapes = Sequence[int] | Sequence[Sequence[int]] | Mapping[str, Sequence[int]]
DTypes = Sequence[str] | Mapping[str, str] | str

OPSET = 20
_INLINE_LIMIT = SMALL  # what the reader keeps values of
NOISY_LOGGERS = (
    "torch.onnx",
    "torch.export",
    "torch._dynamo",
    "torch.fx",
    "torch._subclasses",
    "onnxscript",
    "onnx_ir",
)
"""Loggers of the exporters."""


def read_module(
    module: torch.nn.Module, input_shapes: InputShapes, *, dtypes: DTypes | None = None, trace: Trace | None = None
) -> ArchGraph:
    """The architecture of a torch module.

    Args:
        module: Any module; it is not changed, and may be on the meta device.
        input_shapes: See `export`.
        dtypes: See `export`.
        trace: Filled with what reading changed, if given.

    Raises:
        ReadError: The module cannot be exported, or what was exported cannot be read.
    """
    return read(export(module, input_shapes, dtypes=dtypes), trace=trace)


def export(
    module: torch.nn.Module, input_shapes: InputShapes, *, dtypes: DTypes | None = None, opset: int = OPSET
) -> onnx.ModelProto:
    """A weightless ONNX model of a torch module in inference mode.

    Three roads are tried in turn: `torch.export` on the meta device; the same with placeholder weights on the CPU;
    the older tracing exporter of torch. A placeholder takes the memory of one number, whatever its shape.

    Args:
        module: Any module; it is not changed, its training mode included, and may be on the meta device.
        input_shapes: Shapes with the batch axis (size 1) of the positional inputs of `forward`: one shape, a sequence
            of shapes, or a mapping from the names of the arguments of `forward` to shapes.
        dtypes: Element types of the inputs by their torch names ("float32", "int64", ...), in the form of
            `input_shapes`; one text stands for all. Default: int64 for arguments named `..._ids`, else the type of the
            module's first floating-point parameter.
        opset: Version of the standard operator set to write.

    Returns:
        The model. Initialisers keep name, type and shape, their data is external and absent; small constants stay
        inline. Metadata `archgauge.buffers` names the initialisers that are not learned (position tables, masks) if
        there are any besides the running statistics of batch norm.

    Raises:
        ReadError: torch or onnxscript is missing, the arguments do not fit, or no road leads to a model.
    """
    _check_packages()
    import torch

    if not isinstance(module, torch.nn.Module):
        raise ReadError(f"expected a torch.nn.Module, got {type(module).__name__}: build the module first")
    name = type(module).__name__
    inputs = _input_specs(module, input_shapes, dtypes, name)
    failures: list[str] = []
    for road, run in roads(module, inputs, opset):
        try:
            with quiet(NOISY_LOGGERS, streams=True), torch.no_grad():
                return _weightless(run(), module)
        except (KeyboardInterrupt, SystemExit, MemoryError, GeneratorExit):
            raise
        except BaseException as error:  # exporters raise anything, BaseException included
            failures.append(f"{road}: {one_line(error)}")
    raise ReadError(
        f"the module cannot be exported to ONNX with inputs {_shown(inputs)}. "
        + "; ".join(failures)
        + ". Check that forward() runs with these inputs (dtypes='int64' for token numbers) and has no control flow "
        "that depends on values, "
        "or export the module to an .onnx file yourself and read the file",
        source=name,
    )


def roads(
    module: torch.nn.Module, inputs: Sequence[_Spec], opset: int = OPSET
) -> tuple[tuple[str, Callable[[], ir.Model]], ...]:
    """The ways to export a module, in the order in which they are tried: what it is called, and what does it."""
    return (
        ("torch.export on the meta device", lambda: _export_dynamo(module, inputs, "meta", opset)),
        ("torch.export with placeholder weights", lambda: _export_dynamo(module, inputs, "cpu", opset)),
        ("the tracing exporter", lambda: _export_traced(module, inputs, opset)),
    )


def _check_packages() -> None:
    try:
        import onnxscript  # noqa: F401
        import torch  # noqa: F401
    except ImportError as error:
        missing = error.name or "onnxscript"
        raise ReadError(
            f"reading a torch module needs the package {missing}, which is not installed: "
            "pip install 'archgauge[torch-export]'"
        ) from error


_Spec = tuple[str | None, tuple[int, ...], "torch.dtype"]


def _input_specs(module: torch.nn.Module, shapes: InputShapes, dtypes: DTypes | None, source: str) -> list[_Spec]:
    """(argument name or None, shape, torch dtype) of every input."""
    import torch

    names: list[str | None]
    listed: list[Any]
    if isinstance(shapes, Mapping):
        names, listed = list(shapes), list(shapes.values())
    else:
        listed = [shapes] if shapes and all(isinstance(part, int) for part in shapes) else list(shapes)
        names = [None] * len(listed)
    if not listed:
        raise ReadError("input_shapes is empty: give the shape of every input, e.g. (1, 3, 224, 224)", source=source)
    sized: list[tuple[int, ...]] = []
    for shape in listed:
        if isinstance(shape, (str, bytes)) or not isinstance(shape, Sequence):
            raise ReadError(f"expected input shapes like (1, 3, 224, 224), got {shape!r}", source=source)
        if not all(isinstance(size, int) and size > 0 for size in shape):
            raise ReadError(f"input shape {tuple(shape)} needs positive integers, batch axis included", source=source)
        sized.append(tuple(shape))

    default = next((p.dtype for p in module.parameters() if p.dtype.is_floating_point), torch.float32)
    wanted: list[str | None]
    if dtypes is None or isinstance(dtypes, str):
        wanted = [dtypes] * len(sized)
    elif isinstance(dtypes, Mapping):
        stray = sorted(set(dtypes) - {name for name in names if name})
        if stray:
            raise ReadError(f"dtypes names {', '.join(stray)}, expected names that input_shapes has", source=source)
        wanted = [dtypes.get(name) if name else None for name in names]
    else:
        wanted = list(dtypes)
        if len(wanted) != len(sized):
            raise ReadError(f"dtypes has {len(wanted)} entries, expected {len(sized)}, one an input", source=source)
    return [
        (name, shape, _dtype(dtype, source) if dtype else torch.int64 if name and name.endswith("_ids") else default)
        for name, shape, dtype in zip(names, sized, wanted, strict=True)
    ]


def _dtype(name: Any, source: str) -> torch.dtype:
    import torch

    dtype = getattr(torch, name.removeprefix("torch."), None) if isinstance(name, str) else name
    if not isinstance(dtype, torch.dtype):
        raise ReadError(
            f"unknown element type {name!r}, expected one of torch's, e.g. 'float32' or 'int64'", source=source
        )
    return dtype


def _twin(module: torch.nn.Module, device: str) -> torch.nn.Module:
    """A copy of the module, in inference mode, whose parameters and buffers are placeholders on `device`.

    On the CPU, small buffers keep their values, and every other tensor is one number seen at every position; the
    numbers differ, so that the tracing exporter does not take two parameters for one.
    """
    import torch

    serial = 0

    def placeholder(tensor: torch.Tensor) -> torch.Tensor:
        nonlocal serial
        if device == "meta":
            return torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")
        serial += 1
        value = serial / 2**20 if tensor.dtype.is_floating_point else 0
        return torch.full((), value, dtype=tensor.dtype).expand(tensor.shape)

    memo: dict[int, Any] = {}
    for part in module.modules():
        for parameter in part._parameters.values():
            if parameter is not None and id(parameter) not in memo:
                memo[id(parameter)] = torch.nn.Parameter(placeholder(parameter), requires_grad=parameter.requires_grad)
        for buffer in part._buffers.values():
            if buffer is not None and id(buffer) not in memo:
                small = device != "meta" and buffer.device.type != "meta" and buffer.numel() <= 2**16
                memo[id(buffer)] = buffer.detach().to(device, copy=True) if small else placeholder(buffer)
        for value in vars(part).values():
            if isinstance(value, torch.Tensor) and id(value) not in memo and not value.is_leaf:
                memo[id(value)] = placeholder(value)  # deepcopy refuses results of a computation
    return copy.deepcopy(module, memo).eval()


def _examples(inputs: Sequence[_Spec], device: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional and named example inputs."""
    import torch

    made = [
        (name, torch.empty(shape, dtype=dtype, device="meta") if device == "meta" else torch.zeros(shape, dtype=dtype))
        for name, shape, dtype in inputs
    ]
    return tuple(value for name, value in made if name is None), {name: value for name, value in made if name}


def _export_dynamo(module: torch.nn.Module, inputs: Sequence[_Spec], device: str, opset: int) -> ir.Model:
    import torch

    args, kwargs = _examples(inputs, device)
    program = torch.export.export(_twin(module, device), args, kwargs, strict=False)
    exported: Any = torch.onnx.export(program, (), dynamo=True, optimize=False, opset_version=opset, verbose=False)
    model: ir.Model = exported.model
    for node in model.graph.all_nodes():
        if any(not value.shape.is_static() for value in node.outputs if value.shape is not None):
            raise ValueError(f"the shape of {node.outputs[0].name!r} ({node.op_type}) depends on values")
    return model


def _export_traced(module: torch.nn.Module, inputs: Sequence[_Spec], opset: int) -> ir.Model:
    import onnx
    import onnx_ir as ir
    import torch

    args, kwargs = _examples(inputs, "cpu")
    with TemporaryDirectory() as folder, _silent_log():
        target = Path(folder) / "model.onnx"
        torch.onnx.export(
            _twin(module, "cpu"),
            args,
            target,
            kwargs=kwargs or None,
            dynamo=False,
            export_params=False,  # parameters become graph inputs, no weight is written
            do_constant_folding=False,  # it would replace parameters by nameless products of theirs
            training=torch.onnx.TrainingMode.PRESERVE,  # EVAL would fold batch norm into convolutions
            opset_version=opset,
            input_names=[name or f"input_{position}" for position, (name, _, _) in enumerate(inputs)],
            verbose=False,
        )
        traced = onnx.load_model(target)
    proto = onnx.shape_inference.infer_shapes(traced, data_prop=True)
    model = ir.serde.deserialize_model(proto)
    graph = model.graph
    for value in list(graph.inputs)[len(inputs) :]:
        graph.inputs.remove(value)
        value.const_value = _absent(value)
        graph.register_initializer(value)
    return model


def _absent(value: ir.Value) -> ir.ExternalTensor:
    """The tensor of `value`, its data elsewhere (and nowhere)."""
    import onnx_ir as ir

    known: Any = value.const_value or value
    return ir.ExternalTensor("weights.bin", None, None, known.dtype, shape=known.shape, name=str(value.name))


def _weightless(model: ir.Model, module: torch.nn.Module) -> onnx.ModelProto:
    """The model with constants folded, weights absent and everything that is not architecture removed."""
    import onnx_ir as ir
    from onnx_ir.passes.common import InlinePass
    from onnxscript.optimizer import fold_constants, remove_unused_nodes

    if model.functions:
        InlinePass()(model)
    graph = model.graph
    weights = [value for value in graph.initializers.values() if not _is_inline(value.const_value)]
    absent = {}
    for value in weights:  # graph inputs while constants are folded: nobody may look at their numbers
        absent[value.name] = _absent(value)
        del graph.initializers[str(value.name)]
        value.const_value = None
        graph.inputs.append(value)
    fold_constants(model, onnx_shape_inference=False, input_size_limit=2**14, output_size_limit=2**18)
    remove_unused_nodes(model)
    for value in weights:
        graph.inputs.remove(value)
        if value.uses() or value.is_graph_output():
            value.const_value = absent[value.name]
            graph.register_initializer(value)
    _keep_tables(graph, module)
    _drop_zero_biases(graph)
    remove_unused_nodes(model)
    _constants_to_initialisers(graph)
    for value in list(graph.initializers.values()):
        tensor = value.const_value
        if not isinstance(tensor, ir.ExternalTensor) and not _is_inline(tensor) and not _filled(graph, value):
            value.const_value = _absent(value)

    learned = {name for name, _ in module.named_parameters(remove_duplicate=False)}
    if learned and learned.isdisjoint(graph.initializers):
        raise ValueError("no parameter has a part in what the exporter made of it")
    statistics = {
        value.name for node in graph if node.op_type == "BatchNormalization" for value in node.inputs[3:5] if value
    }
    unread = [str(v.name) for v in graph.initializers.values() if isinstance(v.const_value, ir.ExternalTensor)]
    buffers = [name for name in unread if name not in learned and name not in statistics]
    buffers += [name for name in _inline_arrays(graph) if name not in learned and name not in statistics]

    for node in graph.all_nodes():
        node.metadata_props.clear()
        node.doc_string = None
        for output in node.outputs:
            output.metadata_props.clear()
            output.doc_string = None
    for value in (*graph.inputs, *graph.initializers.values()):
        value.metadata_props.clear()
        value.doc_string = None
    graph.metadata_props.clear()
    model.metadata_props.clear()
    graph.doc_string = model.doc_string = None
    graph.name = type(module).__name__
    model.producer_name, model.producer_version = "archgauge", None
    if buffers:
        model.metadata_props[BUFFERS_KEY] = "\n".join(buffers)
    proto: onnx.ModelProto = ir.serde.serialize_model(model)
    return proto


def _keep_tables(graph: ir.Graph, module: torch.nn.Module) -> None:
    """Gives small integer buffers their numbers back: lists of channels, say, are part of the architecture."""
    import onnx_ir as ir

    for name, buffer in module.named_buffers(remove_duplicate=False):
        value = graph.initializers.get(name)
        known = buffer.device.type != "meta" and not buffer.dtype.is_floating_point and not buffer.dtype.is_complex
        if value is not None and known and 0 < buffer.numel() <= _INLINE_LIMIT:
            value.const_value = ir.tensor(buffer.detach().cpu().numpy(), name=name)


def _is_inline(tensor: Any) -> bool:
    """Whether a tensor is a small constant with numbers of its own."""
    import onnx_ir as ir

    if tensor is None or isinstance(tensor, ir.ExternalTensor) or tensor.size > _INLINE_LIMIT:
        return False
    return not _is_meta(tensor)


def _is_meta(tensor: Any) -> bool:
    """Whether a tensor of the exporter has no numbers, as it comes from torch's meta device."""
    device = getattr(getattr(tensor, "raw", None), "device", None)
    return getattr(device, "type", "cpu") == "meta"


def _drop_zero_biases(graph: ir.Graph) -> None:
    """Removes constant biases that are all zero: torch's exporter writes them where a layer has none."""
    for node in graph:
        if node.op_type not in ("Conv", "ConvTranspose", "Gemm") or len(node.inputs) < 3:
            continue
        bias = node.inputs[2]
        tensor = bias.const_value if bias is not None else None
        if tensor is None or type(tensor).__name__ == "ExternalTensor":
            continue
        if not tensor.numpy().any():
            node.resize_inputs(2)


def _inline_arrays(graph: ir.Graph) -> Iterator[str]:
    """Names of floating-point constants of more than one element that stay inline."""
    import onnx_ir as ir

    for value in graph.initializers.values():
        tensor = value.const_value
        if tensor is not None and not isinstance(tensor, ir.ExternalTensor) and _is_float_array(tensor):
            yield str(value.name)
    for node in graph:
        held = node.attributes.get("value") if node.op_type == "Constant" else None
        if held is not None and _is_float_array(held.as_tensor()):
            yield str(node.outputs[0].name)


def _filled(graph: ir.Graph, value: ir.Value) -> bool:
    """Writes a large constant that is one number everywhere (a mask that masks nothing) as that number, expanded."""
    import onnx_ir as ir

    tensor = value.const_value
    if tensor is None or _is_meta(tensor) or value.is_graph_output():
        return False
    numbers = tensor.numpy()
    if not bool((numbers == numbers.flat[0]).all()):
        return False
    name = str(value.name)
    number = ir.Value(
        name=f"{name}/number", const_value=ir.tensor(numbers.reshape(-1)[:1].reshape(()), name=f"{name}/number")
    )
    sizes = ir.Value(name=f"{name}/shape", const_value=ir.tensor(list(numbers.shape), name=f"{name}/shape"))
    expanded = ir.node("Expand", [number, sizes])
    del graph.initializers[name]
    ir.convenience.replace_all_uses_with(value, expanded.outputs[0])
    for constant in (number, sizes):
        graph.register_initializer(constant)
    graph.insert_before(graph[0], expanded)
    return True


def _is_float_array(tensor: ir.TensorProtocol) -> bool:
    return tensor.size > 1 and bool(tensor.dtype.is_floating_point())


def _constants_to_initialisers(graph: ir.Graph) -> None:
    """Large constants inside nodes become initialisers, and floating-point arrays that nodes fill such without data."""
    import onnx_ir as ir

    for node in list(graph):
        old = node.outputs[0]
        if node.op_type == "Constant" and "value" in node.attributes:
            tensor = node.attributes["value"].as_tensor()
            if tensor.size <= _INLINE_LIMIT:
                continue
            shape, dtype = ir.Shape(tensor.shape.numpy()), tensor.dtype
        elif node.op_type == "ConstantOfShape" and node.inputs[0] is not None:
            sizes = ir.convenience.get_const_tensor(node.inputs[0])
            dtype = node.attributes["value"].as_tensor().dtype if "value" in node.attributes else ir.DataType.FLOAT
            if sizes is None or not dtype.is_floating_point() or prod(sizes.numpy().tolist()) <= 1:
                continue
            shape, tensor = ir.Shape(sizes.numpy().tolist()), None
        else:
            continue
        if old.is_graph_output():
            continue
        name, old.name = old.name, None
        value = ir.Value(name=name, shape=shape, type=ir.TensorType(dtype))
        value.const_value = _absent(value) if tensor is None else tensor
        ir.convenience.replace_all_uses_with(old, value)
        graph.remove(node, safe=True)
        graph.register_initializer(value)


@contextmanager
def _silent_log() -> Iterator[None]:
    """Keeps off the screen the graph that the tracing exporter's native code prints, to standard output, on failure."""
    import torch

    turn = getattr(torch._C, "_jit_set_onnx_log_output_stream", None)
    if turn is None:
        yield
        return
    turn("stderr")
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:  # noqa: PTH123 (a file descriptor is needed)
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        turn("stdout")


def _shown(inputs: Sequence[_Spec]) -> str:
    return ", ".join(
        f"{name + ' ' if name else ''}{shape} {dtype}".replace("torch.", "") for name, shape, dtype in inputs
    )
