"""The networks of five spaces written again as torch modules: both ways give the same graph.

The modules here share nothing with the builders, not even the reading of a spec. They are written as their authors
wrote them (activations out of clipping, sums over generators, pools as means), so that reading has something to do.
"""

import re
from typing import Any

import pytest

import archgauge
from archgauge.datasets import darts, nas_bench_101, nas_bench_201, ofa_mbv3, transnas_bench_101
from archgauge.datasets.onnx_builder import stored_costs

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript", reason="needs the extra torch-export")
nn = torch.nn
functional = nn.functional


def relu_conv_bn(inputs: int, outputs: int, kernel: int, stride: int = 1) -> "torch.nn.Sequential":
    return nn.Sequential(
        nn.ReLU(),
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
    )


class Zero(nn.Module):
    """Nothing, in the shape of something: `stride` and a factor of the channels."""

    def __init__(self, stride: int = 1, copies: int = 1) -> None:
        super().__init__()
        self.stride, self.copies = stride, copies

    def forward(self, x):
        x = x[:, :, :: self.stride, :: self.stride].mul(0.0)
        return torch.cat([x] * self.copies, dim=1) if self.copies > 1 else x


class FactorizedReduce(nn.Module):
    """Two 1x1 convolutions with stride 2, one pixel apart (Liu et al. 2019)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.here = nn.Conv2d(inputs, outputs // 2, 1, 2, bias=False)
        self.there = nn.Conv2d(inputs, outputs - outputs // 2, 1, 2, bias=False)
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, x):
        x = functional.relu(x)
        return self.norm(torch.cat([self.here(x), self.there(x[:, :, 1:, 1:])], dim=1))


# --- NAS-Bench-101 --------------------------------------------------------------------------------------------------


class Cell101(nn.Module):
    def __init__(self, matrix: list[list[int]], operations: list[str], inputs: int, outputs: int) -> None:
        super().__init__()
        self.matrix, last = matrix, len(matrix) - 1
        final = [vertex for vertex in range(1, last) if matrix[vertex][last]]
        self.widths = [0] * (last + 1)
        for vertex in reversed(range(1, last)):
            if vertex in final:
                share, rest = divmod(outputs, len(final))
                self.widths[vertex] = share + (final.index(vertex) < rest)
            else:
                self.widths[vertex] = max(self.widths[end] for end in range(vertex + 1, last) if matrix[vertex][end])
        self.operations = nn.ModuleDict()
        self.projections = nn.ModuleDict()
        for vertex in range(1, last):
            width = self.widths[vertex]
            if matrix[0][vertex]:
                self.projections[str(vertex)] = self.convolution(inputs, width, 1)
            kernel = {"conv1x1-bn-relu": 1, "conv3x3-bn-relu": 3}.get(operations[vertex])
            self.operations[str(vertex)] = (
                nn.MaxPool2d(3, 1, 1) if kernel is None else self.convolution(width, width, kernel)
            )
        self.final = final
        if matrix[0][last]:
            self.projections[str(last)] = self.convolution(inputs, outputs, 1)

    @staticmethod
    def convolution(inputs: int, outputs: int, kernel: int) -> "torch.nn.Sequential":
        return nn.Sequential(
            nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
        )

    def forward(self, x):
        last = len(self.matrix) - 1
        values = {}
        for vertex in range(1, last):
            total = self.projections[str(vertex)](x) if self.matrix[0][vertex] else 0
            for start in range(1, vertex):
                if self.matrix[start][vertex]:
                    total = total + values[start][:, : self.widths[vertex]]
            values[vertex] = self.operations[str(vertex)](total)
        y = torch.cat([values[vertex] for vertex in self.final], dim=1) if self.final else None
        if not self.matrix[0][last]:
            return y
        shortcut = self.projections[str(last)](x)
        return shortcut if y is None else y + shortcut


class Network101(nn.Module):
    def __init__(self, spec: str, task: str) -> None:
        super().__init__()
        digits, names = spec.split(":")
        operations = names.split(",")
        size = len(operations)
        matrix = [[int(digit) for digit in digits[row * size : (row + 1) * size]] for row in range(size)]
        layers: list[Any] = [Cell101.convolution(3, 128, 3)]
        channels = 128
        for stack in range(3):
            if stack:
                layers.append(nn.MaxPool2d(2, 2))
            for _ in range(3):
                layers.append(Cell101(matrix, operations, channels, 128 << stack))
                channels = 128 << stack
        self.layers, self.classifier = nn.Sequential(*layers), nn.Linear(channels, 10)

    def forward(self, x):
        return self.classifier(torch.mean(self.layers(x), (2, 3)))


# --- NAS-Bench-201 --------------------------------------------------------------------------------------------------


class Residual201(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            relu_conv_bn(channels, 2 * channels, 3, 2), relu_conv_bn(2 * channels, 2 * channels, 3)
        )
        self.shortcut = nn.Sequential(nn.AvgPool2d(2, 2), nn.Conv2d(channels, 2 * channels, 1, bias=False))

    def forward(self, x):
        return self.shortcut(x) + self.body(x)


class Cell201(nn.Module):
    def __init__(self, cell: str, channels: int) -> None:
        super().__init__()
        self.starts: list[list[int]] = []
        self.edges = nn.ModuleList()
        for node in cell.split("+"):
            edges = [edge.split("~") for edge in node.strip("|").split("|")]
            self.starts.append([int(start) for _, start in edges])
            self.edges.append(nn.ModuleList([self.edge(op, channels) for op, _ in edges]))

    @staticmethod
    def edge(op: str, channels: int) -> "torch.nn.Module":
        match op:
            case "none":
                return Zero()
            case "skip_connect":
                return nn.Identity()
            case "avg_pool_3x3":
                return nn.AvgPool2d(3, 1, 1, count_include_pad=False)
            case _:
                return relu_conv_bn(channels, channels, int(op[-1]))

    def forward(self, x):
        nodes = [x]
        for starts, edges in zip(self.starts, self.edges, strict=True):
            nodes.append(sum(edge(nodes[start]) for start, edge in zip(starts, edges, strict=True)))
        return nodes[-1]


class Network201(nn.Module):
    def __init__(self, spec: str, task: str) -> None:
        super().__init__()
        layers: list[Any] = [nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)]
        for channels in (16, 32, 64):
            layers += [Cell201(spec, channels) for _ in range(5)]
            if channels < 64:
                layers.append(Residual201(channels))
        self.layers = nn.Sequential(*layers, nn.BatchNorm2d(64), nn.ReLU())
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(64, {"cifar10": 10, "cifar100": 100, "imagenet16_120": 120}[task])

    def forward(self, x):
        x = self.pool(self.layers(x))
        return self.classifier(x.view(x.size(0), -1))


# --- DARTS ----------------------------------------------------------------------------------------------------------


class Separable(nn.Sequential):
    def __init__(self, channels: int, kernel: int, stride: int, dilation: int = 1) -> None:
        padding = dilation * (kernel // 2)
        super().__init__(
            nn.ReLU(),
            nn.Conv2d(channels, channels, kernel, stride, padding, dilation, groups=channels, bias=False),
            nn.Conv2d(channels, channels, 1, bias=False),
            nn.BatchNorm2d(channels),
        )


class CellDarts(nn.Module):
    def __init__(self, text: str, before: int, inputs: int, channels: int, stride: int, reduced: bool) -> None:
        super().__init__()
        self.enter = nn.ModuleList(
            [
                FactorizedReduce(before, channels) if reduced else relu_conv_bn(before, channels, 1),
                relu_conv_bn(inputs, channels, 1),
            ]
        )
        edges = [edge.split("@") for edge in text.split(";")]
        self.starts = [int(start) for _, start in edges]
        self.edges = nn.ModuleList([self.edge(op, channels, stride if start in "01" else 1) for op, start in edges])

    @staticmethod
    def edge(op: str, channels: int, stride: int) -> "torch.nn.Module":
        kernel = int(op[-1]) if op[-1].isdigit() else 0
        match op[:3]:
            case "non":
                return Zero(stride)
            case "ski":
                return nn.Identity() if stride == 1 else FactorizedReduce(channels, channels)
            case "max":
                return nn.MaxPool2d(3, stride, 1)
            case "avg":
                return nn.AvgPool2d(3, stride, 1, count_include_pad=False)
            case "sep":
                return nn.Sequential(Separable(channels, kernel, stride), Separable(channels, kernel, 1))
            case _:
                return Separable(channels, kernel, stride, 2)

    def forward(self, before, x):
        states = [enter(value) for enter, value in zip(self.enter, (before, x), strict=True)]
        for at in range(0, 8, 2):
            first, second = (self.edges[k](states[self.starts[k]]) for k in (at, at + 1))
            states.append(first + second)
        return torch.cat(states[2:], dim=1)


class NetworkDarts(nn.Module):
    def __init__(self, spec: str, task: str) -> None:
        super().__init__()
        normal, reduction = spec.split("|")
        self.stem = nn.Sequential(nn.Conv2d(3, 108, 3, padding=1, bias=False), nn.BatchNorm2d(108))
        self.cells = nn.ModuleList()
        before, inputs, channels, reduced = 108, 108, 36, False
        for position in range(20):
            reduces = position in (6, 13)
            channels *= 2 if reduces else 1
            cell = CellDarts(reduction if reduces else normal, before, inputs, channels, 2 if reduces else 1, reduced)
            self.cells.append(cell)
            before, inputs, reduced = inputs, 4 * channels, reduces
        self.classifier = nn.Linear(inputs, 10)

    def forward(self, x):
        before = x = self.stem(x)
        for cell in self.cells:
            before, x = x, cell(before, x)
        return self.classifier(torch.flatten(functional.adaptive_avg_pool2d(x, 1), 1))


# --- Once-for-All MobileNetV3 ---------------------------------------------------------------------------------------


class HardSwish(nn.Module):
    def forward(self, x):
        return x * (functional.relu6(x + 3.0) / 6.0)


class Gate(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        squeezed = divisible(channels // 4)
        self.reduce, self.expand = nn.Conv2d(channels, squeezed, 1), nn.Conv2d(squeezed, channels, 1)

    def forward(self, x):
        y = x.mean((2, 3), keepdim=True)
        return x * (functional.relu6(self.expand(functional.relu(self.reduce(y))) + 3.0) / 6.0)


class LayerMbv3(nn.Module):
    def __init__(
        self, inputs: int, outputs: int, kernel: int, expansion: int, stride: int, act: Any, gated: bool
    ) -> None:
        super().__init__()
        hidden = divisible(inputs * expansion)
        layers = []
        if expansion > 1:
            layers += [nn.Conv2d(inputs, hidden, 1, bias=False), nn.BatchNorm2d(hidden), act()]
        layers += [
            nn.Conv2d(hidden, hidden, kernel, stride, kernel // 2, groups=hidden, bias=False),
            nn.BatchNorm2d(hidden),
            act(),
        ]
        if gated:
            layers.append(Gate(hidden))
        layers += [nn.Conv2d(hidden, outputs, 1, bias=False), nn.BatchNorm2d(outputs)]
        self.layers, self.residual = nn.Sequential(*layers), stride == 1 and inputs == outputs

    def forward(self, x):
        return self.layers(x) + x if self.residual else self.layers(x)


class NetworkMbv3(nn.Module):
    def __init__(self, spec: str, task: str) -> None:
        super().__init__()
        layers = [nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), HardSwish()]
        layers.append(LayerMbv3(16, 16, 3, 1, 1, nn.ReLU, False))
        channels = 16
        stages = [re.findall("k(.)e(.)", stage) for stage in spec.split("-")]
        settings = [
            (24, 2, nn.ReLU, False),
            (40, 2, nn.ReLU, True),
            (80, 2, HardSwish, False),
            (112, 1, HardSwish, True),
            (160, 2, HardSwish, True),
        ]
        for stage, (width, first, act, gated) in zip(stages, settings, strict=True):
            for position, (kernel, expansion) in enumerate(stage):
                stride = 1 if position else first
                layers.append(LayerMbv3(channels, width, int(kernel), int(expansion), stride, act, gated))
                channels = width
        layers += [nn.Conv2d(160, 960, 1, bias=False), nn.BatchNorm2d(960), HardSwish(), nn.AdaptiveAvgPool2d(1)]
        self.layers = nn.Sequential(*layers, nn.Conv2d(960, 1280, 1, bias=False), HardSwish(), nn.Flatten())
        self.classifier = nn.Sequential(nn.Dropout(0.1), nn.Linear(1280, 1000))

    def forward(self, x):
        return self.classifier(self.layers(x))


def divisible(channels: int) -> int:
    nearest = max(8, int(channels + 4) // 8 * 8)
    return nearest if nearest >= 0.9 * channels else nearest + 8


# --- TransNAS-Bench-101 ---------------------------------------------------------------------------------------------


class MicroCell(nn.Module):
    """Edges in the order of the string: into node 1, into node 2, into node 3."""

    def __init__(self, operations: str, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.into = [operations[:1], operations[1:3], operations[3:]]
        self.edges = nn.ModuleList(
            [
                nn.ModuleList(
                    [
                        self.edge(op, inputs if start == 0 else outputs, outputs, stride if start == 0 else 1)
                        for start, op in enumerate(node)
                    ]
                )
                for node in self.into
            ]
        )

    @staticmethod
    def edge(op: str, inputs: int, outputs: int, stride: int) -> "torch.nn.Module":
        match op:
            case "0":
                return Zero(stride, outputs // inputs)
            case "1":
                return nn.Identity() if stride == 1 else FactorizedReduce(inputs, outputs)
            case _:
                return relu_conv_bn(inputs, outputs, {"2": 1, "3": 3}[op], stride)

    def forward(self, x):
        nodes = [x]
        for edges in self.edges:
            nodes.append(sum(edge(node) for edge, node in zip(edges, nodes, strict=True)))
        return nodes[-1]


class MacroCell(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(relu_conv_bn(inputs, outputs, 3, stride), relu_conv_bn(outputs, outputs, 3))
        self.shortcut = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x):
        return self.body(x) + self.shortcut(x)


class NetworkTransNas(nn.Module):
    def __init__(self, spec: str, task: str) -> None:
        super().__init__()
        _, stages, operations = spec.split("-")
        layers: list[Any] = [nn.Conv2d(3, 32, 3, 2, 1, bias=False), nn.BatchNorm2d(32), relu_conv_bn(32, 64, 3, 2)]
        channels = 64
        for stage in stages:
            outputs, stride = {"1": (channels, 1), "2": (2 * channels, 1), "3": (channels, 2), "4": (2 * channels, 2)}[
                stage
            ]
            for _ in range(2):
                layers.append(
                    MacroCell(channels, outputs, stride)
                    if operations == "basic"
                    else MicroCell(operations.replace("_", ""), channels, outputs, stride)
                )
                channels, stride = outputs, 1
        self.layers = nn.Sequential(*layers)
        self.head = nn.Linear(channels, {"class_object": 75, "class_scene": 47}[task])

    def forward(self, x):
        x = functional.adaptive_avg_pool2d(self.layers(x), (1, 1))
        return self.head(x.view(x.size(0), -1))


REFERENCES: list[Any] = [
    (nas_bench_101, "cifar10", Network101, 32),
    (nas_bench_201, "imagenet16_120", Network201, 16),
    (darts, "cifar10", NetworkDarts, 32),
    (ofa_mbv3, "imagenet1k", NetworkMbv3, 224),
    (transnas_bench_101.SPACES["micro"], "class_object", NetworkTransNas, 256),
    (transnas_bench_101.SPACES["macro"], "class_scene", NetworkTransNas, 256),
]
every_reference = pytest.mark.parametrize(
    ("space", "task", "module", "size"),
    REFERENCES,
    ids=["nas_bench_101", "nas_bench_201", "darts", "ofa_mbv3", "transnas_micro", "transnas_macro"],
)


@pytest.mark.slow
@every_reference
@pytest.mark.parametrize("position", range(3))
def test_modules_and_builders_give_one_graph(space: Any, task: str, module: Any, size: int, position: int) -> None:
    spec = space.sample(3, 11)[position]
    with torch.device("meta"):
        reference = module(spec, task).eval()
    built = archgauge.read(space.build(spec, task))
    found = archgauge.diff(built, archgauge.read(reference, input_shapes=(1, 3, size, size)))
    assert found.same, f"{spec}\n{found.text()}"
    assert found.a.hash == found.b.hash


@every_reference
def test_modules_have_the_parameters_of_the_built_networks(space: Any, task: str, module: Any, size: int) -> None:
    for spec in space.sample(3, 12):
        with torch.device("meta"):
            reference = module(spec, task)
        params, _ = stored_costs(space.build(spec, task))
        assert sum(parameter.numel() for parameter in reference.parameters()) == params
