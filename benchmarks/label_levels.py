"""How far the levels of labels of one task lie apart: the constant that widens intervals outside a task's benchmark.

    python benchmarks/label_levels.py

Needs the benchmark files (ARCHGAUGE_DATA). Prints the median accuracy of every benchmark and, pooled over tasks, the
standard deviation of its logit between benchmarks.
"""

import numpy as np

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
        "darts_trained/nas_efh@0",
        "darts_trained/swap@0",
    ),
    "imagenet1k": ("imagenet_zoo/all@0", "accel_nasbench@0", "ofa_mbv3@0"),
}


def main() -> None:
    """Prints the levels and their spread."""
    deviations, freedom = 0.0, 0
    for task, specs in TASKS.items():
        levels = []
        for bench in load_spaces(Run(), specs):
            median = float(np.median(bench.accuracy))
            levels.append(np.log(median / (100 - median)))
            print(f"{task:12}{bench.name:32}{len(bench):8,} networks, median accuracy {median:5.1f} %")
        deviations += float(np.var(levels)) * len(levels)
        freedom += len(levels) - 1
    print(f"standard deviation of the logit between benchmarks of a task {np.sqrt(deviations / freedom):.2f}")


if __name__ == "__main__":
    main()
