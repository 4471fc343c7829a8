"""Piecewise linear curves spelled out as ReLUs, for bounds that know ReLUs best."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from danskin.lipschitz.curves import Curve
from danskin.lipschitz.network import Network, Node
from danskin.lipschitz.operations import Operation, Relu, Scale, Sum


def spelled_out(network: Network) -> Network:
    """The same function with c + s x + sum of (bend) relu(x - kink) in place of each piecewise linear curve.

    Good for linear bounds, whose lines below a ReLU adapt; for Lipschitz constants a curve is better, as the
    constants of summands add up.
    """
    nodes: list[Node] = []
    place: dict[int, int] = {}
    for at, node in enumerate(network.nodes):
        inputs = tuple(place[i] for i in node.inputs)
        curve = node.operation
        if not isinstance(curve, Curve) or curve.kinks is None:
            nodes.append(Node(node.name, curve, inputs, node.shape))
        else:
            _spell(nodes, node, curve, inputs[0], network.device)
        place[at] = len(nodes) - 1
    return Network(tuple(nodes))


def _spell(nodes: list[Node], node: Node, curve: Curve, before: int, device: torch.device) -> None:
    kinks = curve.kinks or ()

    def add(operation: Operation, *inputs: int) -> int:
        nodes.append(Node(node.name, operation, inputs, node.shape))
        return len(nodes) - 1

    def number(value: float | Tensor) -> Tensor:
        return torch.as_tensor(value, dtype=torch.float64, device=device)

    at = [number(k) for k in kinks]
    sides = [at[0] - 1, *(0.5 * (a + b) for a, b in pairwise(at)), at[-1] + 1]
    slopes = [piece.derivative(s) for piece, s in zip(curve.pieces, sides, strict=True)]
    first = slopes[0]
    parts = [add(Scale(first, curve.apply(at[0]) - first * at[0]), before)]
    for kink, left, right in zip(at, slopes[:-1], slopes[1:], strict=True):
        moved = add(Scale(number(1.0), -kink), before)
        bent = add(Relu(), moved)
        parts.append(add(Scale(right - left, torch.zeros_like(right - left)), bent))
    add(Sum((1.0,) * len(parts)), *parts)
