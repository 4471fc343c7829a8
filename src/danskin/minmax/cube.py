"""The l_inf ball and the data box around given inputs, in the coordinates of those inputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from danskin.minmax.balls import Linf
from danskin.minmax.box import Box
from danskin.minmax.random import Streams
from danskin.minmax.sets import rowwise


@dataclass(frozen=True, eq=False)
class Cube:
    r"""\|q - centre\|_inf <= radius, and q in a box: what `Intersection` is to shifts, among the inputs themselves.

    A search there need not add the centre and clip to the box at every step. It holds nothing of the size of the
    inputs but the inputs: its bounds are made when asked for, and `project_` needs none.

    Args:
        centre: (batch, ...).
        ball: holds the radius.
        box: (low, high), or None; a centre outside it by rounding counts as moved inside.
    """

    cube: ClassVar[bool] = True

    centre: Tensor
    ball: Linf
    box: tuple[float, float] | None

    def __post_init__(self) -> None:
        self.ball.check(self.centre)

    def bounds(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Each coordinate's least and largest value."""
        radius = rowwise(self.ball.value, self.centre)
        low, high = self.centre - radius, self.centre + radius
        return (low, high) if self.box is None else (low.clamp_(*self.box), high.clamp_(*self.box))

    def project(self, y: Tensor) -> Tensor:
        """Clip to the bounds."""
        return y.clamp(*self.bounds(y))

    def project_(self, y: Tensor) -> Tensor:
        """The same in the memory of y, to the rounding of y - centre; never beyond the bounds."""
        radius = rowwise(self.ball.value, y)
        y.sub_(self.centre).clamp_(-radius, radius).add_(self.centre)
        return y if self.box is None else y.clamp_(*self.box)

    def lmo(self, g: Tensor) -> Tensor:
        """High where g > 0, low where g < 0, the centre where g = 0."""
        low, high = self.bounds(g)
        return torch.where(g > 0, high, torch.where(g < 0, low, self.centre.clamp(low, high)))

    def steepest(self, g: Tensor) -> Tensor:
        """sign(g)."""
        return g.sign()

    def sample(self, like: Tensor, generator: Streams) -> Tensor:
        """Uniform in the ball, then clipped: where `Intersection` would be."""
        q = self.ball.sample(like, generator).add_(self.centre)
        return q if self.box is None else q.clamp_(*self.box)

    def violation(self, y: Tensor) -> Tensor:
        """The largest excess over a bound."""
        return Box(*self.bounds(y)).violation(y)

    def norm(self, y: Tensor) -> Tensor:
        """The l_inf norm."""
        return self.ball.norm(y)

    def dual_norm(self, g: Tensor) -> Tensor:
        """The l1 norm."""
        return self.ball.dual_norm(g)

    def rows(self, index: Tensor) -> Cube:
        """The same cube for some rows."""
        return Cube(self.centre[index], self.ball.rows(index), self.box)
