"""Trains a predictor: `python train.py` uses the ImageNet networks that come with archgauge; see `--help`."""

import sys
from pathlib import Path

_ROOT = Path(__file__).resolve().parent
# A script puts its own folder first on sys.path; ours holds a folder named "datasets", which other packages look for.
sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != _ROOT]

from archgauge.predictor.cli import train_main

if __name__ == "__main__":
    train_main()
