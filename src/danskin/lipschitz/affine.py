"""Affine maps of feed-forward networks, as bounds see them.

An affine map knows four things about z = W x + b: its value, |W| r (how far a box of half-widths r spreads),
the transposed map W^T a, and <a, b>. Interval bounds need the first two, linear bounds the last two, and
Lipschitz bounds a number that is at least the largest singular value of W.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

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

    @property
    def outputs(self) -> Shape:
        """The shape of one result."""
        sides = zip(self.shape[1:], self.weight.shape[2:], self.stride, self.padding, self.dilation, strict=True)
        return (len(self.weight), *((n + 2 * p - (k - 1) * d - 1) // s + 1 for n, k, s, p, d in sides))

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
