"""What a feed-forward network is made of, as bounds see it: affine maps and activations.

An affine map knows four things about z = W x + b: its value, |W| r (how far a box of half-widths r spreads),
the transposed map W^T a, and <a, b>. Interval bounds need the first two, linear bounds the last two, and
Lipschitz bounds a number that is at least the largest singular value of W.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from danskin.lipschitz.curves import Curve
from danskin.lipschitz.splines import spline

Pair = tuple[int, int]
Shape = tuple[int, ...]


class Affine(Protocol):
    """z = W x + b, batched over dim 0."""

    def apply(self, x: Tensor) -> Tensor:
        """W x + b, (batch, *inputs) to (batch, *outputs)."""
        ...

    def spread(self, r: Tensor) -> Tensor:
        """|W| r: the half-widths of W x + b over a box of half-widths r >= 0."""
        ...

    def pullback(self, a: Tensor) -> Tensor:
        """W^T a, (rows, *outputs) to (rows, *inputs)."""
        ...

    def offset(self, a: Tensor) -> Tensor:
        """<a, b>, (rows, *outputs) to (rows,)."""
        ...


def total(a: Tensor) -> Tensor:
    """The sum over all but dim 0."""
    return a.flatten(1).sum(1)


@dataclass(frozen=True, eq=False)
class Input:
    """The input itself."""


@dataclass(frozen=True, eq=False)
class Linear:
    """W x + b on the last dimension.

    Args:
        weight: (outputs, inputs).
        bias: (outputs,).
    """

    weight: Tensor
    bias: Tensor

    def apply(self, x: Tensor) -> Tensor:
        """W x + b."""
        return F.linear(x, self.weight, self.bias)

    def spread(self, r: Tensor) -> Tensor:
        """|W| r."""
        return F.linear(r, self._absolute)

    def pullback(self, a: Tensor) -> Tensor:
        """W^T a."""
        return a @ self.weight

    def offset(self, a: Tensor) -> Tensor:
        """<a, b>."""
        return total(a * self.bias)

    @cached_property
    def _absolute(self) -> Tensor:
        return self.weight.abs()


@dataclass(frozen=True, eq=False)
class Conv:
    """A convolution of images with zero padding.

    Args:
        weight: (channels out, channels in / groups, height, width).
        bias: (channels out,).
        shape: of one input, (channels, height, width).
        stride, padding, dilation: vertical and horizontal.
        groups: of channels.
    """

    weight: Tensor
    bias: Tensor
    shape: Shape
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1

    def _run(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.conv2d(x, weight, bias, self.stride, self.padding, self.dilation, self.groups)

    def apply(self, x: Tensor) -> Tensor:
        """W * x + b."""
        return self._run(x, self.weight, self.bias)

    def spread(self, r: Tensor) -> Tensor:
        """|W| * r."""
        return self._run(r, self._absolute, None)

    def pullback(self, a: Tensor) -> Tensor:
        """The transposed convolution, of the size of the inputs also where the stride leaves a remainder."""
        size = [
            (n - 1) * s - 2 * p + d * (k - 1) + 1
            for n, s, p, d, k in zip(
                a.shape[-2:], self.stride, self.padding, self.dilation, self.weight.shape[-2:], strict=True
            )
        ]
        rest = [want - got for want, got in zip(self.shape[-2:], size, strict=True)]
        return F.conv_transpose2d(a, self.weight, None, self.stride, self.padding, rest, self.groups, self.dilation)

    def offset(self, a: Tensor) -> Tensor:
        """<a, b>."""
        return a.sum((2, 3)) @ self.bias

    @cached_property
    def _absolute(self) -> Tensor:
        return self.weight.abs()


@dataclass(frozen=True, eq=False)
class Transposed:
    """A transposed convolution: the transpose of a convolution's matrix, plus a bias.

    Args:
        conv: the convolution, on images of the shape of the results.
        bias: (channels of the results,).
    """

    conv: Conv
    bias: Tensor

    def apply(self, x: Tensor) -> Tensor:
        """W^T x + b."""
        return self.conv.pullback(x) + self.bias[:, None, None]

    def spread(self, r: Tensor) -> Tensor:
        """|W|^T r."""
        return replace(self.conv, weight=self.conv.weight.abs()).pullback(r)

    def pullback(self, a: Tensor) -> Tensor:
        """W a."""
        return self.conv._run(a, self.conv.weight, None)

    def offset(self, a: Tensor) -> Tensor:
        """<a, b>."""
        return a.sum((2, 3)) @ self.bias


@dataclass(frozen=True, eq=False)
class Scale:
    """scale x + shift, coordinate by coordinate.

    Args:
        scale: broadcasts against one example.
        shift: likewise.
    """

    scale: Tensor
    shift: Tensor

    def apply(self, x: Tensor) -> Tensor:
        """Scale x + shift."""
        return x * self.scale + self.shift

    def spread(self, r: Tensor) -> Tensor:
        """|scale| r."""
        return r * self.scale.abs()

    def pullback(self, a: Tensor) -> Tensor:
        """Scale a."""
        return a * self.scale

    def offset(self, a: Tensor) -> Tensor:
        """<a, shift>."""
        return total(a * self.shift)


@dataclass(frozen=True, eq=False)
class Positive:
    """An affine map given by a function, whose matrix has no negative entry: reshape, slice, pad, average.

    Args:
        function: (batch, *inputs) to (batch, *outputs), for any batch.
        shape: of one input.
    """

    function: Callable[[Tensor], Tensor]
    shape: Shape

    def apply(self, x: Tensor) -> Tensor:
        """W x + b."""
        return self.function(x)

    def spread(self, r: Tensor) -> Tensor:
        """W r."""
        return self.function(r) - self._at_zero(r)

    def pullback(self, a: Tensor) -> Tensor:
        """W^T a, by differentiating the function."""
        zeros = a.new_zeros((len(a), *self.shape))
        return torch.func.vjp(self.function, zeros)[1](a)[0]

    def offset(self, a: Tensor) -> Tensor:
        """<a, b>."""
        return total(a * self._at_zero(a))

    def _at_zero(self, like: Tensor) -> Tensor:
        return self.function(like.new_zeros((1, *self.shape)))


@dataclass(frozen=True)
class Sum:
    """The sum of several inputs with factors: what joins the branches of a residual network.

    Args:
        factors: one per input.
        apart: whether no coordinate is touched by more than one input: what joins the parts of a concatenation.
    """

    factors: tuple[float, ...]
    apart: bool = False


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

    def range(self, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """The least and the largest values between low and high: at the ends, or at a knot between."""
        ends = self.apply(low), self.apply(high)
        least, most = torch.minimum(*ends), torch.maximum(*ends)
        shape = [1] * low.ndim
        shape[self.dim] = -1
        alpha = torch.ones_like(self.heights[:, 0]) if self.alpha is None else self.alpha
        knots = torch.linspace(float(self.grid[0]), float(self.grid[-1]), len(self.grid), dtype=torch.float64)
        for k in range(len(self.grid)):
            knot, height = (v.view(shape) for v in (float(knots[k]) / alpha, self.heights[:, k] / alpha))
            inside = (low < knot) & (knot < high)
            least = torch.where(inside, torch.minimum(least, height), least)
            most = torch.where(inside, torch.maximum(most, height), most)
        return least, most


@dataclass(frozen=True, eq=False)
class CircularPad(Positive):
    """Images that continue at the other side. Next to a convolution it is a part of it: `CircularConv`.

    Args:
        around: left, right, top, bottom.
    """

    around: tuple[int, int, int, int] = (0, 0, 0, 0)


@dataclass(frozen=True, eq=False)
class CircularConv:
    """A convolution of images that continue at the other side: both in one, as their norm is below the product.

    Args:
        pad: continues the images.
        conv: of the padded images, itself without padding.
    """

    pad: CircularPad
    conv: Conv

    def apply(self, x: Tensor) -> Tensor:
        """W * x + b."""
        return self.conv.apply(self.pad.apply(x))

    def spread(self, r: Tensor) -> Tensor:
        """|W| * r."""
        return self.conv.spread(self.pad.spread(r))

    def pullback(self, a: Tensor) -> Tensor:
        """W^T a."""
        return self.pad.pullback(self.conv.pullback(a))

    def offset(self, a: Tensor) -> Tensor:
        """<a, b>."""
        return self.conv.offset(a)


AFFINE = (Linear, Conv, Transposed, Scale, Positive, CircularConv)
ACTIVATIONS = (Relu, Sigmoid, Tanh, MaxPool, Abs, Sort, Spline, Curve)
ELEMENTWISE = (Relu, Sigmoid, Tanh, Abs, Spline, Curve)
Elementwise = Relu | Sigmoid | Tanh | Abs | Spline | Curve
Activation = Relu | Sigmoid | Tanh | MaxPool | Abs | Sort | Spline | Curve
Operation = Input | Linear | Conv | Transposed | Scale | Positive | CircularConv | Sum | Activation
