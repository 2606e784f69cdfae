"""How long scoring takes with the predictor that ships: starting Python, and 1,000 files of NAS-Bench-201 from disk.

    python benchmarks/score_speed.py [--networks 1000]

`start` is measured in fresh interpreters: importing archgauge, loading the predictor, the first score; the least of
three. `files` reads, encodes and scores the files one after the other in one process without any cache, with the
shipped predictor alone, and with the embeddings of both neural encoders besides. `onnx.load` of the same files stands
beside it.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import onnx

import archgauge as ag
from archgauge.datasets import nas_bench_201

START = """
import json, sys, time
start = time.perf_counter()
import archgauge
model = archgauge.Predictor.load()
loaded = time.perf_counter()
model.score(sys.argv[1])
print(json.dumps([loaded - start, time.perf_counter() - loaded, "torch" in sys.modules]))
"""


def seconds(work: Callable[[], object]) -> float:
    """Seconds that a call takes by the clock."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    """Writes the files, measures, prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", type=int, default=1000, help="files to score (default: %(default)s)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        files = []
        for i, spec in enumerate(nas_bench_201.sample(options.networks, 0)):
            file = Path(name) / f"{i}.onnx"
            file.write_bytes(nas_bench_201.build(spec, "cifar10").SerializeToString())
            files.append(str(file))
        runs = [
            json.loads(subprocess.run([sys.executable, "-c", START, files[0]], capture_output=True, check=True).stdout)
            for _ in range(3)
        ]
        load, first, torch = min(runs)
        print(f"start: {load:.2f} s to import and load, {first:.2f} s for the first score; torch imported: {torch}")
        plain = seconds(lambda: [onnx.load(file, load_external_data=False) for file in files])
        model = ag.Predictor.load()
        score = seconds(lambda: model.score(files))
        graphs = [ag.read(file) for file in files]
        extra = {name: seconds(lambda name=name: model.embed(graphs, encoder=name)) for name in ("graph", "text")}
        print(f"files: {len(files)} of NAS-Bench-201; onnx.load {plain:.1f} s, read and scored {score:.1f} s")
        more = ", ".join(f"{name} encoder {value:.1f} s more" for name, value in extra.items())
        print(f"       {more}; everything {score + sum(extra.values()):.1f} s")


if __name__ == "__main__":
    main()
