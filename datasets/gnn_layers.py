"""Layers of graph neural networks as ONNX operators, on a fixed graph of 32 nodes.

Convention: a network has two inputs, `features` (32, F) and `adjacency` (32, 32), 1 where there is an edge and 0
elsewhere, symmetric, without self-loops. The real graphs have 20 to 170,000 nodes and sparse edges; 32 nodes and a
dense matrix keep the cost of a node's layers exact and make an aggregation one matrix product with the adjacency,
whose cost is that of 32 neighbours. Degrees and normalisations are computed inside the network, once.

The formulas are those of the papers named at each layer, with the parameters that PyTorch Geometric gives them.
"""

from __future__ import annotations

from collections.abc import Callable

from .array_builder import ArrayBuilder
from .onnx_builder import Value

NODES = 32
"""Nodes of the graph that every graph network is written for."""

_FAR = 1e9


class GnnBuilder(ArrayBuilder):
    """Writes a graph network; x is always (32, features).

    Args:
        name: Name of the graph in the file.
        features: Features of a node.
    """

    def __init__(self, name: str, features: int) -> None:
        super().__init__(name, (NODES, features), input_name="features")
        self.adjacency = self.add_input("adjacency", (NODES, NODES))
        self._shared: dict[str, Value] = {}

    # Aggregation over neighbours

    def sum_of_neighbours(self, x: Value) -> Value:
        """The sum of x over every node's neighbours."""
        return self.matmul(self.adjacency, x)

    def mean_of_neighbours(self, x: Value) -> Value:
        """The mean of x over every node's neighbours; zero where there is none."""
        return self.divide(self.sum_of_neighbours(x), self._degree())

    def max_of_neighbours(self, x: Value) -> Value:
        """The element-wise maximum of x over every node's neighbours; every node needs one."""
        mask = self._once("edge_mask", lambda: self.reshape(self._mask(self.adjacency), (NODES, NODES, 1)))
        return self.reduce("ReduceMax", self.binary("Add", self.reshape(x, (1, *x.shape)), mask), axis=1)

    # Convolutions

    def gcn(self, x: Value, features: int) -> Value:
        """Graph convolution (Kipf and Welling 2017, eq. 2): normalised adjacency with self-loops times xW, plus b."""
        y = self.matmul(self._symmetric_with_loops(), self.linear(x, features, bias=False))
        return self.add_parameter(y, (features,))

    def gat(self, x: Value, features: int, heads: int) -> Value:
        """Graph attention (Velickovic et al. 2018, eq. 1 to 5): heads of features/heads each, concatenated, plus b."""
        size = features // heads
        h = self.reshape(self.linear(x, features, bias=False), (NODES, heads, size))
        source, target = (
            self.transpose(self.reduce("ReduceSum", self.mul_parameter(h, (heads, size)), axis=2), (1, 0))
            for _ in range(2)
        )
        scores = self.binary("Add", self.reshape(target, (heads, NODES, 1)), self.reshape(source, (heads, 1, NODES)))
        scores = self._emit("LeakyRelu", [scores.name], scores.shape, {"alpha": 0.2})
        mask = self._once("loop_mask", lambda: self._mask(self._with_loops()))
        weights = self.softmax(self.binary("Add", scores, mask))
        y = self.matmul(weights, self.transpose(h, (1, 0, 2)))
        return self.add_parameter(self.reshape(self.transpose(y, (1, 0, 2)), (NODES, features)), (features,))

    def gin(self, x: Value, features: int) -> Value:
        """Graph isomorphism (Xu et al. 2019, eq. 4.1) with epsilon 0 and a linear layer as the network."""
        return self.linear(self.add(x, self.sum_of_neighbours(x)), features)

    def chebyshev(self, x: Value, features: int) -> Value:
        """Chebyshev filter of order 2 (Defferrard et al. 2016, eq. 4) with the largest eigenvalue taken as 2."""
        far = self.unary("Neg", self.matmul(self._symmetric(), x))
        y = self.add(self.linear(x, features, bias=False), self.linear(far, features, bias=False))
        return self.add_parameter(y, (features,))

    def sage(self, x: Value, features: int) -> Value:
        """GraphSAGE (Hamilton et al. 2017) with the mean of the neighbours, without normalisation."""
        return self.add(self.linear(self.mean_of_neighbours(x), features), self.linear(x, features, bias=False))

    def arma(self, x: Value, features: int) -> Value:
        """ARMA filter (Bianchi et al. 2021, eq. 9): one stack, one step, ReLU."""
        y = self.matmul(self._symmetric(), self.linear(x, features, bias=False))
        return self.relu(self.add_parameter(self.add(y, self.linear(x, features, bias=False)), (features,)))

    def k_gnn(self, x: Value, features: int) -> Value:
        """Graph convolution of 1-GNNs (Morris et al. 2019, eq. 1), sum over neighbours."""
        return self.add(self.linear(self.sum_of_neighbours(x), features), self.linear(x, features, bias=False))

    # What the layers share

    def _once(self, key: str, make: Callable[[], Value]) -> Value:
        if key not in self._shared:
            self._shared[key] = make()
        return self._shared[key]

    def _mask(self, adjacency: Value) -> Value:
        return self.scale(self.shift(adjacency, -1.0), _FAR)

    def _degree(self) -> Value:
        return self._once("degree", lambda: self._degree_of(self.adjacency))

    def _degree_of(self, adjacency: Value) -> Value:
        return self.at_least(self.reduce("ReduceSum", adjacency, axis=1, keep=True), 1.0)

    def _with_loops(self) -> Value:
        return self._once("loops", lambda: self.add(self.adjacency, self.unary("EyeLike", self.adjacency)))

    def _symmetric(self) -> Value:
        return self._once("symmetric", lambda: self._normalised(self.adjacency, self._degree()))

    def _symmetric_with_loops(self) -> Value:
        loops = self._with_loops()
        return self._once("symmetric_loops", lambda: self._normalised(loops, self._degree_of(loops)))

    def _normalised(self, adjacency: Value, degree: Value) -> Value:
        scale = self.power(degree, -0.5)
        return self.mul(self.mul(adjacency, scale), self.transpose(scale, (1, 0)))
