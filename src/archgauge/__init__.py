"""archgauge: how good would this network be once trained? Answered from its architecture alone.

Names load when they are first used, so `import archgauge` is quick and brings in neither torch nor transformers.
"""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .datasets.benchmark import Benchmark, leave_space_out
    from .datasets.official_files import load_official
    from .datasets.onnx_folder import from_onnx_folder
    from .datasets.registry import BenchmarkRecord, list_benchmarks, load_benchmark
    from .encoders.difference import Difference, diff
    from .encoders.doctor import doctor
    from .encoders.errors import (
        ArchGaugeError,
        CheckpointError,
        ConfigError,
        DataError,
        DownloadError,
        GraphError,
        LimitError,
        NotFittedError,
        OutputError,
        ReadError,
        UnreadableFileError,
    )
    from .encoders.explanation import Explanation, explain
    from .encoders.graph import ArchGraph, Node
    from .encoders.onnx_reader import Limits
    from .encoders.reading import read
    from .encoders.statistics import statistics
    from .encoders.text import describe, parse
    from .predictor.evaluation import Evaluation
    from .predictor.model import Predictor
    from .predictor.score import Ranked, Score

__version__ = version("archgauge")

_HOMES = {
    "datasets.benchmark": ("Benchmark", "leave_space_out"),
    "datasets.official_files": ("load_official",),
    "datasets.onnx_folder": ("from_onnx_folder",),
    "datasets.registry": ("BenchmarkRecord", "list_benchmarks", "load_benchmark"),
    "encoders.difference": ("Difference", "diff"),
    "encoders.doctor": ("doctor",),
    "encoders.explanation": ("Explanation", "explain"),
    "encoders.errors": (
        "ArchGaugeError",
        "CheckpointError",
        "ConfigError",
        "DataError",
        "DownloadError",
        "GraphError",
        "LimitError",
        "NotFittedError",
        "OutputError",
        "ReadError",
        "UnreadableFileError",
    ),
    "encoders.graph": ("ArchGraph", "Node"),
    "encoders.onnx_reader": ("Limits",),
    "encoders.reading": ("read",),
    "encoders.statistics": ("statistics",),
    "encoders.text": ("describe", "parse"),
    "predictor.evaluation": ("Evaluation",),
    "predictor.model": ("Predictor",),
    "predictor.score": ("Ranked", "Score"),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "ArchGaugeError",
    "ArchGraph",
    "Benchmark",
    "BenchmarkRecord",
    "CheckpointError",
    "ConfigError",
    "DataError",
    "Difference",
    "DownloadError",
    "Evaluation",
    "Explanation",
    "GraphError",
    "LimitError",
    "Limits",
    "Node",
    "NotFittedError",
    "OutputError",
    "Predictor",
    "Ranked",
    "ReadError",
    "Score",
    "UnreadableFileError",
    "__version__",
    "describe",
    "diff",
    "doctor",
    "explain",
    "from_onnx_folder",
    "leave_space_out",
    "list_benchmarks",
    "load_benchmark",
    "load_official",
    "parse",
    "read",
    "statistics",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'archgauge' has no attribute {name!r}")
    value = getattr(import_module(f".{_HOME_OF[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
