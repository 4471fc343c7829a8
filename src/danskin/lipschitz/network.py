"""A feed-forward network as a list of operations in float64, in the order they run."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from danskin.lipschitz.operations import AFFINE, Input, Operation, Shape, Sum


@dataclass(frozen=True, eq=False)
class Node:
    """One operation and where its inputs come from.

    Args:
        name: what torch calls it.
        operation: what it does.
        inputs: places of its inputs in the list; all before its own.
        shape: of its value for one example.
    """

    name: str
    operation: Operation
    inputs: tuple[int, ...]
    shape: Shape


@dataclass(frozen=True, eq=False)
class Network:
    """Node 0 is the input, the last one the output.

    Args:
        nodes: in the order they run.
    """

    nodes: tuple[Node, ...]

    def __call__(self, x: Tensor) -> Tensor:
        """The outputs, (batch, ...)."""
        return self.values(x)[-1]

    def values(self, x: Tensor) -> list[Tensor]:
        """The values of all nodes at x (batch, ...), which is float64."""
        values: list[Tensor] = []
        for node in self.nodes:
            values.append(run(node.operation, x, [values[i] for i in node.inputs]))
        return values

    @property
    def device(self) -> torch.device:
        """Where its constants are; the CPU where it has none."""
        for node in self.nodes:
            for value in vars(node.operation).values():
                if isinstance(value, Tensor):
                    return value.device
        return torch.device("cpu")

    def affine_tail(self) -> int:
        """The first node from which only affine operations with one input lead to the output."""
        at = len(self.nodes) - 1
        while isinstance(self.nodes[at].operation, AFFINE):
            at = self.nodes[at].inputs[0]
        return at

    def pull_tail(self, a: Tensor) -> Tensor:
        """The gradient (rows, ...) of <a, output> with respect to the node `affine_tail`, for a (rows, ...)."""
        at = len(self.nodes) - 1
        while isinstance(operation := self.nodes[at].operation, AFFINE):
            a = operation.pullback(a)
            at = self.nodes[at].inputs[0]
        return a


def run(operation: Operation, x: Tensor, inputs: list[Tensor]) -> Tensor:
    """What an operation makes of its inputs; `x` is the network's input."""
    if isinstance(operation, Input):
        return x
    if isinstance(operation, Sum):
        terms = [factor * value for factor, value in zip(operation.factors, inputs, strict=True)]
        return sum(terms[1:], terms[0])
    return operation.apply(inputs[0])
