"""The command line, through the function the `archgauge` command calls."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from typer.testing import CliRunner

from archgauge.datasets import nas_bench_macro
from archgauge.predictor.cli import app

runner = CliRunner()
LIGHT = sorted((Path(onnx.__file__).parent / "backend" / "test" / "data" / "light").glob("*.onnx"))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with 24 ONNX files and labels.csv; accuracy grows with the number of layers that are no identity."""
    folder = tmp_path_factory.mktemp("models")
    rows = ["file,top1"]
    for spec in nas_bench_macro.sample(24, seed=0):
        (folder / f"{spec}.onnx").write_bytes(nas_bench_macro.build(spec, "cifar10").SerializeToString())
        rows.append(f"{spec}.onnx,{0.5 + 0.05 * sum(digit != '0' for digit in spec)}")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    return folder


def test_every_command_explains_itself() -> None:
    for command in (
        "read",
        "describe",
        "diff",
        "doctor",
        "score",
        "rank",
        "train",
        "finetune",
        "evaluate",
        "benchmarks",
    ):
        result = runner.invoke(app, [command, "--help"])
        assert result.exit_code == 0
        assert len(result.output) > 200


def test_read_prints_sizes(models: Path) -> None:
    result = runner.invoke(app, ["read", "--json", str(LIGHT[0])])
    assert result.exit_code == 0
    (row,) = json.loads(result.output)
    assert row["params"] == 60_965_224
    assert row["macs"] == 654_560_384
    assert row["unknown_ops"] == []


def test_describe_writes_text_that_other_commands_read(tmp_path: Path) -> None:
    resnet = str(next(file for file in LIGHT if "resnet50" in file.name))
    text = runner.invoke(app, ["describe", resnet])
    assert text.exit_code == 0
    assert text.stdout.startswith("archgauge 1")
    full = runner.invoke(app, ["describe", resnet, "--level", "full"]).stdout
    file = tmp_path / "network.txt"
    for said in (text.stdout, full):
        file.write_text(said, encoding="utf-8")
        assert runner.invoke(app, ["diff", resnet, str(file)]).exit_code == 0
        assert runner.invoke(app, ["describe", str(file)]).stdout == text.stdout
    summary = runner.invoke(app, ["describe", str(file), "--level", "summary"]).stdout
    assert summary.startswith("archgauge summary: input 1x3x224x224")
    assert len(text.stdout) < len(full)
    file.write_text("archgauge 1\nInput 1x4 Conv 3")
    refused = runner.invoke(app, ["describe", str(file)])
    assert refused.exit_code == 1
    assert "line 2" in refused.stderr
    assert runner.invoke(app, ["describe", str(file), "--level", "chain"]).exit_code == 2


def test_diff_of_equal_networks_exits_with_0(models: Path) -> None:
    file = str(next(iter(sorted(models.glob("*.onnx")))))
    result = runner.invoke(app, ["diff", file, file])
    assert result.exit_code == 0
    assert "same: A and B are one architecture" in result.output


def test_diff_of_other_networks_says_where_and_exits_with_1(models: Path) -> None:
    one, other = (nas_bench_macro.build(spec, "cifar10") for spec in ("11111111", "11111112"))
    files = [str(models.parent / name) for name in ("one.onnx", "other.onnx")]
    for model, file in zip((one, other), files, strict=True):
        onnx.save_model(model, file)
    result = runner.invoke(app, ["diff", *files])
    assert result.exit_code == 1
    assert "different: " in result.output
    report = json.loads(runner.invoke(app, ["diff", "--json", *files]).output)
    assert report["same"] is False
    assert report["changes"]
    assert all(change["op"] == "Conv" for change in report["changes"])


def test_diff_of_what_cannot_be_read_exits_with_2(models: Path) -> None:
    result = runner.invoke(app, ["diff", str(LIGHT[0]), str(models / "none.onnx")])
    assert result.exit_code == 2
    assert "none.onnx" in result.stderr
    mixed = ["diff", str(LIGHT[0]), str(LIGHT[0]), "--input-shape", "1,3", "--input-shape", "x:1,3"]
    assert runner.invoke(app, mixed).exit_code == 2


def test_doctor_exits_with_0_when_a_file_reads_and_else_with_1(models: Path) -> None:
    result = runner.invoke(app, ["doctor", str(LIGHT[0])])
    assert result.exit_code == 0
    assert "reads" in result.output
    result = runner.invoke(app, ["doctor", str(models / "labels.csv"), "--json"])
    assert result.exit_code == 1
    assert json.loads(result.output)["reads"] is False


def test_doctor_takes_shapes_without_names_and_element_types(tmp_path: Path) -> None:
    code = tmp_path / "net.py"
    code.write_text("import torch\n\n\ndef make():\n    return torch.nn.Embedding(9, 4)\n")
    call = ["doctor", f"{code}:make", "--json"]
    report = json.loads(runner.invoke(app, [*call, "--input-shape", "1,0"]).output)
    assert "positive integers" in report["findings"][-1]["what"]
    report = json.loads(runner.invoke(app, [*call, "--input-shape", "1,5", "--dtype", "nothing"]).output)
    assert "unknown element type 'nothing'" in report["findings"][-1]["what"]
    refused = runner.invoke(app, [*call, "--dtype", "a:int64", "--dtype", "int64"])
    assert refused.exit_code == 1
    assert "NAME:TYPE" in refused.stderr


def test_score_prints_nine_plausible_scores() -> None:
    result = runner.invoke(app, ["score", "--json", *map(str, LIGHT)])
    assert result.exit_code == 0
    scores = json.loads(result.output)
    assert [Path(score["name"]).name for score in scores] == [file.name for file in LIGHT]
    for score in scores:
        assert 30 < score["low"] < score["accuracy"] < score["high"] < 95
    assert len({score["rank_score"] for score in scores}) == 9


def test_fewer_epochs_give_less() -> None:
    """The labels of the ImageNet networks come from recipes of all lengths, so no number of epochs is theirs."""
    call = ["--json", "--task", "imagenet1k", *map(str, LIGHT[:3])]
    plain, asked = (json.loads(runner.invoke(app, ["score", *call, *more]).stdout) for more in ([], ["--epochs", "16"]))
    for one, other in zip(plain, asked, strict=True):
        assert other["low"] < one["low"] < one["accuracy"]
        assert other["accuracy"] < one["accuracy"]
        assert other["low"] < other["accuracy"] < other["high"]
    ranked = json.loads(runner.invoke(app, ["rank", *call, "--epochs", "16"]).stdout)
    assert sorted(ranked, key=lambda row: row["file"]) == sorted(asked, key=lambda row: row["file"])
    refused = runner.invoke(app, ["rank", *call, "--epochs", "0"])
    assert refused.exit_code == 1
    assert "epochs is 0" in refused.stderr


def test_rank_puts_the_best_first() -> None:
    table = runner.invoke(app, ["rank", *map(str, LIGHT)]).output.splitlines()
    order = [line.split()[0] for line in table[1:]]
    assert sorted(order) == [file.name for file in LIGHT]
    assert order.index("light_resnet50.onnx") < order.index("light_bvlc_alexnet.onnx")


def test_one_bad_file_spoils_no_batch(tmp_path: Path) -> None:
    bad = tmp_path / "bad.onnx"
    bad.write_text("no model")
    result = runner.invoke(app, ["score", "--json", str(LIGHT[0]), str(bad), str(tmp_path / "missing.onnx")])
    assert result.exit_code == 1
    assert "NaN" not in result.stdout  # which is no JSON
    good, broken, missing = json.loads(result.stdout)
    assert good["error"] is None
    assert good["accuracy"] > 30
    assert "bad.onnx" in broken["error"]
    assert "missing.onnx" in missing["error"]


def test_an_unknown_task_is_a_typed_error() -> None:
    result = runner.invoke(app, ["score", "--task", "imagenet2k", str(LIGHT[0])])
    assert result.exit_code == 1
    assert "imagenet2k" in result.stderr
    assert "imagenet1k" in result.stderr


def test_a_bad_shape_option_is_refused() -> None:
    result = runner.invoke(app, ["score", "--input-shape", "1,3,x", str(LIGHT[0])])
    assert result.exit_code == 1
    assert "NAME:1,3,224,224" in result.stderr


def test_finetune_from_csv_then_score(models: Path, tmp_path: Path) -> None:
    out = tmp_path / "tuned"
    call = ["finetune", str(models / "labels.csv"), "--models", str(models), "--accuracy", "top1", "--name", "file"]
    call += ["--unit", "fraction", "--task", "mine", "--test-share", "0.4", "--out", str(out), "--json"]
    call += ["--epochs", "50"]
    result = runner.invoke(app, call)
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["labels"] == 14
    assert 5 <= report["test"]["n"] == report["test_before"]["n"] <= 10
    assert report["test"]["rows"][0]["metrics"]["spearman"]["value"] > 0.5
    ask = ["score", "--json", "--predictor", str(out), "--task", "mine", str(next(models.glob("*.onnx")))]
    scored, same, other = (
        runner.invoke(app, [*ask, *more]).stdout for more in ([], ["--epochs", "50"], ["--epochs", "9"])
    )
    assert 40 < json.loads(scored)[0]["accuracy"] < 100
    assert scored == same != other


def test_finetune_with_proxies_runs_the_networks(models: Path, tmp_path: Path) -> None:
    out = tmp_path / "tuned"
    call = ["finetune", str(models / "labels.csv"), "--models", str(models), "--accuracy", "top1", "--name", "file"]
    result = runner.invoke(app, [*call, "--unit", "fraction", "--proxies", "--out", str(out)])
    assert result.exit_code == 0, result.output
    encoders = json.loads((out / "config.json").read_text())["encoders"]
    assert [encoder["name"] for encoder in encoders] == ["statistics", "graph", "proxies"]
    scored = runner.invoke(app, ["score", "--json", "--predictor", str(out), str(next(models.glob("*.onnx")))])
    assert 40 < json.loads(scored.stdout)[0]["accuracy"] < 100


def test_finetune_names_the_missing_column(models: Path) -> None:
    result = runner.invoke(app, ["finetune", str(models / "labels.csv"), "--models", str(models), "--name", "file"])
    assert result.exit_code == 1
    assert "top1" in result.stderr


def test_benchmarks_lists_licences() -> None:
    rows = json.loads(runner.invoke(app, ["benchmarks", "--json"]).output)
    assert {"nas_bench_201", "nas_bench_macro", "imagenet_zoo"} <= {row["name"] for row in rows}
    assert all(row["licence"] for row in rows)
    budgets = {row["name"]: [task["epochs"] for task in row["tasks"]] for row in rows}
    assert (budgets["nas_bench_201"], budgets["imagenet_zoo"]) == ([200, 200, 200], [None])
    assert "imagenet_zoo" in runner.invoke(app, ["benchmarks"]).output


def test_evaluate_writes_json(benchmarks_root: Path, tmp_path: Path) -> None:
    out = tmp_path / "result.json"
    call = ["evaluate", "nas_bench_macro", "--data", str(benchmarks_root), "--limit", "60", "--out", str(out)]
    result = runner.invoke(app, call)
    assert result.exit_code == 0, result.output
    rows = {row["name"]: row["metrics"] for row in json.loads(out.read_text())["rows"]}
    assert {"predictor", "macs", "params", "depth", "convolutions", "best trivial"} <= set(rows)
    assert {"spearman", "kendall", "ndcg_at_10", "regret_top_1_percent"} <= set(rows["predictor"])
    assert all(np.isfinite(rows["macs"][name]["value"]) for name in ("spearman", "kendall"))


def test_evaluate_refuses_an_unknown_benchmark() -> None:
    result = runner.invoke(app, ["evaluate", "nasbench201"])
    assert result.exit_code == 1
    assert "nas_bench_201" in result.stderr
