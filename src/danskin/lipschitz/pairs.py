"""Sorted pairs and maxima over 2 x 2 windows as absolute values of differences, exactly.

With s = (a + b) / sqrt(2) and r = (a - b) / sqrt(2): max = (s + |r|) / sqrt(2), min = (s - |r|) / sqrt(2). So sorting a
pair is a rotation, the elementwise map (s, r) -> (s, |r|), and a rotation back, of norm 1 each. Incremental constraints
on |r| then say all that is known of MaxMin: the sum of a pair is kept, and differences do not grow.

Reference: Pauli, Havens, Araujo, Garg, Khorrami, Allgoewer and Hu, ICLR 2024 (constraints for sorting); the rotation
is elementary.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from danskin.errors import ModelError
from danskin.lipschitz import curves
from danskin.lipschitz.network import Network, Node
from danskin.lipschitz.operations import Linear, MaxPool, Operation, Positive, Sort

_TURN = ((1.0, 1.0), (1.0, -1.0))  # times sqrt(1/2)


def paired(network: Network) -> Network:
    """The same function without sorting and max pooling.

    Raises:
        ModelError: sorting of groups that are no pairs, or windows that are not 2 x 2 side by side.
    """
    if not any(isinstance(n.operation, Sort | MaxPool) for n in network.nodes):
        return network
    nodes: list[Node] = []
    place: dict[int, int] = {}
    for at, node in enumerate(network.nodes):
        inputs = tuple(place[i] for i in node.inputs)
        if isinstance(node.operation, Sort):
            _sort(_Writer(nodes, node.name, inputs[0], network.device), node.operation, node.shape)
        elif isinstance(node.operation, MaxPool):
            _pool(_Writer(nodes, node.name, inputs[0], network.device), node)
        else:
            nodes.append(Node(node.name, node.operation, inputs, node.shape))
        place[at] = len(nodes) - 1
    return Network(tuple(nodes))


class _Writer:
    """Adds nodes, one after the other."""

    def __init__(self, nodes: list[Node], name: str, before: int, device: torch.device) -> None:
        self.nodes, self.name, self.at, self.device = nodes, name, before, device

    @property
    def shape(self) -> tuple[int, ...]:
        return self.nodes[self.at].shape

    def add(self, operation: Operation, shape: tuple[int, ...]) -> None:
        self.nodes.append(Node(self.name, operation, (self.at,), shape))
        self.at = len(self.nodes) - 1

    def move(self, function: Callable[[Tensor], Tensor]) -> None:
        """Numbers change their places."""
        shape = tuple(function(torch.empty((1, *self.shape), device="meta")).shape[1:])
        self.add(Positive(function, self.shape), shape)

    def mix(self, rows: tuple[tuple[float, float], ...]) -> None:
        """Each pair (the last dimension) times a matrix, times sqrt(1/2)."""
        weight = torch.tensor(rows, dtype=torch.float64, device=self.device) * math.sqrt(0.5)
        self.add(Linear(weight, weight.new_zeros(len(weight))), (*self.shape[:-1], len(weight)))

    def pairs(self, rows: tuple[tuple[float, float], ...]) -> None:
        """Rows of (1, 1) for the larger, (1, -1) for the smaller one of each pair."""
        self.mix(_TURN)
        kept_and_folded = torch.tensor([1.0, -1.0], dtype=torch.float64, device=self.device)
        self.add(curves.leaky(kept_and_folded), self.shape)
        self.mix(rows)


def _sort(writer: _Writer, sort: Sort, shape: tuple[int, ...]) -> None:
    if shape[sort.dim] != 2:
        raise ModelError(
            f"model: expected sorting of pairs (MaxMin, GroupSort(2)) in a chain, got groups of {shape[sort.dim]} at "
            f"{writer.name}; the product bound reads it"
        )
    dim = sort.dim
    writer.move(lambda t: t.movedim(dim, -1))
    writer.pairs(_TURN if sort.descending else _TURN[::-1])
    writer.move(lambda t: t.movedim(-1, dim))


def _pool(writer: _Writer, node: Node) -> None:
    pool = node.operation
    if not (isinstance(pool, MaxPool) and pool.kernel == pool.stride == (2, 2) and pool.padding == (0, 0)):
        raise ModelError(
            f"model: expected max pooling of 2 x 2 windows side by side in a chain, got MaxPool of another kind at "
            f"{writer.name}; the product bound reads it"
        )
    _, high, wide = node.shape
    if pool.ceil and writer.shape[1:] != (2 * high, 2 * wide):
        raise ModelError(
            f"model: expected whole windows of a MaxPool in a chain, got some that stick out at {writer.name}; the "
            "product bound reads it"
        )
    writer.move(lambda t: t[..., : 2 * high, : 2 * wide].unflatten(3, (wide, 2)))
    writer.pairs(_TURN[:1])
    writer.move(lambda t: t.squeeze(4).unflatten(2, (high, 2)).movedim(3, -1))
    writer.pairs(_TURN[:1])
    writer.move(lambda t: t.squeeze(4))
