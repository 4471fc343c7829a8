"""Boxes, and the simplex."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor

from danskin.errors import InputError
from danskin.minmax import projections
from danskin.minmax.number import Number, number
from danskin.minmax.random import Streams, check_streams
from danskin.minmax.rows import cut
from danskin.minmax.sets import as_like, excess, one_hot_largest, rowwise, vector_norm


@dataclass(frozen=True, eq=False)
class Box:
    """low <= y <= high, coordinate by coordinate; its own norm is l_inf.

    Args:
        low: a number, or a tensor that broadcasts against y: with as many dimensions as y it has a bound for each row,
            with fewer (one for each channel, (C, 1, 1), say) it is the same for all rows.
        high: likewise.
        index: the rows it is for (`rows`); None for all.
    """

    cube: ClassVar[bool] = True

    low: float | Tensor
    high: float | Tensor
    index: Tensor | None = field(default=None, kw_only=True, repr=False)

    def __post_init__(self) -> None:
        if not bool((torch.as_tensor(self.low) <= torch.as_tensor(self.high)).all()):
            raise InputError("Box: expected low <= high everywhere, got low > high; swap the bounds")

    def bounds(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """The bounds as tensors in the dtype of y."""
        low, high = self._cut(y.ndim)
        return as_like(low, y), as_like(high, y)

    def _cut(self, ndim: int) -> tuple[Any, Any]:
        """The bounds of the rows it is for: only what has `ndim` dimensions has rows; made once."""
        if self.index is None:
            return self.low, self.high
        if "_made" not in self.__dict__:

            def cut(bound: Any) -> Any:
                rows = isinstance(bound, Tensor) and bound.ndim == ndim and len(bound) > 1
                return bound[self.index.to(bound.device)] if rows and self.index is not None else bound

            self.__dict__["_made"] = cut(self.low), cut(self.high)
        low, high = self.__dict__["_made"]
        return low, high

    def project(self, y: Tensor) -> Tensor:
        """Clip to [low, high]."""
        return torch.clamp(y, *self.bounds(y))

    def lmo(self, g: Tensor) -> Tensor:
        """High where g > 0, low where g < 0, the point nearest to 0 where g = 0."""
        low, high = self.bounds(g)
        best = torch.where(g > 0, high, torch.where(g < 0, low, self.project(torch.zeros_like(g))))
        if not bool(best.isfinite().all()):
            raise InputError("Box.lmo: expected finite bounds, got an unbounded box; bound it, or use project")
        return best

    def steepest(self, g: Tensor) -> Tensor:
        """sign(g)."""
        return g.sign()

    def sample(self, like: Tensor, generator: Streams) -> Tensor:
        """Uniform between the bounds, which must be finite."""
        low, high = self.bounds(like)
        return self.project(low + (high - low) * check_streams(generator, "sample").uniform(like))

    def violation(self, y: Tensor) -> Tensor:
        """The largest excess over a bound."""
        if not y.numel():
            return y.new_zeros(len(y))
        low, high = self.bounds(y)
        if low.ndim == high.ndim == 0:  # the extremes of a row tell, without a tensor of its size
            flat = projections.flatten(y)
            return excess(torch.maximum(low - flat.amin(1), flat.amax(1) - high))
        outside = torch.maximum(low - y, y - high)
        return excess(projections.flatten(outside).amax(1))

    def norm(self, y: Tensor) -> Tensor:
        """The l_inf norm."""
        return vector_norm(y, math.inf)

    def dual_norm(self, g: Tensor) -> Tensor:
        """The l1 norm."""
        return vector_norm(g, 1)

    def rows(self, index: Tensor) -> Box:
        """The same box for some rows of the batch."""
        if not any(isinstance(bound, Tensor) and bound.ndim for bound in (self.low, self.high)):
            return self
        if "_made" in self.__dict__:  # let go of the rows that left
            return Box(*self.__dict__["_made"], index=index)
        return Box(self.low, self.high, index=index if self.index is None else self.index[index])


@dataclass(frozen=True)
class Simplex:
    """y >= 0 and the sum of y is `total`: class weights, mixtures. Its own norm is l1."""

    total: Number = 1.0

    def __post_init__(self) -> None:
        value = torch.as_tensor(self.value)
        if value.ndim > 1 or not bool(((value >= 0) & value.isfinite()).all()):
            raise InputError(
                f"Simplex.total: expected a finite number >= 0, or a tensor with one per row, got {self.total!r}; "
                "use 1 for class weights"
            )

    @cached_property
    def value(self) -> Any:
        """The total as a number or a (batch,) tensor."""
        return number(self.total)

    def project(self, y: Tensor) -> Tensor:
        """max(y - t, 0) with the t that meets the total."""
        return projections.project_simplex(y, self.value)

    def lmo(self, g: Tensor) -> Tensor:
        """All weight on the largest g: "the worst class"."""
        return rowwise(self.value, g) * one_hot_largest(g, torch.ones_like(g))

    def mirror(self, y: Tensor, g: Tensor) -> Tensor:
        """Argmin over q of <g, q> + KL(q, y): q_i proportional to y_i exp(-g_i), and 0 stays 0."""
        flat = projections.flatten(y).log() - projections.flatten(g)  # in logarithms, nothing over- or underflows
        return rowwise(self.value, y) * flat.softmax(1).view(y.shape)

    def steepest(self, g: Tensor) -> Tensor:
        """sign(g) at the largest |g|, 0 elsewhere."""
        return one_hot_largest(g.abs(), g.sign())

    def sample(self, like: Tensor, generator: Streams) -> Tensor:
        """Uniform: exponentials over their sum (the flat Dirichlet distribution)."""
        e = check_streams(generator, "sample").exponential(like)
        return e * rowwise(self.value / projections.flatten(e).sum(1), like)

    def violation(self, y: Tensor) -> Tensor:
        """The larger of |sum y - total| and the most negative weight."""
        flat = projections.flatten(y)
        return excess(torch.maximum((flat.sum(1) - self.value).abs(), -flat.amin(1)))

    def norm(self, y: Tensor) -> Tensor:
        """The l1 norm."""
        return vector_norm(y, 1)

    def dual_norm(self, g: Tensor) -> Tensor:
        """The l_inf norm."""
        return vector_norm(g, math.inf)

    def rows(self, index: Tensor) -> Simplex:
        """The same simplex for some rows."""
        return cut(self, index)
