"""Interval bounds: what a node of a network can be, if its inputs vary independently."""

from __future__ import annotations

import torch
from torch import Tensor

from danskin.lipschitz.curves import Curve
from danskin.lipschitz.operations import ACTIVATIONS, Abs, Input, Operation, Spline, Sum

Interval = tuple[Tensor, Tensor]


def interval(operation: Operation, inputs: list[Interval], of_input: Interval) -> Interval:
    r"""Low and high (n, *shape) of an operation's value from those of its inputs.

    Affine: W c + b -+ \|W\| r with center c and half-widths r; activations are monotone (max pooling and sorting too)
    or know where they turn.

    Reference: Gowal et al., ICCV 2019, section 3.
    """
    if isinstance(operation, Input):
        return of_input
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
    if isinstance(operation, Spline | Curve):
        return operation.range(low, high)
    if isinstance(operation, ACTIVATIONS):
        return operation.apply(low), operation.apply(high)
    center, around = operation.apply(0.5 * (low + high)), operation.spread(0.5 * (high - low))
    return center - around, center + around
