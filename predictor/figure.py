"""A grid as a picture. Needs matplotlib, the extra `plots`."""

from __future__ import annotations

from collections.abc import Sequence
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..encoders.errors import ConfigError, DataError
from ..encoders.files import replacing
from .grid import BEST_OF, Grid

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ENDINGS = (".png", ".pdf", ".svg")
"""What a figure can be saved as."""


def check_figure(path: Path) -> None:
    """Says before a long run whether its figure could be drawn.

    Raises:
        ConfigError: matplotlib is not installed, or the file's ending is none of `ENDINGS`.
    """
    if path.suffix not in ENDINGS:
        raise ConfigError(f"{path}: a figure ends in {', '.join(ENDINGS)}, got {path.suffix!r}")
    _backend()


def draw(grid: Grid, path: Path, metric: str = "") -> None:
    """Writes a figure: by number of labels where there are some, else by target.

    Args:
        grid: The grid.
        path: File to write, `.png`, `.pdf` or `.svg`.
        metric: Metric to draw; default: Kendall with few labels (as papers do), else Spearman.

    Raises:
        ConfigError: matplotlib is not installed, or there is nothing to draw.
    """
    check_figure(path)
    figure_class, canvas = _backend()
    if not grid.cells:
        raise ConfigError("the grid has no cells, there is nothing to draw")
    labelled = len({labels for _, labels in grid.places}) > 1
    metric = metric or ("kendall" if labelled else "spearman")
    targets = list(dict.fromkeys(target for target, _ in grid.places))
    if labelled:
        figure = figure_class(
            figsize=(1.8 + 5.5 * min(3, len(targets)), 4.2 * -(-len(targets) // 3)), layout="constrained"
        )
        axes = figure.subplots(-(-len(targets) // 3), min(3, len(targets)), squeeze=False).ravel()
        for axis, target in zip(axes, targets, strict=False):
            _by_labels(axis, grid, target, metric)
        for axis in axes[len(targets) :]:
            axis.set_visible(False)
    else:
        figure = figure_class(figsize=(11, 1.6 + 0.42 * len(targets)), layout="constrained")
        axes = [figure.subplots()]
        _by_target(axes[0], grid, metric)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right center", fontsize="small", frameon=False)
    figure.suptitle(grid.protocol)
    canvas(figure)
    _save(figure, path)


def _by_target(axis: Axes, grid: Grid, metric: str) -> None:
    places = list(grid.places)
    heights = np.arange(len(places))[::-1]
    for row in grid.rows:
        values = [grid.mean(row, place, metric) for place in places]
        mean = [value for value in grid.over_targets(row, metric, places[0][1]) if not isnan(value)]
        label = f"{row} ({np.mean(mean):.3f})" if mean else row
        axis.plot(values, heights, linestyle="none", label=label, **_style(grid, row))
    axis.set_yticks(heights, [target for target, _ in places], fontsize="small")
    axis.set_xlabel(f"{metric} (mean over targets in the legend)")
    axis.grid(alpha=0.3)


def _by_labels(axis: Axes, grid: Grid, target: str, metric: str) -> None:
    sizes = sorted(labels for name, labels in grid.places if name == target)
    for row in grid.rows:
        values = [grid.values(row, (target, size), metric) for size in sizes]
        spread = [float(np.nanstd(v)) if v and not all(map(isnan, v)) else 0.0 for v in values]
        means = [grid.mean(row, (target, size), metric) for size in sizes]
        axis.errorbar(sizes, means, yerr=spread, linewidth=1, capsize=2, label=row, **_style(grid, row))
    published = [told for told in grid.published() if told.target == target and told.metric == metric]
    for told in published:
        axis.annotate(
            told.method, (told.labels, told.value), fontsize="x-small", textcoords="offset points", xytext=(4, -2)
        )
    if published:
        places = [told.labels for told in published], [told.value for told in published]
        axis.plot(*places, "x", color="black", label="published,\nother test sets")
    axis.set_xscale("log")
    axis.set_xticks(sizes, [str(size) for size in sizes])
    axis.minorticks_off()
    axis.set_xlabel("labels")
    axis.set_ylabel(metric)
    axis.set_title(target, fontsize="small")
    axis.grid(alpha=0.3)


def draw_map(embeddings: NDArray[np.float32], spaces: Sequence[str], path: Path, *, seed: int = 0) -> None:
    """Writes a map of networks: embeddings near each other lie near each other, a colour for each space.

    Args:
        embeddings: (n, d), n at least 5.
        spaces: (n,) name of the space of every network.
        path: File to write, `.png`, `.pdf` or `.svg`.
        seed: Seed of the projection (t-SNE, van der Maaten and Hinton 2008, from the first principal components).

    Raises:
        ConfigError: As for `check_figure`.
        DataError: There are fewer than 5 networks, or all are alike.
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    check_figure(path)
    if len(embeddings) < 5:
        raise DataError(f"a map needs 5 networks or more, got {len(embeddings)}")
    scale = embeddings.std(axis=0)
    scaled = (embeddings - embeddings.mean(axis=0)) / np.where(scale > 1e-9, scale, np.inf)
    reduced = PCA(min(30, *scaled.shape), random_state=seed).fit_transform(scaled)
    if not reduced.any():
        raise DataError("a map needs networks that differ, got equal embeddings only")
    start = "pca" if reduced.shape[1] >= 2 and reduced[:, 1].std() > 1e-9 else "random"
    perplexity = min(30.0, (len(reduced) - 1) / 4)
    places = TSNE(2, perplexity=perplexity, init=start, random_state=seed).fit_transform(reduced)
    figure_class, canvas_class = _backend()
    figure = figure_class(figsize=(9, 6), layout="constrained")
    canvas_class(figure)
    axis = figure.subplots()
    names = list(dict.fromkeys(spaces))
    for number, name in enumerate(names):
        own = [i for i, space in enumerate(spaces) if space == name]
        axis.plot(
            *places[own].T, "osD^v"[number // 10 % 5], color=f"C{number % 10}", markersize=3, alpha=0.7, label=name
        )
    axis.set_xticks([])
    axis.set_yticks([])
    figure.legend(loc="outside right upper", fontsize="small")
    _save(figure, path)


def _save(figure: Any, path: Path) -> None:
    """Writes a figure with fixed metadata and ids: the same picture gives the same bytes."""
    from matplotlib import rc_context

    metadata = {".png": {"Software": None}, ".pdf": {"CreationDate": None}, ".svg": {"Date": None}}[path.suffix]
    with replacing(path) as stream, rc_context({"svg.hashsalt": "archgauge"}):
        figure.savefig(stream, format=path.suffix[1:], dpi=150, metadata=metadata)


def _style(grid: Grid, row: str) -> dict[str, Any]:
    """Learnt rows in colour, what anybody gets without learning in grey."""
    plain = [*dict.fromkeys(part for parts in BEST_OF.values() for part in parts), *BEST_OF]
    if row in plain:
        return {"marker": "|<>v^sd"[plain.index(row) % 7], "color": "0.6", "markersize": 5, "zorder": 1}
    learnt = [name for name in grid.rows if name not in plain]
    return {
        "marker": "oDPX*"[learnt.index(row) % 5],
        "color": f"C{learnt.index(row) % 10}",
        "markersize": 6,
        "zorder": 2,
    }


def _backend() -> tuple[Any, Any]:
    """Classes of a figure and of a canvas that needs no screen."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ConfigError("a figure needs matplotlib: pip install 'archgauge[plots]'") from error
    return Figure, FigureCanvasAgg
