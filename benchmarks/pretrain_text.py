"""Pretrains the text model that ships with archgauge; no label is looked at.

    python benchmarks/pretrain_text.py --checkpoint pretraining.safetensors [--out encoders/shipped/text.safetensors]

Networks are drawn from every space by its definition (`datasets.corpus`): `--networks` of a family's only space, fewer
of each where a family has several (by the root of their number), and `--many` where descriptions are short. The state
is saved as training goes on; the same command goes on from it. Prints the losses: of the statistics' values, of their
differences within a space, and on hidden tokens.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from pathlib import Path

import numpy as np
import torch

from archgauge.datasets.corpus import Drawn, can_draw, draw_corpus
from archgauge.datasets.registry import list_benchmarks
from archgauge.encoders.errors import DataError
from archgauge.encoders.statistics import FEATURES
from archgauge.encoders.text_model import TextModelShape, save_model
from archgauge.encoders.text_pretraining import Pretrainer, Pretraining, Space
from archgauge.encoders.tokenizer import Tokenizer

SHORT = 150


def drawn(name: str, count: int, seed: int) -> Drawn:
    """Networks of a space: `count`, or what there is of a smaller one."""
    while True:
        try:
            return draw_corpus(count, seed=seed, spaces=[name], progress=False)[name]
        except DataError:
            if count < 20:
                raise
            count //= 2


def corpus(networks: int, many: int, seed: int, tokenizer: Tokenizer, longest: int) -> dict[str, Space]:
    """Networks of every space, described and counted."""
    spaces: dict[str, Space] = {}
    records = [record for record in list_benchmarks() if can_draw(record)]
    families = Counter(record.relatives for record in records)
    for record in records:
        start = time.perf_counter()
        found = drawn(record.name, round(networks / families[record.relatives] ** 0.5), seed)
        space = Space.of(found.graphs, found.relatives, tokenizer, longest)
        tokens = np.mean([sum(len(segment.tokens) for segment in text) for text in space.texts])
        if tokens <= SHORT:
            found = drawn(record.name, many, seed)
            space = Space.of(found.graphs, found.relatives, tokenizer, longest)
        spaces[record.name] = space
        seconds = time.perf_counter() - start
        print(f"{record.name}: {len(space.texts)} texts of {tokens:.0f} tokens, {seconds:.0f} s", flush=True)
    return spaces


def main() -> None:
    """Pretrains and writes the weights."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", type=int, default=100)
    parser.add_argument("--many", type=int, default=300)
    parser.add_argument("--steps", type=int, default=Pretraining.steps)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    tokenizer = Tokenizer.shipped()
    shape = TextModelShape(tokenizer.size, len(FEATURES))
    spaces = corpus(options.networks, options.many, options.seed, tokenizer, shape.segment)
    trainer = Pretrainer(spaces, shape, tokenizer, Pretraining(steps=options.steps, seed=options.seed))
    start = time.perf_counter()

    def report(step: int, losses: dict[str, float]) -> None:
        said = ", ".join(f"{name} {loss:.4f}" for name, loss in losses.items())
        print(f"step {step}: {said}; {time.perf_counter() - start:.0f} s", flush=True)

    model = trainer.train(checkpoint=options.checkpoint, every=50, report=report)
    if options.out:
        save_model(model, options.out)
        print(f"{options.out}: {options.out.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
