"""Reads every model of the installed `onnx` package's own test suite and prints what came of it.

The suite: the files under `onnx/backend/test/data`, and the node tests, which recent versions of onnx no longer ship as
files but generate (`onnx.backend.test.case`).

    python benchmarks/onnx_suite.py [--times]

Exit code 1 if anything but archgauge's own errors leaves `read`, or if fewer than 99 % of the models read.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
from onnx.backend.test.case.node import collect_testcases

from archgauge.encoders.errors import ArchGaugeError
from archgauge.encoders.onnx_reader import read

REQUIRED = 0.99


def suite() -> Iterator[tuple[str, str, Path | bytes]]:
    """(folder, name, path or bytes) of every model."""
    data = Path(onnx.__file__).parent / "backend" / "test" / "data"
    for path in sorted(data.rglob("*.onnx")):
        yield path.relative_to(data).parts[0], path.parent.name if path.name == "model.onnx" else path.name, path
    shipped = (data / "node").is_dir()
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        cases = [] if shipped else collect_testcases(None)
    for case in cases:
        if case.model is not None:
            yield "node", case.name, case.model.SerializeToString()


def main() -> int:
    """Reads all, prints counts by folder, the refusals by reason, and the untyped failures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", action="store_true", help="print the ten slowest models")
    options = parser.parse_args()
    read_by_folder: Counter[str] = Counter()
    total_by_folder: Counter[str] = Counter()
    unknown: Counter[str] = Counter()
    refused: dict[tuple[str, str], list[str]] = {}
    untyped: list[str] = []
    times: list[tuple[float, str]] = []
    for folder, name, source in suite():
        total_by_folder[folder] += 1
        started = time.perf_counter()
        try:
            graph = read(source)
        except ArchGaugeError as error:
            reason = re.sub(r"'[^']*'|\d+", "…", getattr(error, "reason", str(error)))
            refused.setdefault((type(error).__name__, reason), []).append(name)
        except Exception as error:  # the very thing this program looks for
            untyped.append(f"{name}: {type(error).__name__}: {error}")
        else:
            read_by_folder[folder] += 1
            unknown.update(graph.unknown_ops)
        times.append((time.perf_counter() - started, name))
    done, total = sum(read_by_folder.values()), sum(total_by_folder.values())
    print(f"onnx {onnx.__version__}: {total} models, {done} read ({done / total:.2%})")
    for folder, count in sorted(total_by_folder.items()):
        print(f"  {folder:20} {read_by_folder[folder]:5} of {count}")
    print(f"refused with a typed error: {sum(map(len, refused.values()))}")
    for (kind, reason), names in sorted(refused.items(), key=lambda item: -len(item[1])):
        print(f"  {len(names):4}  {kind}: {reason}\n        {', '.join(sorted(names)[:6])}")
    print(f"untyped exceptions: {len(untyped)}")
    for line in untyped:
        print(f"  {line}")
    print(f"operators outside the vocabulary: {', '.join(sorted(unknown)) or 'none'}")
    if options.times:
        for seconds, name in sorted(times, reverse=True)[:10]:
            print(f"  {seconds * 1e3:8.1f} ms  {name}")
    return int(bool(untyped) or done < REQUIRED * total)


if __name__ == "__main__":
    sys.exit(main())
