"""Recurrences along a directed acyclic graph: what reaches every node on all its paths, however long.

Message passing of k rounds sees k edges far; networks are hundreds of operators deep. Here states run through the whole
graph in one sweep, level by level, without a matrix product in the loop, as in gated linear recurrences over sequences
(Gu and Dao 2023). Two kinds of channels run side by side, h of node v from its operands u:

- gated: h_v = a_v · mean_u h_u + b_v, with 0 < a_v < 1; what has been seen lately, and how far away.
- tropical: h_v = max_u h_u + c_v, longest paths with learnt lengths; with negative c it is the shortest ones, negated.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .graph_tensors import Batch, Ints


@dataclass(frozen=True)
class Sweep:
    """The order in which a recurrence visits the nodes of a batch.

    Attributes:
        order: (n,) node at every step, level by level.
        place: (n,) step of every node.
        source: (e,) step an edge comes from; edges are sorted by the step they lead to.
        slot: (e,) step an edge leads to, counted from the start of its level.
        share: (e, 1) one over the number of edges that lead to that step.
        levels: For every level: first step, step after the last one, first edge, edge after the last one.
    """

    order: Tensor
    place: Tensor
    source: Tensor
    slot: Tensor
    share: Tensor
    levels: tuple[tuple[int, int, int, int], ...]


def sweeps(batch: Batch) -> tuple[Sweep, Sweep]:
    """The sweep from the inputs to the outputs of a batch, and the one back."""
    source, target = batch.edges
    return _sweep(batch.from_start, source, target), _sweep(batch.to_end, target, source)


def _sweep(level: Ints, source: Ints, target: Ints) -> Sweep:
    n = len(level)
    order = np.argsort(level, kind="stable")
    place = np.empty(n, np.int64)
    place[order] = np.arange(n)
    count = int(level.max(initial=-1)) + 1
    starts = np.searchsorted(level[order], np.arange(count + 1))
    to = place[target]
    by_target = np.argsort(to, kind="stable")
    to, source = to[by_target], place[source[by_target]]
    edge_level = level[order][to]
    edges = np.searchsorted(edge_level, np.arange(count + 1))
    share = 1.0 / np.maximum(np.bincount(to, minlength=n), 1)[to]
    return Sweep(
        order=torch.from_numpy(order),
        place=torch.from_numpy(place),
        source=torch.from_numpy(source),
        slot=torch.from_numpy(to - starts[edge_level]),
        share=torch.from_numpy(share.astype(np.float32))[:, None],
        levels=tuple(
            zip(starts[:-1].tolist(), starts[1:].tolist(), edges[:-1].tolist(), edges[1:].tolist(), strict=True)
        ),
    )


def run(sweep: Sweep, keep: Tensor, add: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
    """Both recurrences along one sweep.

    Args:
        sweep: The order of the nodes.
        keep: (n, g) gates a.
        add: (n, g) inputs b.
        length: (n, t) lengths c.

    Returns:
        States (n, g) and (n, t) of every node, in the order of the nodes.
    """
    gated, tropical = _Recurrence.apply(keep[sweep.order], add[sweep.order], length[sweep.order], sweep)
    return gated[sweep.place], tropical[sweep.place]


class _Recurrence(torch.autograd.Function):
    """Forward level by level, and its adjoint level by level back; rows stand in the order of the sweep."""

    @staticmethod
    def forward(ctx: Any, keep: Tensor, add: Tensor, length: Tensor, sweep: Sweep) -> tuple[Tensor, Tensor]:
        gated, tropical = add.clone(), length.clone()
        mean, most = torch.zeros_like(add), torch.zeros_like(length)
        for start, stop, first, last in sweep.levels:
            if first == last:
                continue
            source, slot = sweep.source[first:last], sweep.slot[first:last]
            arriving = gated.index_select(0, source)
            longest = tropical.index_select(0, source)
            if last - first == stop - start:  # one edge each, in order
                m, t = arriving, longest
            else:
                m = mean[start:stop].index_add_(0, slot, arriving * sweep.share[first:last])
                t = torch.full_like(most[start:stop], -torch.inf)
                t.scatter_reduce_(0, slot[:, None].expand_as(longest), longest, "amax")
            mean[start:stop] = m
            most[start:stop] = t
            gated[start:stop] += keep[start:stop] * m
            tropical[start:stop] += t
        ctx.save_for_backward(keep, mean, most, tropical)
        ctx.sweep = sweep
        return gated, tropical

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        keep, mean, most, tropical = ctx.saved_tensors
        sweep: Sweep = ctx.sweep
        to_gated, to_tropical = (gradient.clone() for gradient in gradients)
        for start, stop, first, last in reversed(sweep.levels):
            if first == last:
                continue
            source, slot = sweep.source[first:last], sweep.slot[first:last]
            back = (to_gated[start:stop] * keep[start:stop]).index_select(0, slot) * sweep.share[first:last]
            to_gated.index_add_(0, source, back)
            if last - first == stop - start:
                to_tropical.index_add_(0, source, to_tropical[start:stop].clone())
                continue
            best = (tropical.index_select(0, source) == most[start:stop].index_select(0, slot)).to(keep.dtype)
            ties = torch.zeros_like(most[start:stop]).index_add_(0, slot, best)
            shared = to_tropical[start:stop] / ties.clamp_min(1.0)
            to_tropical.index_add_(0, source, shared.index_select(0, slot) * best)
        return to_gated * mean, to_gated, to_tropical, None
