"""`read`: the one way in, for a network from any source."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from . import onnx_reader
from .errors import ReadError
from .graph import ArchGraph
from .onnx_reader import Limits

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
) -> ArchGraph:
    """Reads a network's architecture.

    Args:
        source: Path of an ONNX file, its bytes, a loaded `onnx.ModelProto`, a `torch.nn.Module` (needs the extra
            `torch-export`), or an `ArchGraph`, which comes back as it is. Neither weights nor external data files are
            needed.
        input_shapes: Shapes of the inputs, batch included. ONNX: only where dimensions other than the batch are
            dynamic, by input name: `{"x": (1, 3, 224, 224)}`. Modules: always, e.g. `(1, 3, 224, 224)`, or by argument
            name.
        dtypes: Element types of a module's inputs, such as "int64" for token numbers, or by argument name. Default:
            int64 for arguments named `..._ids`, else the type of the module's parameters.
        limits: Bounds on size that protect from absurd files.

    Returns:
        The canonical graph.

    Raises:
        UnreadableFileError: No such file, or the system refuses to open it.
        ReadError: The source is no valid network, cannot be exported, or its shapes cannot be worked out.
        LimitError: The source is larger than `limits` allow.
    """
    if isinstance(source, ArchGraph):
        return source
    if is_module(source):
        if input_shapes is None:
            raise ReadError("a torch module says nothing of its inputs; pass input_shapes, e.g. (1, 3, 224, 224)")
        from .torch_reader import read_module

        return read_module(source, input_shapes, dtypes=dtypes)  # type: ignore[arg-type]
    if input_shapes is not None and not isinstance(input_shapes, Mapping):
        raise ReadError(f"input_shapes of an ONNX model must map input names to shapes, got {input_shapes!r}")
    return onnx_reader.read(source, input_shapes=input_shapes, limits=limits)  # type: ignore[arg-type]


def is_module(source: Any) -> bool:
    """Whether this is a `torch.nn.Module`; torch is not imported to find out."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(source, torch.nn.Module)
