"""What is installed is what is on disk, and imports point one way."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LAYERS = ("encoders", "datasets", "predictor")
HEAVY = {"torch", "torch_geometric", "transformers"}


def modules() -> list[Path]:
    return sorted(path for layer in LAYERS for path in (ROOT / layer).glob("*.py"))


def test_every_package_on_disk_is_listed_for_the_wheel() -> None:
    config = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    homes = {ROOT / folder: name for name, folder in config["package-dir"].items()}
    on_disk = {path.parent for layer in LAYERS for path in (ROOT / layer).rglob("__init__.py")}
    on_disk.add(ROOT / "src" / "archgauge")
    assert on_disk == set(homes)
    assert set(homes.values()) == set(config["packages"])


def test_no_top_level_module_called_datasets_is_installed() -> None:
    config = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert all(name.split(".")[0] == "archgauge" for name in config["packages"])


def imports(path: Path) -> set[str]:
    """Dotted names a module imports, relative ones resolved inside `archgauge`."""
    here = ["archgauge", path.parent.name]
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = here[: len(here) - node.level + 1] if node.level else []
            stem = ".".join([*base, *([node.module] if node.module else [])])
            found |= {f"{stem}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("path", modules(), ids=lambda path: f"{path.parent.name}.{path.stem}")
def test_imports_point_from_predictor_to_datasets_to_encoders(path: Path) -> None:
    above = LAYERS[LAYERS.index(path.parent.name) + 1 :]
    wrong = [name for name in imports(path) for layer in above if name.startswith(f"archgauge.{layer}")]
    assert not wrong


def test_an_upward_import_would_be_seen(tmp_path: Path) -> None:
    folder = tmp_path / "encoders"
    folder.mkdir()
    module = folder / "bad.py"
    module.write_text("from ..predictor.model import Predictor\n")
    assert imports(module) == {"archgauge.predictor.model.Predictor"}


def loaded_after(code: str) -> set[str]:
    """Top-level modules in a fresh interpreter after running `code`."""
    script = f"{code}\nimport sys; print(' '.join(sorted({{name.partition('.')[0] for name in sys.modules}})))"
    done = subprocess.run([sys.executable, "-P", "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "code",
    [
        "import archgauge",
        "import archgauge; archgauge.read; archgauge.statistics",
        "import archgauge; archgauge.load_benchmark('imagenet_zoo')",
    ],
)
def test_reading_and_counting_need_no_neural_network_library(code: str) -> None:
    assert not loaded_after(code) & HEAVY


def test_every_public_name_loads() -> None:
    import archgauge

    for name in archgauge.__all__:
        assert getattr(archgauge, name) is not None
    assert set(archgauge.__all__) <= set(dir(archgauge))
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = archgauge.nonsense


def test_hugging_face_datasets_is_not_shadowed() -> None:
    code = (
        "from importlib.util import find_spec as f; s = f('datasets'); assert s is None or 'site-packages' in s.origin"
    )
    subprocess.run([sys.executable, "-P", "-c", code], check=True, cwd=ROOT)
