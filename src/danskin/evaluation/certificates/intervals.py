"""Interval bounds: what each node of a network can be, if its inputs vary independently."""

from __future__ import annotations

import torch
from torch import Tensor

from danskin.evaluation.certificates.region import Region
from danskin.lipschitz.network import Network, Node
from danskin.lipschitz.operations import ACTIVATIONS, Abs, Input, Spline, Sum

Interval = tuple[Tensor, Tensor]


def interval(node: Node, inputs: list[Interval], region: Region) -> Interval:
    r"""Low and high (n, *shape) of one node from those of its inputs.

    Affine: W c + b -+ \|W\| r with center c and half-widths r; activations are monotone (max
    pooling and sorting too) but for the absolute value and splines.

    Reference: Gowal et al., ICCV 2019, section 3.
    """
    operation = node.operation
    if isinstance(operation, Input):
        return region.low, region.high
    if isinstance(operation, Sum):
        low = torch.zeros_like(inputs[0][0])
        high = low
        for factor, (a, b) in zip(operation.factors, inputs, strict=True):
            low, high = low + factor * (a if factor > 0 else b), high + factor * (b if factor > 0 else a)
        return low, high
    low, high = inputs[0]
    if isinstance(operation, Abs):
        a, b, zero = low.abs(), high.abs(), (low < 0) & (high > 0)
        return torch.where(zero, 0.0, torch.minimum(a, b)), torch.maximum(a, b)
    if isinstance(operation, Spline):
        return operation.range(low, high)
    if isinstance(operation, ACTIVATIONS):
        return operation.apply(low), operation.apply(high)
    center, around = operation.apply(0.5 * (low + high)), operation.spread(0.5 * (high - low))
    return center - around, center + around


def intervals(network: Network, region: Region) -> list[Interval]:
    """Low and high of all nodes."""
    found: list[Interval] = []
    for node in network.nodes:
        found.append(interval(node, [found[i] for i in node.inputs], region))
    return found
