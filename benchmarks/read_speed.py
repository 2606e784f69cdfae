"""How long reading takes, beside what onnx itself needs to load a model and infer its shapes.

    python benchmarks/read_speed.py [--repeats 40] [--exports]

With `--exports`, first the files that torch's two exporters write of networks of torchvision (`pip install '.[zoo]'`):
with their weights, as users have them, and the same files without.

Prints milliseconds of processor time (lower quartile over the repeats, all measured in this one run) for
load + infer (`onnx.load_from_string`, `onnx.shape_inference.infer_shapes`), read + hash, and read + hash + statistics,
and the ratios. Then the time per node for chains and grids of up to 20,000 nodes. All models are weightless.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import onnx
from onnx import shape_inference

from archgauge.datasets import nas_bench_201, nas_bench_macro
from archgauge.datasets.onnx_builder import OnnxBuilder
from archgauge.encoders.onnx_reader import read
from archgauge.encoders.statistics import statistics

BUDGET = 3.0


def quartile(function: Callable[[], object], repeats: int) -> float:
    """Lower quartile of the processor time of a call, in ms."""
    function()
    times = []
    for _ in range(repeats):
        started = time.process_time()
        function()
        times.append(time.process_time() - started)
    return sorted(times)[repeats // 4] * 1e3


def row(name: str, data: bytes, repeats: int) -> float:
    """Prints one line of the table; the ratio of read + hash to load + infer."""
    model = onnx.load_from_string(data)
    base = quartile(lambda: shape_inference.infer_shapes(onnx.load_from_string(data)), repeats)
    reading = quartile(lambda: read(data).hash, repeats)

    def all_of_it() -> None:
        graph = read(data)
        _ = graph.hash
        statistics(graph)

    everything = quartile(all_of_it, repeats)
    print(
        f"{name:28} {len(model.graph.node):6} {base:9.2f} {reading:9.2f} {reading / base:6.2f} "
        f"{everything:9.2f} {everything / base:6.2f}"
    )
    return reading / base


def chain(cells: int) -> bytes:
    """Residual cells in a row: conv, norm, relu, sum; four nodes each."""
    net = OnnxBuilder("chain", (16, 8, 8))
    x = net.conv(net.input, 16)
    for _ in range(cells):
        x = net.add(x, net.relu(net.batch_norm(net.conv(x, 16))))
    return bytes(net.build(net.linear(net.flatten(net.global_avg_pool(x)), 10)).SerializeToString())


def twins(cells: int) -> bytes:
    """Cells of two equal branches, which nothing but tie-breaking can put in order; seven nodes each."""
    net = OnnxBuilder("twins", (16, 8, 8))
    x = net.conv(net.input, 16)
    for _ in range(cells):
        branches = [net.relu(net.batch_norm(net.conv(x, 16))) for _ in range(2)]
        x = net.add(branches[0], branches[1])
    return bytes(net.build(net.linear(net.flatten(net.global_avg_pool(x)), 10)).SerializeToString())


EXPORTED = ("resnet50", "densenet121", "efficientnet_b0", "convnext_tiny", "vit_b_16", "swin_t")


def exported() -> None:
    """Prints the table of exported files."""
    import contextlib
    import io
    import tempfile
    import warnings

    import torch
    import torchvision

    head = ("ms of processor time", "nodes", "load+inf", "read", "ratio", "no weights", "ratio")
    print("{:28} {:>6} {:>9} {:>9} {:>6} {:>11} {:>6}".format(*head))
    for name in EXPORTED:
        module = torchvision.models.get_model(name, weights=None).eval()
        image = torch.rand(1, 3, 224, 224)
        for dynamo in (True, False):
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "model.onnx"
                try:
                    with (
                        contextlib.redirect_stdout(io.StringIO()),
                        contextlib.redirect_stderr(io.StringIO()),
                        warnings.catch_warnings(),
                    ):
                        warnings.simplefilter("ignore")
                        torch.onnx.export(module, (image,), path, dynamo=dynamo, verbose=False)
                except torch.onnx.errors.OnnxExporterError:
                    continue  # the tracing exporter knows no fused attention
                base = quartile(lambda path=path: shape_inference.infer_shapes(onnx.load(path)), 4)  # type: ignore[misc]
                reading = quartile(lambda path=path: read(path).hash, 8)  # type: ignore[misc]
                bare = onnx.load(path, load_external_data=False)
                for tensor in bare.graph.initializer:
                    if len(tensor.raw_data) > 4096:
                        tensor.ClearField("raw_data")
                        tensor.data_location = onnx.TensorProto.EXTERNAL
                        tensor.external_data.add(key="location", value="weights.bin")
                data = bare.SerializeToString()
                bare_base = quartile(
                    lambda data=data: shape_inference.infer_shapes(onnx.load_from_string(data)),  # type: ignore[misc]
                    8,
                )
                bare_reading = quartile(lambda data=data: read(data).hash, 8)  # type: ignore[misc]
                label = f"{name} {'dynamo' if dynamo else 'legacy'}"
                print(
                    f"{label:28} {len(bare.graph.node):6} {base:9.1f} {reading:9.1f} {reading / base:6.2f} "
                    f"{bare_base:11.1f} {bare_reading / bare_base:6.2f}"
                )


def main() -> None:
    """Prints both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=40)
    parser.add_argument("--exports", action="store_true")
    options = parser.parse_args()
    repeats = options.repeats
    if options.exports:
        exported()
    print(
        f"{'ms of processor time':28} {'nodes':>6} {'load+inf':>9} {'read':>9} {'ratio':>6} {'+stats':>9} {'ratio':>6}"
    )
    ratios = []
    for spec in nas_bench_201.sample(5, seed=0):
        data = nas_bench_201.build(spec, "cifar10").SerializeToString()
        ratios.append(row(f"nas_bench_201 {len(data) >> 10} kB", data, repeats))
    print(f"mean ratio of read to load+infer: {sum(ratios) / len(ratios):.2f} (budget {BUDGET:g})")
    for spec in nas_bench_macro.sample(1, seed=0):
        row(f"nas_bench_macro {spec[:12]}", nas_bench_macro.build(spec, "cifar10").SerializeToString(), repeats)
    light = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
    for path in sorted(light.glob("*.onnx")):
        row(path.stem, path.read_bytes(), max(4, repeats // 4))
    print(f"\n{'linearity':28} {'nodes':>6} {'ms':>9} {'µs/node':>9}")
    for name, build, size in (("chain", chain, 4), ("twins", twins, 7)):
        for nodes in (300, 1000, 3000, 10_000, 20_000):
            data = build(nodes // size)
            count = len(onnx.load_from_string(data).graph.node)
            spent = quartile(lambda data=data: read(data).hash, 4)  # type: ignore[misc]
            print(f"{name:28} {count:6} {spent:9.1f} {spent * 1e3 / count:9.2f}")


if __name__ == "__main__":
    main()
