"""`read`: the one way in, for a network from any source."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from . import onnx_reader
from .errors import ReadError, UnreadableFileError
from .graph import ArchGraph
from .model_names import build, is_name
from .onnx_reader import Limits
from .text import is_description, parse, read_file
from .trace import Trace

if TYPE_CHECKING:
    import torch

    Source = onnx_reader.Source | torch.nn.Module | ArchGraph

Shapes = Mapping[str, Sequence[int]] | Sequence[int] | Sequence[Sequence[int]]
"""Input shapes: by input name, one for a network with a single input, or one for each input in order."""


def read(
    source: Source,
    *,
    input_shapes: Shapes | None = None,
    dtypes: Mapping[str, str] | str | None = None,
    limits: Limits = Limits(),  # noqa: B008 (immutable)
    trace: Trace | None = None,
) -> ArchGraph:
    """Reads a network's architecture.

    Args:
        source: Path of an ONNX file, its bytes, a loaded `onnx.ModelProto`, a `torch.nn.Module` (needs the extra
            `torch-export`), the name of a model such as `"timm:resnet50"` or `"transformers:gpt2"` (needs the extra
            `names`; see `model_names`), a text that `describe` wrote or the path of a file with one, or an `ArchGraph`,
            which comes back as it is. Neither weights nor external data files are needed, and nothing is downloaded.
            A `pathlib.Path` always is a file.
        input_shapes: Shapes of the inputs, batch included. ONNX: only where dimensions other than the batch are
            dynamic, by input name: `{"x": (1, 3, 224, 224)}`. Modules: always, e.g. `(1, 3, 224, 224)`, or by argument
            name. Names: only if the usual shapes will not do, as for modules.
        dtypes: Element types of the inputs of a module or name, such as "int64" for token numbers, or by argument
            name. Default: int64 for arguments named `..._ids`, else the type of the module's parameters.
        limits: Bounds on size that protect from absurd files.
        trace: Filled with what reading changed, if given; `explain` shows it.

    Returns:
        The canonical graph.

    Raises:
        UnreadableFileError: No such file, or the system refuses to open it.
        ReadError: The source is no valid network, cannot be exported, or its shapes cannot be worked out.
        LimitError: The source is larger than `limits` allow.
    """
    if isinstance(source, ArchGraph):
        return source
    if isinstance(source, str) and is_name(source):
        return _read_name(source, input_shapes, dtypes, trace)
    if isinstance(source, str) and is_description(source):
        return parse(source, limits)
    if isinstance(source, str | os.PathLike):
        described = _read_description(source, limits)
        if described is not None:
            return described
    if is_module(source):
        if any(base.__module__.partition(".")[0] == "keras" for base in type(source).__mro__):
            raise ReadError(
                "a Keras model cannot be traced as a torch module: call it once, write it with "
                "model.export('model.onnx', format='onnx'), and read that file",
                source=type(source).__name__,
            )
        if input_shapes is None:
            raise ReadError("a torch module says nothing of its inputs; pass input_shapes, e.g. (1, 3, 224, 224)")
        from .torch_reader import read_module

        return read_module(source, input_shapes, dtypes=dtypes, trace=trace)  # type: ignore[arg-type]
    if input_shapes is not None and not isinstance(input_shapes, Mapping):
        raise ReadError(f"input_shapes of an ONNX model must map input names to shapes, got {input_shapes!r}")
    return onnx_reader.read(source, input_shapes=input_shapes, limits=limits, trace=trace)  # type: ignore[arg-type]


def _read_description(path: str | os.PathLike[str], limits: Limits) -> ArchGraph | None:
    try:
        return read_file(path, limits)
    except UnreadableFileError:
        return None  # the ONNX reader says what is wrong with it


def _read_name(
    name: str, input_shapes: Shapes | None, dtypes: Mapping[str, str] | str | None, trace: Trace | None
) -> ArchGraph:
    from .torch_reader import read_module

    built = build(name)
    shapes: Any = input_shapes
    usual = built.input_shapes
    if shapes is None:
        shapes = usual
    elif isinstance(usual, dict):
        if isinstance(shapes, Sequence):  # in the order of the usual inputs
            listed = [shapes] if all(isinstance(part, int) for part in shapes) else shapes
            if len(listed) > len(usual):
                raise ReadError(
                    f"input_shapes has {len(listed)} shapes, expected those of {', '.join(usual)}", source=name
                )
            shapes = dict(zip(usual, listed, strict=False))  # the others stay as usual
        if isinstance(shapes, Mapping):
            shapes = {**usual, **shapes}
    if shapes is None:
        raise ReadError("the library says nothing of this model's inputs; pass input_shapes", source=name)
    try:
        return read_module(built.module, shapes, dtypes=built.dtypes if dtypes is None else dtypes, trace=trace)
    except ReadError as error:
        raise type(error)(error.reason, source=name, node=error.node) from error


def is_module(source: Any) -> bool:
    """Whether this is a `torch.nn.Module`; torch is not imported to find out."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(source, torch.nn.Module)
