"""The shipped ImageNet-1k networks: light to load, labels in range, families that keep relatives together."""

import gzip
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from archgauge.datasets import imagenet_zoo, imagenet_zoo_timm
from archgauge.datasets.benchmark import Benchmark
from archgauge.datasets.graph_store import GraphStore
from archgauge.datasets.imagenet_zoo import Entry, choose, entries, load
from archgauge.datasets.registry import load_benchmark
from archgauge.datasets.xz_table import read_xz_table, write_xz_table
from archgauge.encoders.errors import ConfigError, DataError

# Published counts that differ from the networks' own: pytorchcv's tables state other numbers for five ESPNetv2, and
# torchvision counts the auxiliary classifier of Inception v3, which a network in inference mode does not have.
OTHER_PARAMS = {
    "pytorchcv:espnetv2_w1",
    "pytorchcv:espnetv2_w2",
    "pytorchcv:espnetv2_w3d2",
    "pytorchcv:espnetv2_w5d4",
    "pytorchcv:espnetv2_wd2",
    "torchvision:inception_v3.IMAGENET1K_V1",
}


def entry(package: str, name: str, top1: float, graph: str, **more: object) -> Entry:
    plain = Entry(
        package, "1", name, "", "f", top1, 90.0, 10, 0.1, 224, "", "scratch", imagenet_zoo.OWN_PIPELINE, "MIT", graph
    )
    return replace(plain, **more)


def test_loading_needs_neither_torch_nor_the_packages() -> None:
    code = (
        "import sys; from archgauge.datasets import imagenet_zoo; print(len(imagenet_zoo.load()));"
        "sys.exit(bool({'torch', 'torchvision', 'pytorchcv', 'onnxscript'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 300


def test_all_published_results_are_there() -> None:
    rows = entries()
    assert len(rows) == 437
    assert sum(row.package == "pytorchcv" for row in rows) == 323
    assert len({row.title for row in rows}) == len(rows)
    assert [row.title for row in rows] == sorted(row.title for row in rows)
    for row in rows:
        assert 30 < row.top1 < row.top5 < 100
        assert row.params > 100_000
        assert 200 <= row.image_size <= 700
        assert (row.recipe == "extra_data") == bool(row.extra_data) == ("SWAG" in row.weights)
    known = {row.title: row for row in rows}
    assert known["torchvision:resnet50.IMAGENET1K_V1"].top1 == 76.13
    assert known["torchvision:resnet50.IMAGENET1K_V2"].top1 == 80.858
    assert known["pytorchcv:alexnet"].top1 == 61.5


def test_the_files_are_small() -> None:
    assert imagenet_zoo.GRAPHS_PATH.stat().st_size + imagenet_zoo.TABLE_PATH.stat().st_size < 3_000_000


@pytest.mark.parametrize("subset", [None, "torchvision", "pytorchcv"])
@pytest.mark.parametrize("labels", ["scratch", "best"])
def test_every_architecture_has_one_label(subset, labels) -> None:
    bench = load(subset, labels)
    assert len(set(bench.hashes)) == len(bench)
    assert bench.task == "imagenet1k"
    assert bench.relatives == "imagenet_zoo"
    assert all(30 < accuracy < 90 for accuracy in bench.accuracy)
    assert not any("SWAG" in name for name in bench.names)
    graphs = {row.graph for row in entries() if row.recipe == "scratch" and subset in (None, row.package)}
    assert set(bench.hashes) == graphs


def test_all_keeps_every_result() -> None:
    assert len(load(labels="all")) == len(entries())


def test_default_labels_are_the_uniform_ones() -> None:
    names = load("torchvision").names
    assert "torchvision:resnet50.IMAGENET1K_V1" in names
    assert "torchvision:resnet50.IMAGENET1K_V2" not in names
    assert "torchvision:resnet50.IMAGENET1K_V2" in load("torchvision", "best").names


def test_an_architecture_stands_in_one_family() -> None:
    family: dict[str, str] = {}
    for row in entries():
        assert family.setdefault(row.graph, row.family) == row.family, row.title
    assert 25 <= len(set(family.values())) <= 60
    by_name = {row.title: row.family for row in entries()}
    assert by_name["torchvision:resnet18.IMAGENET1K_V1"] == by_name["pytorchcv:seresnet18"] == "resnet"
    assert by_name["torchvision:vgg16_bn.IMAGENET1K_V1"] == by_name["pytorchcv:bn_vgg16b"]


def test_the_packages_share_architectures() -> None:
    rows = {row.title: row.graph for row in entries()}
    assert rows["torchvision:resnet18.IMAGENET1K_V1"] == rows["pytorchcv:resnet18"]
    assert rows["torchvision:squeezenet1_1.IMAGENET1K_V1"] == rows["pytorchcv:squeezenet_v1_1"]


def test_parameters_are_the_published_ones() -> None:
    bench = load(labels="all")
    published = {row.title: row.params for row in entries()}
    other = {name for name, graph in zip(bench.names, bench.graphs, strict=True) if graph.params != published[name]}
    assert other == OTHER_PARAMS
    assert len(other) < 0.015 * len(bench)


def test_no_operator_is_unknown() -> None:
    assert {op for graph in load(labels="all").graphs for op in graph.unknown_ops} == set()


def test_macs_are_the_published_ones_of_torchvision() -> None:
    bench = load("torchvision", "all")
    published = {row.title: row.gmacs for row in entries()}
    for name, graph in zip(bench.names, bench.graphs, strict=True):
        assert graph.macs / 1e9 == pytest.approx(published[name], rel=0.01, abs=0.001), name


def test_choice_prefers_uniform_recipes() -> None:
    rows = [
        entry("pytorchcv", "a", 70.0, "g"),
        entry("pytorchcv", "b", 71.0, "g"),
        entry("pytorchcv", "c", 75.0, "g", remark="From elsewhere"),
        entry("torchvision", "a", 72.0, "g", weights="IMAGENET1K_V1", remark=""),
        entry("torchvision", "a", 80.0, "g", weights="IMAGENET1K_V2", remark=""),
        entry("torchvision", "a", 88.0, "g", weights="SWAG", recipe="extra_data", remark=""),
        entry("torchvision", "z", 88.0, "h", weights="SWAG", recipe="extra_data", remark=""),
    ]
    assert [row.title for row in choose(rows, "scratch")] == ["pytorchcv:b"]
    assert [row.title for row in choose(rows[2:], "scratch")] == ["pytorchcv:c"]
    assert [row.title for row in choose(rows[3:], "scratch")] == ["torchvision:a.IMAGENET1K_V1"]
    assert [row.title for row in choose(rows, "best")] == ["torchvision:a.IMAGENET1K_V2"]
    assert choose(rows, "all") == rows


def test_wrong_choices_are_named() -> None:
    with pytest.raises(ConfigError, match="expected one of torchvision, pytorchcv"):
        load("timm")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="expected one of scratch, best, all"):
        load(labels="worst")  # type: ignore[arg-type]


def test_tables_come_back_and_damage_is_named(tmp_path: Path) -> None:
    path, rows = tmp_path / "table.xz", [entry("pytorchcv", "a", 70.1, "g", remark='with "quotes", and\ncommas')]
    write_xz_table(path, rows)
    assert read_xz_table(path, Entry) == tuple(rows)
    first = path.read_bytes()
    write_xz_table(path, rows)
    assert path.read_bytes() == first
    path.write_bytes(first[:-20])
    with pytest.raises(DataError, match=r"table\.xz"):
        read_xz_table(path, Entry)
    with pytest.raises(DataError, match=r"missing\.xz"):
        read_xz_table(tmp_path / "missing.xz", Entry)


def test_families_that_share_a_graph_become_one() -> None:
    build = pytest.importorskip("archgauge.datasets.imagenet_zoo_build")
    rows = [
        entry("p", "1", 70, "g", family="c"),
        entry("p", "2", 70, "g", family="b"),
        entry("p", "3", 70, "h", family="a"),
        entry("p", "4", 70, "h", family="c"),
        entry("p", "5", 70, "i", family="d"),
    ]
    assert [row.family for row in build.unite_families(rows)] == ["a", "a", "a", "a", "d"]
    with pytest.raises(DataError, match="no known family"):
        build.family_of("quantumnet50")


def test_labels_are_what_the_installed_packages_state() -> None:
    pytest.importorskip("torchvision")
    pytest.importorskip("pytorchcv")
    from archgauge.datasets import imagenet_zoo_build as build

    stated = {row.title: row for row in build.torchvision_entries() + build.pytorchcv_entries()}
    shipped = {row.title: row for row in entries()}
    same_version = [title for title in shipped if title in stated and shipped[title].version == stated[title].version]
    if not same_version:
        pytest.skip("other versions of torchvision and pytorchcv are installed than the table was made from")
    for title in same_version:
        row = stated[title]
        kept = shipped[title]
        assert replace(row, graph=kept.graph, place=kept.place, family=kept.family) == kept


def test_labels_agree_with_the_normalised_benchmark(benchmarks_root: Path) -> None:
    pandas = pytest.importorskip("pandas")
    path = benchmarks_root / "imagenet_zoo" / "imagenet_zoo.csv.gz"
    if not path.exists():
        pytest.skip("needs the benchmark files in ARCHGAUGE_DATA")
    table = pandas.read_csv(path, keep_default_na=False)
    table = table[(table.dataset == "imagenet1k") & table.source.isin(["torchvision", "pytorchcv"])]
    stated = {(row.source, row.arch, row.weights): row for row in table.itertuples()}
    assert {(row.package, row.name, row.weights) for row in entries()} == set(stated)
    for row in entries():
        other = stated[row.package, row.name, row.weights]
        assert (row.top1, row.top5) == pytest.approx((float(other.top1), float(other.top5)))
        assert row.params == int(float(other.params))
        assert row.recipe == other.recipe_class


@pytest.mark.slow
@pytest.mark.parametrize(
    ("package", "name"),
    [
        ("torchvision", "squeezenet1_1"),
        ("torchvision", "shufflenet_v2_x0_5"),
        ("pytorchcv", "resnet10"),
        ("pytorchcv", "mobilenetv2_wd4"),
    ],
)
def test_rebuilding_gives_the_shipped_graph(package: str, name: str, tmp_path: Path) -> None:
    pytest.importorskip(package)
    pytest.importorskip("onnxscript", reason="needs the extra torch-export")
    from archgauge.datasets.imagenet_zoo_build import Job, export_network
    from archgauge.encoders.onnx_reader import read

    row = next(row for row in entries() if (row.package, row.name) == (package, name))
    target = tmp_path / "model.onnx"
    export_network(Job(package, name, row.image_size), target)
    assert read(target).hash == row.graph
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


@pytest.mark.slow
@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_worker_that_fails_or_dies_spoils_nothing(tmp_path: Path) -> None:
    pytest.importorskip("torchvision")
    pytest.importorskip("onnxscript", reason="needs the extra torch-export")
    from archgauge.datasets import imagenet_zoo_build as build

    good, bad = build.Job("torchvision", "squeezenet1_1", 224), build.Job("torchvision", "no_such_network", 224)
    failures = build.export_all([bad, good], tmp_path, workers=1)
    assert list(failures) == [bad]
    assert "no_such_network" in failures[bad]
    assert good.path(tmp_path).exists()
    assert build.export_all([good], tmp_path, timeout=0.001) == {}, "what the cache has is not exported again"
    late = [build.Job("torchvision", name, 224) for name in ("alexnet", "vgg11")]
    failures = build.export_all(late, tmp_path, workers=1, timeout=0.001)
    assert list(failures) == late
    assert "took more than" in failures[late[1]]


# --- timm: graphs ship, accuracies do not ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def timm_zoo(benchmarks_root: Path) -> Benchmark:
    return load_benchmark(imagenet_zoo_timm.NAME, root=benchmarks_root)


def test_timm_networks_are_small_and_point_to_their_graphs() -> None:
    files = (imagenet_zoo_timm.GRAPHS_PATH, imagenet_zoo_timm.NETWORKS_PATH)
    assert sum(file.stat().st_size for file in files) < 1_000_000
    store = GraphStore.load_compressed(imagenet_zoo_timm.GRAPHS_PATH)
    known = imagenet_zoo_timm.networks()
    assert len(known) == len(store)
    assert all(store.hashes[network.place] == network.graph for network in known.values())


def test_timm_accuracies_come_from_the_table(timm_zoo: Benchmark, benchmarks_root: Path) -> None:
    assert timm_zoo.task == "imagenet1k"
    assert timm_zoo.relatives == "imagenet_zoo"
    assert len(timm_zoo) + len(timm_zoo.skipped) == 453
    assert len(timm_zoo) > 430
    assert len(set(timm_zoo.hashes)) == len(timm_zoo)
    assert len(set(timm_zoo.groups)) > 40
    labels = dict(zip(timm_zoo.names, timm_zoo.accuracy, strict=True))
    assert labels["timm:caformer_b36.sail_in1k_384"] == 86.4
    assert len(load_benchmark(imagenet_zoo_timm.NAME, root=benchmarks_root, limit=20)) == 20


def test_timm_parameters_equal_the_published_ones(timm_zoo: Benchmark, benchmarks_root: Path) -> None:
    paths = {imagenet_zoo_timm.LABELS: benchmarks_root / "imagenet_zoo" / imagenet_zoo_timm.LABELS}
    published = {result.title: result.params for result in imagenet_zoo_timm.read_results(paths)}
    other = {
        name: (graph.params, published[name])
        for name, graph in zip(timm_zoo.names, timm_zoo.graphs, strict=True)
        if graph.params != published[name]
    }
    assert other == {}


def test_a_timm_table_that_is_none_is_refused(tmp_path: Path) -> None:
    path = tmp_path / imagenet_zoo_timm.LABELS
    path.write_bytes(gzip.compress(b"source,arch\ntimm,resnet18\n"))
    with pytest.raises(DataError, match="no column dataset"):
        imagenet_zoo_timm.load({imagenet_zoo_timm.LABELS: path})
    header = "source,dataset,arch,weights,family,top1,params,img_size,recipe_class"
    rows = ["timm,imagenet1k,no_such_net,a,f,70,5,224,scratch", "timm,imagenet1k,resnet14t,b,resnet,70,5,224,scratch"]
    path.write_bytes(gzip.compress("\n".join([header, *rows]).encode()))
    bench = imagenet_zoo_timm.load({imagenet_zoo_timm.LABELS: path})
    assert bench.skipped[0][0] == "timm:no_such_net.a"
    assert "no graph of it at 224 pixels" in bench.skipped[0][1]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet14t", "mobilenetv3_small_050"])
def test_rebuilding_a_timm_network_gives_the_shipped_graph(name: str, tmp_path: Path) -> None:
    pytest.importorskip("timm")
    pytest.importorskip("onnxscript", reason="needs the extra torch-export")
    from archgauge.datasets.imagenet_zoo_build import Job, export_network
    from archgauge.encoders.onnx_reader import read

    network = next(each for each in imagenet_zoo_timm.networks().values() if each.arch == name)
    export_network(Job("timm", name, network.image_size), tmp_path / "model.onnx")
    assert read(tmp_path / "model.onnx").hash == network.graph
