"""Saved predictors: same scores, same bytes, and refusals that say why."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from archgauge.datasets.benchmark import Benchmark
from archgauge.encoders.errors import CheckpointError, ConfigError, NotFittedError, OutputError
from archgauge.encoders.graph import ArchGraph, Node
from archgauge.encoders.statistics import FEATURE_NAMES
from archgauge.predictor import checkpoint
from archgauge.predictor.model import SHIPPED, Predictor

QUICK = {"mlp": {"steps": 20}, "extra_trees": {"n_trees": 10}, "gbdt": {"n_trees": 40}}


def bench(name="alpha", n=40, seed=0, task="toy"):
    random = np.random.default_rng(seed)
    graphs, accuracy = [], []
    for i in range(n):
        nodes = [Node("Input", (), (1, 3, 16, 16))]
        for width in (4 * random.integers(1, 30, random.integers(1, 6))).tolist():
            kernel = ((width, nodes[-1].shape[1], 3, 3),)
            nodes.append(Node("Conv", (len(nodes) - 1,), (1, width, 16, 16), (("bias", 1),), kernel))
        graphs.append(ArchGraph(tuple(nodes), (len(nodes) - 1,)))
        accuracy.append(50 + 5 * len(nodes) + i / n)
    return Benchmark(name, task, graphs, np.array(accuracy), tuple(map(str, range(n))), relatives=name, licence="MIT")


def new(**options):
    return Predictor(**{"heads": ("gbdt", "mlp", "gp", "extra_trees"), "n_seeds": 1, "options": QUICK, **options})


@pytest.fixture(scope="module")
def fitted():
    return new().fit([bench(), bench("beta", 30, 1, "other")])


@pytest.fixture
def saved(fitted, tmp_path):
    return fitted.save(tmp_path / "model")


def edit(folder, **changes):
    config = json.loads((folder / "config.json").read_text())
    config.update(changes)
    (folder / "config.json").write_text(json.dumps(config))


def test_a_loaded_predictor_gives_the_same_scores(fitted, saved):
    again = Predictor.load(saved)
    target = bench("gamma", 20, 5)
    for options in ({}, {"task": "toy"}, {"pool": True}):
        assert again.score(target, **options) == fitted.score(target, **options)
    np.testing.assert_array_equal(again.embed(target), fitted.embed(target))
    assert again.data == fitted.data
    assert again.tasks == fitted.tasks


def test_predictors_know_budgets(tmp_path):
    model = new(heads=("gp",)).fit([replace(bench(), epochs=30), bench("beta", 30, 1, "other")])
    again = Predictor.load(model.save(tmp_path / "model"))
    assert [record["epochs"] for record in again.data] == [30, None]
    assert [task.budgets for task in again.fitted.tasks] == [(30,), (None,)]
    card = (tmp_path / "model" / "card.md").read_text()
    assert "| alpha | toy | 40 | 30 |" in card
    assert "| beta | other | 30 | - |" in card


def test_a_fine_tuned_predictor_takes_its_prior_along(fitted, tmp_path):
    few, rest = bench("gamma", 30, 5, "new").split(15)
    tuned = fitted.finetune(few)
    again = Predictor.load(tuned.save(tmp_path / "tuned"))
    assert again.score(rest) == tuned.score(rest)
    twice = again.finetune(bench("delta", 8, 6, "newest"))
    assert Predictor.load(twice.save(tmp_path / "twice")).score(rest) == twice.score(rest)


def test_the_same_seed_twice_gives_the_same_bytes(tmp_path):
    folders = [new(seed=seed, n_seeds=1).fit(bench(n=12)).save(tmp_path / str(i)) for i, seed in enumerate((3, 3, 4))]
    first, second, other = ({p.name: p.read_bytes() for p in folder.iterdir()} for folder in folders)
    assert first == second
    assert first["arrays.safetensors"] != other["arrays.safetensors"]


def test_saving_what_was_loaded_gives_the_same_bytes(saved, tmp_path):
    again = Predictor.load(saved).save(tmp_path / "again")
    assert {p.name: p.read_bytes() for p in again.iterdir()} == {p.name: p.read_bytes() for p in saved.iterdir()}


def test_what_is_in_the_folder(saved):
    names = sorted(path.name for path in saved.iterdir())
    assert {"arrays.safetensors", "calibration.json", "card.md", "config.json"} == set(names)
    config = json.loads((saved / "config.json").read_text())
    assert config["format"] == checkpoint.FORMAT
    assert config["encoders"][0]["columns"] == list(FEATURE_NAMES)
    assert {"archgauge", "lightgbm", "numpy", "torch"} <= config["versions"].keys()
    assert [record["licence"] for record in config["data"]] == ["MIT", "MIT"]
    card = (saved / "card.md").read_text()
    assert "| beta | other | 30 |" in card


def test_loading_and_scoring_needs_no_torch(saved):
    code = f"""
import sys
from archgauge.encoders.graph import ArchGraph, Node
from archgauge.predictor.model import Predictor
graph = ArchGraph((Node("Input", (), (1, 3, 8, 8)), Node("Conv", (0,), (1, 4, 8, 8), (), ((4, 3, 3, 3),))), (1,))
assert Predictor.load({str(saved)!r}).score(graph, task="toy")[0].accuracy is not None
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_saving_again_replaces_and_leaves_nothing_behind(fitted, saved):
    before = sorted(path.name for path in saved.parent.iterdir())
    files = sorted(path.name for path in saved.iterdir())
    fitted.save(saved)
    assert sorted(path.name for path in saved.iterdir()) == files
    assert sorted(path.name for path in saved.parent.iterdir()) == before


def test_saving_keeps_a_stranger_in_the_folder(fitted, tmp_path):
    folder = fitted.save(tmp_path / "model")
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match=r"notes\.txt"):
        fitted.save(folder)
    assert (folder / "notes.txt").read_text() == "mine"


def test_a_place_that_cannot_be_written_is_a_typed_error(fitted, tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(OutputError, match="file"):
        fitted.save(tmp_path / "file" / "model")


def test_saving_does_not_touch_a_folder_of_something_else(fitted, tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ConfigError, match="no saved predictor"):
        fitted.save(tmp_path)
    assert (tmp_path / "thesis.tex").exists()
    assert fitted.save(tmp_path / "a" / "b").is_dir()


def test_an_interrupted_save_leaves_the_old_one(fitted, saved, monkeypatch):
    before = {path.name: path.read_bytes() for path in saved.iterdir()}

    def fail(self, content):
        raise OSError("disk full")

    monkeypatch.setattr("pathlib.Path.write_bytes", fail)
    with pytest.raises(OSError, match="disk full"):
        fitted.save(saved)
    monkeypatch.undo()
    assert {path.name: path.read_bytes() for path in saved.iterdir()} == before
    assert [path.name for path in saved.parent.iterdir()] == ["model"]


def test_before_fit_there_is_nothing_to_save(tmp_path):
    with pytest.raises(NotFittedError):
        Predictor().save(tmp_path / "x")


def test_a_newer_format_is_refused(saved):
    edit(saved, format=checkpoint.FORMAT + 1, versions={"archgauge": "9.9"})
    newer, ours = checkpoint.FORMAT + 1, checkpoint.FORMAT
    with pytest.raises(CheckpointError, match=rf"format is {newer}, expected {ours}.*9\.9.*upgrade"):
        Predictor.load(saved)


def test_an_older_format_is_refused(saved):
    edit(saved, format=1, versions={"archgauge": "0.1"})
    with pytest.raises(CheckpointError, match=rf"format is 1, expected {checkpoint.FORMAT}.*0\.1.*train it again"):
        Predictor.load(saved)


@pytest.mark.parametrize("number", [0, "1", None])
def test_a_format_that_makes_no_sense_is_refused(saved, number):
    edit(saved, format=number)
    with pytest.raises(CheckpointError, match="format is"):
        Predictor.load(saved)


@pytest.mark.parametrize("name", ["arrays.safetensors", "calibration.json", "card.md"])
def test_a_damaged_or_missing_file_is_refused(saved, name):
    file = saved / name
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(bytes(content))
    with pytest.raises(CheckpointError, match=f"{name}: damaged or edited"):
        Predictor.load(saved)
    file.unlink()
    with pytest.raises(CheckpointError, match=f"{name}: cannot be read"):
        Predictor.load(saved)


def test_no_predictor_at_all_is_refused(tmp_path, saved):
    with pytest.raises(CheckpointError, match="no saved predictor"):
        Predictor.load(tmp_path / "nowhere")
    (saved / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match="not readable as JSON"):
        Predictor.load(saved)
    (saved / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match="not the configuration"):
        Predictor.load(saved)


def test_another_version_or_other_columns_of_an_encoder_are_refused(saved):
    config = json.loads((saved / "config.json").read_text())
    encoder = config["encoders"][0]
    edit(saved, encoders=[{**encoder, "version": encoder["version"] + 1}])
    with pytest.raises(CheckpointError, match="'statistics' has version"):
        Predictor.load(saved)
    edit(saved, encoders=[{**encoder, "columns": [*encoder["columns"][1:], "novel"]}])
    with pytest.raises(CheckpointError, match="novel"):
        Predictor.load(saved)


def test_a_file_list_that_leaves_the_folder_is_refused(saved):
    edit(saved, files={"../secret": "0"})
    with pytest.raises(CheckpointError, match="plain file names"):
        Predictor.load(saved)


@pytest.mark.parametrize("change", [{"members": {}}, {"options": {}}, {"options": {"heads": ["svm"]}}, {"data": 3}])
def test_an_inconsistent_configuration_is_refused(saved, change):
    edit(saved, **change)
    with pytest.raises(CheckpointError, match=r"config\.json"):
        Predictor.load(saved)


def test_the_shipped_predictor_is_looked_for_in_the_package(monkeypatch, saved):
    assert SHIPPED.parent.name == "predictor"
    monkeypatch.setattr("archgauge.predictor.model.SHIPPED", saved)
    assert Predictor.load().tasks == ("toy", "other")
