"""The Python blocks of docs/ run as they stand, each alone, and print what the page says they print."""

from __future__ import annotations

import re
from contextlib import redirect_stdout
from importlib.util import find_spec
from io import StringIO
from pathlib import Path

import pytest

PAGES = sorted((Path(__file__).resolve().parent.parent / "docs").glob("*.md"))
BLOCK = re.compile(r"(?:<!-- needs: ([\w, ]+) -->\n)?```python\n(.*?)```\n(?:\n```text\n(.*?)```)?", re.DOTALL)
CASES = [
    pytest.param(page, *match.groups(default=""), id=f"{page.stem}-{number}")
    for page in PAGES
    for number, match in enumerate(BLOCK.finditer(page.read_text(encoding="utf-8")), 1)
]


def test_there_are_blocks() -> None:
    assert len(CASES) > 10
    assert len(CASES) == sum(page.read_text(encoding="utf-8").count("```python") for page in PAGES)


@pytest.mark.slow
@pytest.mark.parametrize(("page", "needs", "code", "printed"), CASES)
def test_block(
    page: Path, needs: str, code: str, printed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = [name for name in ("onnxscript", *re.findall(r"\w+", needs)) if find_spec(name) is None]
    if missing:
        pytest.skip(f"needs {', '.join(missing)}")
    monkeypatch.chdir(tmp_path)
    output = StringIO()
    with redirect_stdout(output):
        exec(compile(code, str(page), "exec"), {"__name__": "block"})
    assert output.getvalue() == printed
