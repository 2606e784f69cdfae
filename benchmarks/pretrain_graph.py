"""Pretrains the graph encoder that ships with archgauge on networks drawn from every space; no label is looked at.

    python benchmarks/pretrain_graph.py [--per-space 150] [--epochs 12] [--out encoders/shipped/graph.safetensors]

Other backbones and objectives, for comparison: `--backbone gin --weights spectral=1 --out runs/spectral.safetensors`.
It saves its state after every epoch beside the output, and goes on from there when it is called again.

    python benchmarks/pretrain_graph.py --readings [--per-space 60]

trains nothing, but works out the map of `encoders/graph_readings.py` for the weights that ship.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch

from archgauge.datasets.cache import default_cache_dir
from archgauge.datasets.corpus import draw_corpus
from archgauge.datasets.imagenet_zoo import load as load_zoo
from archgauge.encoders.contrastive import corpus_of, pretrain, save_encoder
from archgauge.encoders.gnn import BACKBONES, GNNConfig
from archgauge.encoders.graph_readings import SHIPPED_READINGS, Readings, weights_of
from archgauge.encoders.registry import SHIPPED_GRAPH, encode_table, get_encoder


def fit_readings(per_space: int, seed: int) -> None:
    """Works out the readings on networks drawn from every space, and writes them beside the weights that ship."""
    drawn = draw_corpus(per_space, seed=seed)
    graphs = [graph for space in drawn.values() for graph in space.graphs]
    spaces = [name for name, space in drawn.items() for _ in space.graphs]
    statistics = encode_table(graphs, get_encoder("statistics"), cache=default_cache_dir())
    readings, penalty, read = Readings.fit(get_encoder("graph").encode(graphs), statistics, spaces)
    about = {"weights": weights_of(SHIPPED_GRAPH), "networks": len(graphs), "per_space": per_space, "seed": seed}
    readings.save(SHIPPED_READINGS, {**about, "spaces": sorted(drawn), "penalty": penalty})
    shares = ", ".join(f"{value:.3f} with penalty {name:g}" for name, value in read.items())
    print(f"{len(graphs)} networks of {len(drawn)} spaces; read right in spaces left out: {shares}", flush=True)


def main() -> None:
    """Draws, trains, saves, and says how long it took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--per-space", type=int, default=150, help="networks drawn from each space")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--backbone", default="flow", choices=sorted(BACKBONES))
    parser.add_argument("--weights", nargs="+", default=["statistics=1", "masked=0.1"], help="objective=weight ...")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parents[1] / "encoders" / "shipped" / "graph.safetensors"
    )
    parser.add_argument("--readings", action="store_true", help="only the map of the shipped embedding to statistics")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    start = time.perf_counter()
    if options.readings:
        fit_readings(options.per_space, options.seed)
        print(f"{time.perf_counter() - start:.0f} s")
        return
    weights = {name: float(value) for name, _, value in (part.partition("=") for part in options.weights)}

    drawn = draw_corpus(options.per_space, seed=options.seed)
    graphs = {graph.hash: graph for space in drawn.values() for graph in space.graphs}
    graphs |= {graph.hash: graph for graph in load_zoo().graphs}
    table = encode_table(
        list(graphs.values()), get_encoder("statistics"), hashes=list(graphs), cache=default_cache_dir(), progress=True
    )
    corpus = corpus_of(list(graphs.values()), table)
    nodes = sum(map(len, corpus.tensors))
    print(f"{len(graphs)} networks of {len(drawn)} spaces and the zoo, {nodes:,} nodes", flush=True)

    config = GNNConfig(backbone=options.backbone)
    encoder = pretrain(
        corpus,
        config,
        weights,
        epochs=options.epochs,
        seed=options.seed,
        checkpoint=options.out.with_suffix(".state"),
        report=lambda line: print(f"{time.perf_counter() - start:6.0f} s  {line}", flush=True),
    )
    about = {"networks": len(graphs), "spaces": sorted(drawn), "weights": weights, "epochs": options.epochs}
    save_encoder(options.out, encoder, {**about, "per_space": options.per_space, "seed": options.seed})
    options.out.with_suffix(".state").unlink(missing_ok=True)
    embedded = encoder.embed(list(graphs.values())[:1000])
    print(f"spread of the embedding {np.median(embedded.std(axis=0)):.3f}, {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
