"""How levels of labels move with the training epochs, and how far those of benchmarks of one task lie apart.

    python benchmarks/label_levels.py

Needs the benchmark files (ARCHGAUGE_DATA). Prints the power law of training that fits the medians of the same cells
after several budgets best, then the median accuracy of every benchmark and, pooled over tasks, the standard deviation
between benchmarks of its logit, carried on to a training without end by the law as `predictor.calibration` has it.
"""

from collections import defaultdict
from math import inf

import numpy as np

from archgauge.datasets.extracts import read_extract
from archgauge.datasets.registry import benchmark_record, raw_paths
from archgauge.predictor.calibration import budget_step
from archgauge.predictor.metrics import spearman
from archgauge.predictor.protocols import Run, load_spaces

TASKS = {
    "cifar10": (
        "nas_bench_201:cifar10@0",
        "nas_bench_macro@0",
        "nas_bench_101@0",
        "nats_bench_sss@0",
        "channel_bench_macro/resnet@0",
        "channel_bench_macro/mobilenet@0",
        "darts_trained/oncenas@0",
        "darts_trained/nas_efh@0",  # not swap: its labels are those of far smaller networks
    ),
    "imagenet1k": ("imagenet_zoo/all@0", "accel_nasbench@0", "ofa_mbv3@0"),
}
COLUMNS = ("adjacency", "operations", "epochs", "cifar10_test_accuracy")


def logit(percent: float) -> float:
    """Logit of an accuracy."""
    return float(np.log(percent / (100 - percent)))


def budgets() -> dict[int, np.ndarray]:
    """Test accuracies of the 91 cells of EC-NAS by training epochs, percent, always in the same order."""
    found: dict[int, dict[str, float]] = defaultdict(dict)
    paths = raw_paths(benchmark_record("nas_bench_101/ec_nas_4v"), "cifar10")
    for _, row in read_extract(paths, "ec_nas_4v.csv.gz", COLUMNS):
        found[int(row["epochs"])][f"{row['adjacency']}:{row['operations']}"] = float(row["cifar10_test_accuracy"])
    return {epochs: np.array([found[epochs][cell] for cell in sorted(found[epochs])]) for epochs in sorted(found)}


def power_law(levels: dict[int, float]) -> tuple[float, float, float, float]:
    """End, scale, power and root mean square error of level = end - scale * epochs^-power, by least squares."""
    epochs, logits = np.array(list(levels), float), np.array(list(levels.values()))
    fits = []
    for power in np.arange(0.3, 1.5, 0.01):
        terms = np.column_stack([np.ones(len(epochs)), -(epochs**-power)])
        (end, scale), *_ = np.linalg.lstsq(terms, logits, rcond=None)
        error = logits - terms @ (end, scale)
        fits.append((float(np.sqrt(np.mean(error**2))), float(end), float(scale), float(power)))
    error, end, scale, power = min(fits)
    return end, scale, power, error


def main() -> None:
    """Prints the power law, the levels and their spread."""
    by_budget = budgets()
    longest = by_budget[max(by_budget)]
    levels = {epochs: logit(float(np.median(accuracy))) for epochs, accuracy in by_budget.items()}
    for epochs, accuracy in by_budget.items():
        print(
            f"EC-NAS, {len(accuracy)} cells after {epochs:3} epochs: median accuracy {np.median(accuracy):.1f} %, "
            f"logit {levels[epochs]:.2f}, Spearman with {max(by_budget)} epochs {spearman(longest, accuracy):.2f}"
        )
    end, scale, power, error = power_law(levels)
    print(f"logit = {end:.2f} - {scale:.2f} * epochs^-{power:.2f}, root mean square error {error:.3f}")

    deviations, freedom = 0.0, 0
    for task, specs in TASKS.items():
        logits = []
        for bench in load_spaces(Run(), specs):
            median = float(np.median(bench.accuracy))
            logits.append(logit(median) + budget_step(bench.epochs, inf))
            print(
                f"{task:12}{bench.name:32}{len(bench):8,} networks, {bench.epochs or 'unknown':>7} epochs, median "
                f"accuracy {median:5.1f} %, logit in the end {logits[-1]:.2f}"
            )
        deviations += float(np.var(logits)) * len(logits)
        freedom += len(logits) - 1
    print(f"standard deviation of that logit between benchmarks of a task {np.sqrt(deviations / freedom):.2f}")


if __name__ == "__main__":
    main()
