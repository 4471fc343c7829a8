"""Activations of feed-forward networks, as bounds see them: they know their value and their largest slope."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from danskin.lipschitz.affine import Pair
from danskin.lipschitz.splines import spline


@dataclass(frozen=True)
class Relu:
    """max(x, leak x) with 0 <= leak <= 1."""

    leak: float = 0.0

    def apply(self, x: Tensor) -> Tensor:
        """max(x, leak x)."""
        return F.relu(x) if self.leak == 0 else torch.maximum(x, self.leak * x)

    slope = 1.0  #: the largest


@dataclass(frozen=True)
class Sigmoid:
    """1 / (1 + exp(-x))."""

    slope = 0.25  #: the largest

    def apply(self, x: Tensor) -> Tensor:
        """1 / (1 + exp(-x))."""
        return torch.sigmoid(x)

    def derivative(self, x: Tensor) -> Tensor:
        """Sigmoid x times sigmoid -x."""
        return torch.sigmoid(x) * torch.sigmoid(-x)


@dataclass(frozen=True)
class Tanh:
    """The hyperbolic tangent."""

    slope = 1.0  #: the largest

    def apply(self, x: Tensor) -> Tensor:
        """Hyperbolic tangent of x."""
        return torch.tanh(x)

    def derivative(self, x: Tensor) -> Tensor:
        """1 / cosh^2 x, right where 1 - tanh^2 is rounded to 0."""
        return 4 * torch.sigmoid(2 * x) * torch.sigmoid(-2 * x)


@dataclass(frozen=True)
class MaxPool:
    """The largest value in each window.

    Args:
        kernel, stride, padding, dilation: vertical and horizontal.
        ceil: whether windows may stick out at the end.
    """

    kernel: Pair
    stride: Pair
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    ceil: bool = False

    def apply(self, x: Tensor) -> Tensor:
        """The largest of each window."""
        return F.max_pool2d(x, self.kernel, self.stride, self.padding, self.dilation, self.ceil)

    def winners(self, x: Tensor) -> Tensor:
        """The place (in the flattened image) of the largest of each window, in the shape of the outputs."""
        return F.max_pool2d(x, self.kernel, self.stride, self.padding, self.dilation, self.ceil, return_indices=True)[1]

    @property
    def slope(self) -> float:
        """The l2 Lipschitz constant: the root of the largest number of windows that one input is in."""
        sides = zip(self.kernel, self.stride, self.dilation, strict=True)
        return math.sqrt(math.prod(min(k, -(-((k - 1) * d + 1) // s)) for k, s, d in sides))


@dataclass(frozen=True)
class Abs:
    """|x|."""

    slope = 1.0  #: the largest

    def apply(self, x: Tensor) -> Tensor:
        """|x|."""
        return x.abs()


@dataclass(frozen=True)
class Sort:
    """Sorted along a dimension: groups of channels, where they have a dimension of their own.

    Args:
        dim: counted from the end, below 0.
        descending: the largest first.
    """

    dim: int
    descending: bool

    slope = 1.0  #: the l2 Lipschitz constant: sorting is 1-Lipschitz

    def apply(self, x: Tensor) -> Tensor:
        """Sorted; it rises with each number, so bounds of the inputs sorted are bounds of the outputs."""
        return x.sort(self.dim, descending=self.descending).values


@dataclass(frozen=True, eq=False)
class Spline:
    """A piecewise linear function for each channel; see `danskin.lipschitz.splines.spline`.

    Args:
        grid: (knots,) evenly spaced.
        heights: (channels, knots).
        slopes: (channels, knots - 1).
        alpha: (channels,) or None.
        dim: of the channels, with the batch in front.
    """

    grid: Tensor
    heights: Tensor
    slopes: Tensor
    alpha: Tensor | None
    dim: int

    @property
    def slope(self) -> float:
        """The largest."""
        return float(self.slopes.abs().max())

    def apply(self, x: Tensor) -> Tensor:
        """The splines of the channels."""
        return spline(x, self.grid, self.heights, self.slopes, self.alpha, self.dim)

    def range(self, low: Tensor, high: Tensor, slope: Tensor | float = 0.0) -> tuple[Tensor, Tensor]:
        """The least and the largest f(x) - slope x for x between low and high: at the ends, or at a knot between."""
        ends = self.apply(low) - slope * low, self.apply(high) - slope * high
        least, most = torch.minimum(*ends), torch.maximum(*ends)
        shape = [1] * low.ndim
        shape[self.dim] = -1
        alpha = torch.ones_like(self.heights[:, 0]) if self.alpha is None else self.alpha
        knots = torch.linspace(float(self.grid[0]), float(self.grid[-1]), len(self.grid), dtype=torch.float64)
        for k in range(len(self.grid)):
            knot, height = (v.view(shape) for v in (float(knots[k]) / alpha, self.heights[:, k] / alpha))
            inside, value = (low < knot) & (knot < high), height - slope * knot
            least = torch.where(inside, torch.minimum(least, value), least)
            most = torch.where(inside, torch.maximum(most, value), most)
        return least, most
