"""Shared by all tests: paths, the benchmark files, a cache folder of their own, few threads."""

import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import settings
from safetensors.numpy import save_file

ROOT = Path(__file__).resolve().parents[1]

# `python -m pytest` puts the repository first on the path, where our folder "datasets" would pass for Hugging Face's.
sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != ROOT]

# Before anything imports numpy's or torch's native parts.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from archgauge.datasets.onnx_builder import WEIGHTS_FILE  # noqa: E402

settings.register_profile("archgauge", deadline=None)
settings.load_profile("archgauge")


def _shapes_in(model: onnx.ModelProto) -> dict[str, tuple[int | str, ...]]:
    return {
        value.name: tuple(dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim)
        for values in (model.graph.value_info, model.graph.output)
        for value in values
    }


def _assert_onnx_agrees(model: onnx.ModelProto) -> None:
    with tempfile.TemporaryDirectory() as folder:
        # The checker wants the file of weights to be there and does not look into it.
        (Path(folder) / WEIGHTS_FILE).touch()
        path = Path(folder) / "model.onnx"
        path.write_bytes(model.SerializeToString())
        onnx.checker.check_model(path, full_check=True)
    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    del bare.graph.value_info[:]
    for output in bare.graph.output:
        output.type.tensor_type.ClearField("shape")
    inferred = onnx.shape_inference.infer_shapes(bare, check_type=True, strict_mode=True, data_prop=True)
    assert _shapes_in(inferred) == _shapes_in(model)


@pytest.fixture(scope="session")
def shapes_in() -> Callable[[onnx.ModelProto], dict[str, tuple[int | str, ...]]]:
    """The shapes that a model states, by value name."""
    return _shapes_in


@pytest.fixture
def spoilt(tmp_path: Path) -> Callable[[Path, dict[str, str], Iterable[str]], list[Path]]:
    """Makes files that are not what a good one is: missing, without metadata, cut off, of another kind."""

    def make(good: Path, about: dict[str, str], names: Iterable[str]) -> list[Path]:
        other, broken, foreign = (tmp_path / f"{name}.safetensors" for name in ("other", "broken", "foreign"))
        save_file({"x": np.zeros(3)}, other)
        broken.write_bytes(good.read_bytes()[:100])
        save_file({name: np.zeros(1) for name in names}, foreign, {"kind": "else", "about": json.dumps(about)})
        return [tmp_path / "none", other, broken, foreign]

    return make


@pytest.fixture(scope="session")
def assert_onnx_agrees() -> Callable[[onnx.ModelProto], None]:
    """ONNX accepts the model and infers the very shapes that the builder wrote."""
    return _assert_onnx_agrees


@pytest.fixture(scope="session")
def benchmarks_root() -> Path:
    """The folder with the published files; without it the test is skipped (or fails if ARCHGAUGE_REQUIRE_DATA=1)."""
    root = Path(os.environ.get("ARCHGAUGE_DATA") or ROOT.parent / "shared" / "benchmarks")
    if not (root / "nas_bench_201" / "raw").is_dir():
        reason = f"needs the benchmark files in ARCHGAUGE_DATA; there are none in {root}"
        if os.environ.get("ARCHGAUGE_REQUIRE_DATA") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    return root


@pytest.fixture(scope="session", autouse=True)
def cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ARCHGAUGE_CACHE for all tests: a fresh folder, unless the environment names one already."""
    named = os.environ.get("ARCHGAUGE_CACHE")
    if not named:
        named = os.environ["ARCHGAUGE_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    return Path(named)
