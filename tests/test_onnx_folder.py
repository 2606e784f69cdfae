"""ONNX files that carry their accuracy."""

from pathlib import Path
from typing import Any

import onnx
import pytest

import archgauge as ag
from archgauge.datasets import nas_bench_201, nas_bench_macro
from archgauge.datasets.onnx_folder import from_onnx_folder
from archgauge.encoders.errors import ArchGaugeError, ConfigError, DataError

SPECS = nas_bench_201.sample(4, 1)


def save(path: Path, spec: str, *entries: tuple[str, str]) -> onnx.ModelProto:
    model = nas_bench_201.build(spec, "cifar10")
    for key, value in entries:
        model.metadata_props.add(key=key, value=value)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(model.SerializeToString())
    return model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The layout of ONNX-Bench: one folder a space, for einspace with task and seed below."""
    root = tmp_path / "bench"
    save(root / "nasbench201_simplify" / "b.onnx", SPECS[0], ("val_accuracy", "91.5"), ("top5", "99"))
    save(root / "nasbench201_simplify" / "a.onnx", SPECS[1], ("accuracy", " 88.25 "))
    save(root / "einspace_simplify" / "cifar10" / "seed_0" / "12.onnx", SPECS[2], ("acc", "0.5"))
    return root


def test_networks_and_accuracies_are_read(folder: Path) -> None:
    bench = from_onnx_folder(folder)
    assert bench.name == "bench"
    assert bench.task == "cifar10"
    assert bench.names == ("einspace_simplify/cifar10/seed_0/12", "nasbench201_simplify/a", "nasbench201_simplify/b")
    assert bench.accuracy.tolist() == [0.5, 88.25, 91.5]
    expected = [ag.read(nas_bench_201.build(SPECS[at], "cifar10")).hash for at in (2, 1, 0)]
    assert list(bench.hashes) == expected
    assert bench.skipped == ()
    assert bench.epochs is None


def test_groups_names_and_keys_can_be_given(folder: Path) -> None:
    bench = from_onnx_folder(
        folder / "nasbench201_simplify",
        name="mine",
        task="cifar100",
        group=lambda name: name[0],
        key="top5",
        on_error="skip",
        epochs=12,
    )
    assert bench.epochs == 12
    assert (bench.name, bench.task, bench.names, bench.groups) == ("mine", "cifar100", ("b",), ("b",))
    assert bench.accuracy.tolist() == [99]
    assert [name for name, _ in bench.skipped] == ["a"]


def test_bad_files_are_skipped_and_listed(folder: Path, tmp_path: Path) -> None:
    save(folder / "none.onnx", SPECS[3])
    save(folder / "text.onnx", SPECS[3], ("accuracy", "high"))
    save(folder / "nan.onnx", SPECS[3], ("accuracy", "nan"))
    save(folder / "big.onnx", SPECS[3], ("accuracy", "101"))
    (folder / "junk.onnx").write_bytes(b"junk")
    (folder / "empty.onnx").write_bytes(b"")
    (folder / "folder.onnx").mkdir()
    (folder / "labels.csv").write_text("name,accuracy\n")
    save(tmp_path / "outside.onnx", SPECS[3], ("accuracy", "50"))
    (folder / "link.onnx").symlink_to(tmp_path / "outside.onnx")
    bench = from_onnx_folder(folder)
    assert len(bench) == 3
    reasons = dict(bench.skipped)
    assert set(reasons) == {"none", "text", "nan", "big", "junk", "empty", "folder", "link"}
    assert "its entries are none" in reasons["none"]
    assert "'high', expected a number" in reasons["text"]
    assert "'nan', expected a number" in reasons["nan"]
    assert "101 percent" in reasons["big"]
    assert "outside of" in reasons["link"]
    assert all(str(folder / f"{name}.onnx") in reason for name, reason in reasons.items())
    with pytest.raises(ArchGaugeError):
        from_onnx_folder(folder, on_error="raise")


def test_fractions_must_be_declared(tmp_path: Path) -> None:
    for at, value in enumerate(("0.25", "0.75")):
        save(tmp_path / f"{at}.onnx", SPECS[at], ("accuracy", value))
    with pytest.raises(DataError, match="unit='fraction'"):
        from_onnx_folder(tmp_path)
    assert from_onnx_folder(tmp_path, unit="fraction").accuracy.tolist() == [25, 75]
    save(tmp_path / "3.onnx", SPECS[2], ("accuracy", "75"))
    bench = from_onnx_folder(tmp_path, unit="fraction")
    assert [name for name, _ in bench.skipped] == ["3"]


def test_wrong_folders_and_options_are_refused(tmp_path: Path) -> None:
    wrong: Any = "permille"
    with pytest.raises(DataError, match="no such folder"):
        from_onnx_folder(tmp_path / "missing")
    with pytest.raises(DataError, match="no ONNX file with an accuracy"):
        from_onnx_folder(tmp_path)
    save(tmp_path / "a.onnx", SPECS[0])
    with pytest.raises(DataError, match="the first of 1: 'a'"):
        from_onnx_folder(tmp_path)
    with pytest.raises(DataError, match="lacks the entry 'top1'"):
        from_onnx_folder(tmp_path, key="top1", on_error="raise")
    with pytest.raises(ConfigError, match="unit is 'permille'"):
        from_onnx_folder(tmp_path, unit=wrong)
    with pytest.raises(ConfigError, match="on_error is 'permille'"):
        from_onnx_folder(tmp_path, on_error=wrong)


def test_weights_and_external_data_are_not_needed(tmp_path: Path) -> None:
    model = nas_bench_macro.build("01201201", "cifar10")
    model.metadata_props.add(key="accuracy", value="90")
    (tmp_path / "a.onnx").write_bytes(model.SerializeToString())
    assert not (tmp_path / "weights.bin").exists()
    assert len(from_onnx_folder(tmp_path)) == 1
