"""The training configuration: round trip and errors."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archgauge.encoders.errors import ConfigError
from archgauge.predictor.config import TrainConfig

names = st.lists(st.text(st.characters(codec="ascii"), min_size=1, max_size=8), min_size=1, max_size=3).map(tuple)


@given(
    st.builds(
        TrainConfig,
        benchmarks=names,
        encoders=names,
        heads=names,
        n_seeds=st.integers(1, 9),
        seed=st.integers(0, 2**31),
        folds=st.sampled_from([0, 2, 10]),
        limit=st.integers(0, 10**6),
        out=st.text(min_size=1, max_size=12),
    )
)
def test_toml_round_trip(tmp_path_factory: pytest.TempPathFactory, config: TrainConfig) -> None:
    path = tmp_path_factory.mktemp("config") / "config.toml"
    path.write_text(config.to_toml(), encoding="utf-8")
    assert TrainConfig.load(path) == config


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sed = 1", "did you mean 'seed'"),
        ("zzz = 1", "known are"),
        ("seed = -1", "at least 0, got -1"),
        ("seed = true", "got True"),
        ("n_seeds = 0", "at least 1, got 0"),
        ("heads = []", "list of at least one name"),
        ("folds = 1", "expected 0"),
        ("seed = ", "cannot be read as TOML"),
    ],
)
def test_bad_files_are_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "config.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        TrainConfig.load(path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        TrainConfig.load(tmp_path / "none.toml")
