"""The model card of a saved predictor, written from what it knows about itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def model_card(config: Mapping[str, Any], tasks: Sequence[str]) -> str:
    """Markdown text for a predictor.

    Args:
        config: What goes into `config.json`: options, versions, data and report.
        tasks: Tasks with accuracies in percent.
    """
    options, report = config["options"], config["report"]
    unseen, apart = report["out_of_fold_kendall"], report.get("out_of_space_kendall", {})
    heads = [f"{name} (weight {head['weight']:.2f})" for name, head in sorted(report["heads"].items())]
    lines = [
        "# archgauge predictor",
        "",
        "It estimates from a network's architecture alone how well the network would do once trained. It knows nothing",
        "of the weights, the training recipe or the data. Scores far from its training networks (`distance` well above",
        "1) are guesses.",
        "",
        f"- encoders: {', '.join(options['encoders'])}",
        *(f"- evidence beside them: {name}" for name in options.get("evidence", ())),
        f"- heads: {', '.join(heads)}",
        f"- members per head: {options['n_seeds']}, seed {options['seed']}",
        f"- accuracies in percent for: {', '.join(tasks)}",
        f"- made with: {', '.join(f'{name} {number}' for name, number in config['versions'].items())}",
        "",
        "## Training data",
        "",
        "Kendall's τ-b of scores for networks that a member had not seen: *in space* with the rest of their space",
        "seen, *out of space* without any of it.",
        "",
        "| benchmark | task | networks | epochs | label | licence | in space | out of space |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for record in config["data"]:
        key = f"{record['name']}:{record['task']}"
        cells = [
            record["name"],
            record["task"],
            record["n"],
            "-" if record["epochs"] is None else f"{record['epochs']:g}",
            record["label"] or "-",
            record["licence"] or "none stated",
        ]
        lines.append("| " + " | ".join(map(str, [*cells, _number(unseen.get(key)), _number(apart.get(key))])) + " |")
    if "labels" in report:
        lines += [
            "",
            f"Fine-tuned on {report['labels']} labels. The predictor it started from ranks the same networks with a",
            f"Kendall τ-b of {_number(report['prior_kendall'])}.",
        ]
    return "\n".join(lines) + "\n"


def _number(value: float | None) -> str:
    return "-" if value is None or value != value else f"{value:.3f}"
