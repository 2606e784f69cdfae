"""How many tokens descriptions take, and whether every network comes back from its text.

    python benchmarks/description.py [--samples 30] [--tokenizer tokenizer.json] [--zoo/--no-zoo]

Samples of every search space, and the networks of the ImageNet zoo that ships with archgauge: median and 99th
percentile of the tokens of the levels full, compact and chain_slim; the ratio of chain_slim to compact (medians);
networks whose graph did not come back; distinct graphs and distinct texts (equal if no two different graphs share one);
milliseconds of processor time to describe (compact) and to parse. Without a tokenizer, tokens are pieces: runs of
letters, of up to three digits, and single signs.
"""

from __future__ import annotations

import argparse
import re
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np

from archgauge import ArchGraph, load_benchmark
from archgauge.datasets.cache import builder
from archgauge.encoders.onnx_reader import read
from archgauge.encoders.text import Level, describe, parse

SPACES = (
    ("accel_nasbench", ""),
    ("channel_bench_macro", "mobilenet"),
    ("channel_bench_macro", "resnet"),
    ("darts", ""),
    ("nas_bench_101", ""),
    ("nas_bench_201", ""),
    ("nas_bench_macro", ""),
    ("nats_bench_sss", ""),
    ("ofa_mbv3", ""),
    ("transnas_bench_101", "macro"),
    ("transnas_bench_101", "micro"),
)
LEVELS: tuple[Level, ...] = ("full", "compact", "chain_slim")


def pieces(text: str) -> int:
    """Runs of letters, of up to three digits, and single signs."""
    return len(re.findall(r"\d{1,3}|[A-Za-z]+|[^\sA-Za-z\d]", text))


def counter(path: Path | None) -> Callable[[str], int]:
    """How to count tokens: with the tokenizer of that file, else by pieces."""
    if path is None:
        return pieces
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(path))
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids)


def sampled(module: str, space: str, count: int) -> Iterator[ArchGraph]:
    """Networks of one space."""
    found = builder(module, space)
    for spec in found.sample(count, 0):
        yield read(found.build(spec, found.TASKS[0]))


def row(name: str, graphs: Iterable[ArchGraph], count: Callable[[str], int]) -> None:
    """Prints one line of the table."""
    tokens: list[list[int]] = []
    hashes: set[tuple[str, tuple[int, ...]]] = set()
    texts: set[str] = set()
    lost = 0
    writing = reading = 0.0
    for graph in graphs:
        said = {level: describe(graph, level) for level in LEVELS}
        started = time.process_time()
        describe(graph)
        written = time.process_time()
        parse(said["compact"])
        reading += time.process_time() - written
        writing += written - started
        for level in LEVELS[:2]:
            again = parse(said[level])
            lost += again.nodes != graph.nodes or again.outputs != graph.outputs
        tokens.append([count(said[level]) for level in LEVELS])
        hashes.add((graph.hash, tuple(node.params for node in graph.nodes)))
        texts.add(said["compact"])
    table = np.array(tokens)
    median, high = np.median(table, axis=0), np.percentile(table, 99, axis=0)
    columns = "".join(f"{m:8.0f} {h:7.0f}" for m, h in zip(median, high, strict=True))
    print(
        f"{name:30}{len(table):6}{columns}{median[2] / median[1]:7.1f}{lost:6}{len(hashes):8}{len(texts):7}"
        f"{1e3 * writing / len(table):9.1f}{1e3 * reading / len(table):7.1f}",
        flush=True,
    )


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=30)
    parser.add_argument("--tokenizer", type=Path)
    parser.add_argument("--zoo", action=argparse.BooleanOptionalAction, default=True)
    options = parser.parse_args()
    count = counter(options.tokenizer)
    print(f"{'':36}{'full':>10}{'compact':>16}{'chain_slim':>19}")
    print(
        f"{'space':30}{'nets':>6}{'median     p99  median     p99  median     p99':>48}{'ratio':>7}{'lost':>6}"
        f"{'graphs':>8}{'texts':>7}{'write ms':>9}{'read':>7}"
    )
    for module, space in SPACES:
        row(f"{module}/{space}".rstrip("/"), sampled(module, space, options.samples), count)
    if options.zoo:
        different = {graph.hash: graph for graph in load_benchmark("imagenet_zoo").graphs}
        row("imagenet_zoo", different.values(), count)


if __name__ == "__main__":
    main()
