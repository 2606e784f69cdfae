"""The README's Python code runs as it stands, in one folder, from top to bottom."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

import pytest

from archgauge.datasets import nas_bench_macro

README = Path(__file__).resolve().parent.parent / "README.md"
CELLS = re.compile(r"(?<!\\)\|")
BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.slow
def test_python_blocks_run(benchmarks_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxscript", reason="the README exports a torch module, which needs onnxscript")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ARCHGAUGE_DATA", str(benchmarks_root))
    (tmp_path / "models").mkdir()
    rows = ["name,top1"]
    for i, spec in enumerate(nas_bench_macro.sample(80, seed=1)):
        (tmp_path / "models" / f"net{i}.onnx").write_bytes(nas_bench_macro.build(spec, "cifar10").SerializeToString())
        rows.append(f"net{i},{0.5 + 0.05 * sum(digit != '0' for digit in spec)}")
    (tmp_path / "labels.csv").write_text("\n".join(rows) + "\n")
    (tmp_path / "model.onnx").write_bytes((tmp_path / "models" / "net0.onnx").read_bytes())
    assert len(BLOCKS) >= 5
    names: dict[str, object] = {}
    for block in BLOCKS:
        exec(compile(block, str(README), "exec"), names)


def test_commands_exist() -> None:
    from archgauge.predictor.cli import app

    known = {command.callback.__name__ for command in app.registered_commands if command.callback}
    shell = "".join(re.findall(r"```bash\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL))
    used = set(re.findall(r"^archgauge (\w+)", shell, re.MULTILINE))
    assert used
    assert used <= known


@pytest.mark.parametrize("file", [README, *sorted(README.parent.glob("docs/*.md"))], ids=lambda file: file.name)
def test_rows_of_tables_have_as_many_cells_as_their_header(file: Path) -> None:
    lines = file.read_text(encoding="utf-8").splitlines()
    pairs = pairwise(lines)
    wrong = [
        row for above, row in pairs if above[:1] == row[:1] == "|" and len(CELLS.split(above)) != len(CELLS.split(row))
    ]
    assert wrong == []
