"""The l_inf ball and the data box around given inputs, in the coordinates of those inputs."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from danskin.minmax.random import Streams
from danskin.minmax.sets import Box, Linf, rowwise


@dataclass(frozen=True, eq=False)
class Cube:
    r"""\|q - centre\|_inf <= radius, and q in a box: what `Intersection` is to shifts, among the inputs themselves.

    A search there need not add the centre and clip to the box at every step: its bounds know both.
    Made by `Cube.around`. Its own norm, of steps, is l_inf.

    Args:
        centre: (batch, ...).
        ball: holds the radius.
        low: like centre, the least values.
        high: like centre, the largest values.
    """

    centre: Tensor
    ball: Linf
    low: Tensor
    high: Tensor

    @staticmethod
    def around(centre: Tensor, ball: Linf, box: tuple[float, float] | None) -> Cube:
        """The points within `ball` of `centre` and in the box; a centre outside it by rounding is moved inside."""
        ball._check(centre)
        radius = rowwise(ball.value, centre)
        low, high = centre - radius, centre + radius
        if box is not None:
            low, high = low.clamp_(*box), high.clamp_(*box)
        return Cube(centre, ball, low, high)

    def bounds(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Each coordinate's least and largest value."""
        return self.low, self.high

    def project(self, y: Tensor) -> Tensor:
        """Clip to the bounds."""
        return y.clamp(self.low, self.high)

    def lmo(self, g: Tensor) -> Tensor:
        """High where g > 0, low where g < 0, the centre where g = 0."""
        return torch.where(g > 0, self.high, torch.where(g < 0, self.low, self.project(self.centre)))

    def steepest(self, g: Tensor) -> Tensor:
        """sign(g)."""
        return g.sign()

    def sample(self, like: Tensor, generator: Streams) -> Tensor:
        """Uniform in the ball, then clipped: where `Intersection` would be."""
        return self.ball.sample(like, generator).add_(self.centre).clamp_(self.low, self.high)

    def violation(self, y: Tensor) -> Tensor:
        """The largest excess over a bound."""
        return Box(self.low, self.high).violation(y)

    def norm(self, y: Tensor) -> Tensor:
        """The l_inf norm."""
        return self.ball.norm(y)

    def dual_norm(self, g: Tensor) -> Tensor:
        """The l1 norm."""
        return self.ball.dual_norm(g)

    def rows(self, index: Tensor) -> Cube:
        """The same cube for some rows."""
        return Cube(self.centre[index], self.ball.rows(index), self.low[index], self.high[index])
