"""Scores the nine classic networks inside the installed `onnx` package and compares their order with publications.

    python benchmarks/light_models.py

The published top-1 accuracies are those that torchvision (weights IMAGENET1K_V1) and pytorchcv state for the same
architectures; they stand in the embedded zoo. Two columns: the predictor that ships, which has seen several of these
architectures, and one trained on the zoo without any family that holds one of them.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import onnx
from scipy.stats import kendalltau, spearmanr

import archgauge as ag
from archgauge.datasets.imagenet_zoo import entries

SAME = {
    "light_bvlc_alexnet": "torchvision:alexnet.IMAGENET1K_V1",
    "light_densenet121": "torchvision:densenet121.IMAGENET1K_V1",
    "light_inception_v1": "torchvision:googlenet.IMAGENET1K_V1",
    "light_inception_v2": "pytorchcv:bninception",
    "light_resnet50": "torchvision:resnet50.IMAGENET1K_V1",
    "light_shufflenet": "pytorchcv:shufflenet_g3_w1",
    "light_squeezenet": "torchvision:squeezenet1_0.IMAGENET1K_V1",
    "light_vgg19": "torchvision:vgg19.IMAGENET1K_V1",
    "light_zfnet512": "pytorchcv:zfnetb",
}
"""File in the onnx package → the published result of the same (zfnetb: a very similar) architecture."""


def main() -> None:
    """Runs the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    folder = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
    files = [folder / f"{name}.onnx" for name in SAME]
    zoo = ag.load_benchmark("imagenet_zoo")
    results = {entry.title: entry for entry in entries()}
    published = np.array([results[title].top1 for title in SAME.values()])
    graphs = [ag.read(file) for file in files]
    taken = {results[title].family for title in SAME.values()}
    hashes = {graph.hash for graph in graphs}
    others = [i for i in range(len(zoo)) if zoo.groups[i] not in taken and zoo.hashes[i] not in hashes]
    rows = {
        "shipped": ag.Predictor.load().score(files, task="imagenet1k"),
        f"zero-shot, {len(others)} networks": ag.Predictor().fit(zoo.select(others)).score(files, task="imagenet1k"),
    }
    columns = {name: [s.rank_score for s in scores] for name, scores in rows.items()}
    columns |= {"macs": [graph.macs for graph in graphs], "params": [graph.params for graph in graphs]}
    agreement = {}
    for name, values in columns.items():
        tau = kendalltau(published, values, alternative="greater")
        agreement[name] = {
            "kendall": float(tau.statistic),
            "p": float(tau.pvalue),
            "spearman": float(spearmanr(published, values).statistic),
        }
    if options.json:
        print(json.dumps({"agreement": agreement}, indent=2))
        return
    print(f"{'network':20s} published  " + "  ".join(f"{name:>26s}" for name in rows))
    for i in np.argsort(-published):
        cells = (f"{s[i].accuracy:5.1f} ({s[i].low:.1f} to {s[i].high:.1f})" for s in rows.values())
        print(f"{list(SAME)[i][6:]:20s} {published[i]:9.1f}  " + "  ".join(f"{cell:>26s}" for cell in cells))
    for name, row in agreement.items():
        print(f"{name:26s} spearman {row['spearman']:.3f}  kendall {row['kendall']:.3f}  (chance: p = {row['p']:.4f})")


if __name__ == "__main__":
    main()
