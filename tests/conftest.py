"""Shared by all tests: paths, the benchmark files, a cache folder of their own, few threads."""

import os
import sys
from pathlib import Path

import pytest
from hypothesis import settings

ROOT = Path(__file__).resolve().parents[1]

# `python -m pytest` puts the repository first on the path, where our folder "datasets" would pass for Hugging Face's.
sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != ROOT]

# Before anything imports numpy's or torch's native parts.
os.environ.setdefault("OMP_NUM_THREADS", "1")

settings.register_profile("archgauge", deadline=None)
settings.load_profile("archgauge")


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
