"""What a feed-forward network is made of, as bounds see it: affine maps, sums of branches, and activations."""

from __future__ import annotations

from dataclasses import dataclass

from danskin.lipschitz.activations import Abs, MaxPool, Relu, Sigmoid, Sort, Spline, Tanh
from danskin.lipschitz.affine import (
    Affine,
    CircularConv,
    CircularPad,
    Conv,
    Linear,
    Pair,
    Positive,
    Scale,
    Shape,
    Transposed,
    total,
)
from danskin.lipschitz.curves import Curve

__all__ = [
    "ACTIVATIONS",
    "AFFINE",
    "ELEMENTWISE",
    "Abs",
    "Activation",
    "Affine",
    "CircularConv",
    "CircularPad",
    "Conv",
    "Curve",
    "Elementwise",
    "Input",
    "Linear",
    "MaxPool",
    "Operation",
    "Pair",
    "Positive",
    "Relu",
    "Scale",
    "Shape",
    "Sigmoid",
    "Sort",
    "Spline",
    "Sum",
    "Tanh",
    "Transposed",
    "total",
]


@dataclass(frozen=True, eq=False)
class Input:
    """The input itself."""


@dataclass(frozen=True)
class Sum:
    """The sum of several inputs with factors: what joins the branches of a residual network.

    Args:
        factors: one per input.
        apart: whether no coordinate is touched by more than one input: what joins the parts of a concatenation.
    """

    factors: tuple[float, ...]
    apart: bool = False


AFFINE = (Linear, Conv, Transposed, Scale, Positive, CircularConv)
ACTIVATIONS = (Relu, Sigmoid, Tanh, MaxPool, Abs, Sort, Spline, Curve)
ELEMENTWISE = (Relu, Sigmoid, Tanh, Abs, Spline, Curve)
Elementwise = Relu | Sigmoid | Tanh | Abs | Spline | Curve
Activation = Relu | Sigmoid | Tanh | MaxPool | Abs | Sort | Spline | Curve
Operation = Input | Linear | Conv | Transposed | Scale | Positive | CircularConv | Sum | Activation
