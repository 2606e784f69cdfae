"""Reads mutated ONNX files and prints what came of them: nothing but archgauge's own errors may come out.

    python benchmarks/fuzz.py [--count 20000] [--seed 0]

Half of the mutations change bytes (bits flipped, pieces cut out, doubled, replaced by pieces of another file, numbers
and truncations put in), the other half leave a valid protobuf (absurd sizes, attributes, types, operators and wires).
Prints the outcomes, the slowest read and the growth of memory. Exit code 1 if any other exception left `read`, a read
took over 5 s, or memory grew by more than 1 GB.
"""

from __future__ import annotations

import argparse
import random
import resource
import signal
import sys
import time
from collections import Counter
from types import FrameType

import onnx
import onnx.parser
from onnx import TensorProto

from archgauge.datasets import darts, nas_bench_101, nas_bench_201
from archgauge.datasets.onnx_builder import OnnxBuilder
from archgauge.encoders.errors import ArchGaugeError
from archgauge.encoders.graph import ArchGraph
from archgauge.encoders.onnx_reader import read

SECONDS = 5
MEMORY = 1_000_000
"""KiB."""

TEXTS = (
    """g (float[N,4] x) => (float[] y) { m = Constant<value_int=5>() t = Constant<value_int=1>() c = Cast<to=9>(t)
        y = Loop(m, c, x) <body = b (int64 i, bool ci, float[1,4] a) => (bool co, float[1,4] o) {
            co = Identity(ci) o = MatMul(a, kernel) }> }""",
    """g (float[N,4,8,8] x) => (float[] y) { s = Shape(x) i = Constant<value_int=1>() c = Gather(s, i)
        z = Constant<value_ints=[0]>() u = Unsqueeze(c, z) m = Constant<value_ints=[-1]>() f = Concat<axis=0>(u, m)
        r = Reshape(x, f) e = Constant<value_ints=[4,64]>() w = Expand(r, e) p, q = Split<axis=1, num_outputs=2>(w)
        a = Add(p, q) y = Softmax(a) }""",
    """g (float[N,6,6,4] x) => (float[] y) { p = Constant<value_ints=[0,1,1,0,0,1,1,0]>() q = Pad(x, p)
        t = Transpose<perm=[0,3,1,2]>(q) s = Constant<value_ints=[1,4,64]>() r = Reshape(t, s) v = MatMul(r, matrix)
        a = Constant<value_ints=[-1]>() m = ReduceMean(v, a) d = Sub(v, m) e = Mul(d, d) f = ReduceMean(e, a)
        h = Sqrt(f) n = Div(d, h) y = Relu(n) }""",
    """g (float[N,4,8,8] x) => (float[] y) { h = Constant<value_int=2>() s = SplitToSequence<axis=1>(x, h)
        i = Constant<value_int=1>() a = SequenceAt(s, i) z = Constant<value_float=0.1>() o = Constant<value_int=0>()
        b = Cast<to=3>(o) q = QuantizeLinear(a, z, b) d = DequantizeLinear(q, z, b) c = Concat<axis=1>(d, a)
        y = GlobalAveragePool(c) }""",
)


def seeds() -> list[bytes]:
    """Files to start from: control flow, shape arithmetic, layout, sequences, functions, attention, real cells."""
    models = []
    for text in TEXTS:
        model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": 20]> {text}')
        for name, shape in (("kernel", (4, 4)), ("matrix", (64, 16))):
            if name in text:
                tensor = model.graph.initializer.add(name=name, dims=shape, data_type=TensorProto.FLOAT)
                tensor.data_location = TensorProto.EXTERNAL
                tensor.external_data.add(key="location", value="weights.bin")
        models.append(model)
    models.append(
        onnx.parser.parse_model(
            '<ir_version: 10, opset_import: ["": 20, "f": 1]> g (float[N,8] x) => (float[] y) { y = f.Silu(x) } '
            '<domain: "f", opset_import: ["": 20]> Silu (a) => (b) { s = Sigmoid(a) b = Mul(a, s) }'
        )
    )
    attention = OnnxBuilder("block", (6, 8))
    scores = attention.softmax(attention.matmul(attention.input, attention.transpose(attention.input, (1, 0))))
    models.append(attention.build(attention.layer_norm(attention.matmul(scores, attention.linear(attention.input, 8)))))
    image = OnnxBuilder("small", (3, 16, 16))
    x = image.relu(image.batch_norm(image.conv(image.input, 8)))
    models.append(image.build(image.linear(image.flatten(image.global_avg_pool(x)), 10)))
    for space in (nas_bench_201, nas_bench_101, darts):
        models.append(space.build(space.sample(1, seed=0)[0], space.TASKS[0]))
    return [model.SerializeToString() for model in models]


def varint(value: int) -> bytearray:
    """A number as protobuf writes it."""
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return encoded


def mutated(data: bytes, other: bytes, rng: random.Random) -> bytes:
    """A few random changes: bits flipped, bytes cut out, doubled or replaced, a piece of another file put in."""
    content = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        content = content or bytearray(b"\0")
        at, length = rng.randrange(len(content)), rng.randrange(1, 24)
        match rng.randrange(7):
            case 0:
                content[at] ^= 1 << rng.randrange(8)
            case 1:
                content[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF))
            case 2:
                del content[at : at + length]
            case 3:
                content[at:at] = content[at : at + length]
            case 4:
                start = rng.randrange(len(other))
                content[at : at + length] = other[start : start + length]
            case 5:
                content[at:at] = bytes(varint(rng.getrandbits(rng.choice((8, 31, 63)))))
            case _:
                content = content[: max(1, at)]
    return bytes(content)


NUMBERS = (0, 1, -1, 2, 3, 7, 255, 2**31 - 1, 2**31, -(2**31), 2**40, 2**62, 2**63 - 1, -(2**63))
OPERATORS = sorted({schema.name for schema in onnx.defs.get_all_schemas() if not schema.domain})


def garbled(data: bytes, other: bytes, rng: random.Random) -> bytes:
    """A few random changes that leave a valid protobuf: sizes, attributes, operators, wires, nodes of another file."""
    model, donor = onnx.ModelProto.FromString(data), onnx.ModelProto.FromString(other)
    graph = model.graph
    for _ in range(rng.choice((1, 1, 2, 3, 5))):
        node = rng.choice(graph.node) if graph.node else graph.node.add()
        names = [name for n in graph.node for name in (*n.input, *n.output)] or ["x"]
        match rng.randrange(12):
            case 0 if node.attribute:
                attribute = rng.choice(node.attribute)
                attribute.i = rng.choice(NUMBERS)
                attribute.ints[:] = [rng.choice(NUMBERS) for _ in range(rng.randrange(6))]
                attribute.type = rng.choice(onnx.AttributeProto.AttributeType.values())
            case 1:
                node.op_type = rng.choice(OPERATORS)
            case 2 if node.input:
                node.input[rng.randrange(len(node.input))] = rng.choice([*names, ""])
            case 3:
                del node.input[rng.randrange(len(node.input) + 1) :]
            case 4:
                node.input.append(rng.choice(names))
            case 5 if graph.initializer:
                tensor = rng.choice(graph.initializer)
                tensor.dims[:] = [rng.choice(NUMBERS) for _ in range(rng.randrange(5))]
            case 6 if graph.initializer:
                rng.choice(graph.initializer).data_type = rng.randrange(25)
            case 7 if graph.input:
                dims = rng.choice(graph.input).type.tensor_type.shape.dim
                if dims:
                    rng.choice(dims).dim_value = rng.choice(NUMBERS)
            case 8:
                graph.node.add().CopyFrom(rng.choice(donor.graph.node))
            case 9 if graph.node:
                del graph.node[rng.randrange(len(graph.node))]
            case 10:
                model.opset_import[0].version = rng.randrange(-1, 40)
            case _:
                attribute = node.attribute.add(name=rng.choice(("axis", "axes", "pads", "group", "perm", "to", "body")))
                attribute.type = onnx.AttributeProto.INTS
                attribute.ints[:] = [rng.choice(NUMBERS) for _ in range(rng.randrange(5))]
    return bytes(model.SerializeToString())


class TooSlowError(Exception):
    """A read took too long."""


def _alarm(_number: int, _frame: FrameType | None) -> None:
    raise TooSlowError(f"over {SECONDS} s")


def main() -> int:
    """Reads the mutated files and prints the outcomes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    originals = seeds()
    for data in originals:
        read(data)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    outcomes: Counter[str] = Counter()
    wrong: list[str] = []
    slowest = (0.0, 0)
    signal.signal(signal.SIGALRM, _alarm)
    for number in range(options.count):
        rng = random.Random(f"{options.seed}/{number}")
        change = garbled if number % 2 else mutated
        data = change(rng.choice(originals), rng.choice(originals), rng)
        started = time.perf_counter()
        signal.alarm(SECONDS)
        try:
            graph = read(data)
            assert ArchGraph.from_json(graph.to_json()) == graph
            outcomes["read"] += 1
        except ArchGaugeError as error:
            outcomes[type(error).__name__] += 1
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            wrong.append(f"{number}: {type(error).__name__}: {error}")
        finally:
            signal.alarm(0)
        slowest = max(slowest, (time.perf_counter() - started, number))
        if sys.stderr.isatty() and not number % 500:
            print(f"\r{number}/{options.count}", end="", file=sys.stderr)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(f"mutated files: {options.count} (seed {options.seed}, {len(originals)} originals)")
    for outcome, count in outcomes.most_common():
        print(f"  {outcome:20} {count:7}")
    print(f"  {'other exceptions':20} {len(wrong):7}")
    for line in wrong[:20]:
        print(f"    {line}")
    print(f"slowest: {slowest[0]:.2f} s (number {slowest[1]}); memory grew by {grown / 1024:.0f} MB")
    return int(bool(wrong) or slowest[0] > SECONDS or grown > MEMORY)


if __name__ == "__main__":
    sys.exit(main())
