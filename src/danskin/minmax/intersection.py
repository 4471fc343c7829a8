"""A set cut with a box."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from danskin.errors import InputError
from danskin.minmax import dykstra
from danskin.minmax.box import Box
from danskin.minmax.random import Streams
from danskin.minmax.sets import Set, as_like, is_cube, rowwise


@dataclass(frozen=True, eq=False)
class Intersection:
    """A ball cut with a box that holds 0: perturbations within the budget that stay valid data.

    For the balls of l_inf, l2 and l1, and for any set that says so (`Set`: ``project_within``, ``lmo_within``),
    projection and linear maximiser are exact (for l1 and l2 they are not the composition of the two projections). For
    other sets they are iterations that end within `tolerance` of the exact ones (`danskin.minmax.dykstra`).

    Args:
        ball: a `Set`.
        box: holds 0.
    """

    ball: Any
    box: Box

    @property
    def cube(self) -> bool:
        """Whether it is a product of intervals."""
        return is_cube(self.ball)

    @property
    def tolerance(self) -> float:
        """How far a projection may be from the exact one, relative to its size: 0, but for iterations."""
        return 0.0 if self._exact else dykstra.TOLERANCE

    @property
    def _exact(self) -> bool:
        return self.cube or getattr(self.ball, "project_within", None) is not None

    def bounds(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Each coordinate's least and largest value in ball and box (as far as is known), shaped as y; made once."""
        made = self.__dict__.setdefault("_bounds", {})
        key = (y.shape, y.dtype, y.device)
        if key not in made:
            low, high = self.box.bounds(y)
            if low.numel() and not bool((low.amax() <= 0) & (high.amin() >= 0)):
                raise InputError("Intersection: expected a box that holds 0, got one that does not; shift it")
            if self.cube:
                least, most = self.ball.bounds(y)
                low, high = torch.maximum(low, least), torch.minimum(high, most)
            elif order_of(self) is not None:  # every l_p ball lies in the cube of its radius
                self.ball.check(y)
                r = as_like(rowwise(self.ball.value, y), y)
                low, high = torch.maximum(low, -r), torch.minimum(high, r)
            made[key] = low.expand_as(y), high.expand_as(y)
        return made[key]

    def project(self, y: Tensor) -> Tensor:
        """The nearest point of ball and box."""
        low, high = self.bounds(y)
        if self.cube:
            return y.clamp(low, high)
        if self._exact:
            nearest: Tensor = self.ball.project_within(y, low, high)
            return nearest
        return dykstra.nearest(y, self.ball, self.box)

    def lmo(self, g: Tensor) -> Tensor:
        """The best point of ball and box for a linear payoff."""
        low, high = self.bounds(g)
        if self.cube:
            return torch.where(g > 0, high, torch.where(g < 0, low, torch.zeros_like(g).clamp(low, high)))
        if getattr(self.ball, "lmo_within", None) is not None:
            best: Tensor = self.ball.lmo_within(g, low, high)
            return best
        return dykstra.best(g, self.ball, self.box, self.project)

    def steepest(self, g: Tensor) -> Tensor:
        """The ball's steepest direction."""
        d: Tensor = self.ball.steepest(g)
        return d

    def sample(self, like: Tensor, generator: Streams) -> Tensor:
        """A uniform point of the ball, projected: as in the field, not uniform in the intersection."""
        return self.project(self.ball.sample(like, generator))

    def violation(self, y: Tensor) -> Tensor:
        """The larger violation of ball and box."""
        return torch.maximum(self.ball.violation(y), self.box.violation(y))

    def norm(self, y: Tensor) -> Tensor:
        """The ball's norm."""
        size: Tensor = self.ball.norm(y)
        return size

    def dual_norm(self, g: Tensor) -> Tensor:
        """The dual of the ball's norm."""
        size: Tensor = self.ball.dual_norm(g)
        return size

    def rows(self, index: Tensor) -> Intersection:
        """The same intersection for some rows."""
        return Intersection(self.ball.rows(index), self.box.rows(index))


def ball_of(Y: Set) -> Any:
    """The set that was cut with a box, or Y itself."""
    return Y.ball if isinstance(Y, Intersection) else Y


def order_of(Y: Set) -> float | None:
    """The p of an l_p ball around 0, alone or cut with a box; None for another set."""
    order: float | None = getattr(ball_of(Y), "order", None)
    return order
