"""Where an adversary may move the inputs: ball and box around each example, in float64."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from danskin.attacks.bounds import Ball
from danskin.attacks.checks import DataBox
from danskin.evaluation.certificates.windows import Window
from danskin.minmax import Box, Intersection
from danskin.minmax.data_box import box_for
from danskin.minmax.measured import grown, radius_of
from danskin.minmax.sets import rowwise

_TINY = 1e-300


@dataclass(frozen=True, eq=False)
class Region:
    """x + delta with delta in the ball and x + delta in the box.

    Args:
        x: (n, ...) float64.
        ball: with one radius per example, float64.
        low, high: (n, ...) the least and largest value of each coordinate in the region.
    """

    x: Tensor
    ball: Any
    low: Tensor
    high: Tensor

    @staticmethod
    def of(x: Tensor, ball: Ball, box: DataBox) -> Region:
        """The region an attack on x (n, ...) searches, enlarged by the rounding of x + delta in the dtype of x.

        An attack adds delta to x in the precision of x; each coordinate is rounded by up to half a unit in the
        last place of |x| + radius. The radius grows by twice that, measured in the ball's norm.
        """
        wide = x.detach().double()
        radius = torch.as_tensor(radius_of(ball), dtype=torch.float64, device=x.device).expand(len(x))
        size = math.prod(x.shape[1:])
        unit = float(ball.norm(torch.ones_like(wide[:1]))) if size and len(x) else 0.0
        largest = wide.flatten(1).abs().amax(1) if size else torch.zeros_like(radius)
        radius = radius + torch.finfo(x.dtype).eps * unit * (largest + radius)
        around = rowwise(radius, wide)
        low, high = wide - around, wide + around
        beside = box_for(box, wide)
        if beside is not None:  # inputs may leave the box by rounding, as in `Attack.feasible`
            low = torch.maximum(low, wide.clamp_max(beside[0]))
            high = torch.minimum(high, wide.clamp_min(beside[1]))
        return Region(wide, grown(ball, radius), low, high)

    @property
    def l2_radius(self) -> Tensor:
        r"""(n,): at least the largest \|delta\|_2.

        That is the radius of an l2 ball; of an l1 ball too; and everywhere at most the half diagonal of the
        region's hull, measured from x.
        """
        reach = torch.maximum(self.high - self.x, self.x - self.low).flatten(1)
        diagonal = torch.linalg.vector_norm(reach, dim=1) * (1 + 1e-12)
        return diagonal if self.ball.order == math.inf else torch.minimum(diagonal, self.ball.value)

    def least(self, a: Tensor, example: Tensor | None, *, exact: bool = False) -> Tensor:
        """(rows,): at most the least <a, x + delta> over the region of each row's example.

        Args:
            a: (rows, ...) coefficients.
            example: (rows,) whose region; None: row i has region i.
            exact: use l2 or l1 ball and box together (dearer), not the better of the two; l_inf is exact anyway.
        """
        own = self if example is None else self.rows(example)
        a, low, high = a.flatten(1), own.low.flatten(1), own.high.flatten(1)
        if self.ball.order == math.inf:
            return 0.5 * ((a * (low + high)).sum(1) - (a.abs() * (high - low)).sum(1))
        x, radius = own.x.flatten(1), own.ball.value
        room, size = torch.where(a > 0, x - low, high - x), a.abs()
        fall = torch.minimum(radius * self._dual_norm(a), (size * room).sum(1))
        if exact:
            # the box that the hull left over from the ball is the same box; any price is a valid bound
            moved = Intersection(own.ball, Box(low - x, high - x)).lmo(-a)
            fall = torch.minimum(fall, self._priced(size, room, radius, moved.abs()))
        return (a * x).sum(1) - fall

    def common_range(self, a: Tensor) -> tuple[Tensor, Tensor]:
        """Low and high (n, rows) of <a, x + delta> for rows (rows, ...) that all examples share."""
        a = a.flatten(1)
        if self.ball.order == math.inf:
            low, high = self.low.flatten(1), self.high.flatten(1)
            center, around = 0.5 * (low + high) @ a.T, 0.5 * (high - low) @ a.abs().T
        else:
            center, around = self.x.flatten(1) @ a.T, self.ball.value[:, None] * self._dual_norm(a)
        return center - around, center + around

    def _dual_norm(self, a: Tensor) -> Tensor:
        """(rows,): the dual norm of rows (rows, d), by functions that have derivatives in all versions of torch."""
        return torch.linalg.vector_norm(a, dim=1) if self.ball.order == 2 else a.abs().amax(1)

    def _priced(self, size: Tensor, room: Tensor, radius: Tensor, moved: Tensor) -> Tensor:
        r"""An upper bound of max <size, q> over 0 <= q <= room in the ball, by Lagrangian duality.

        l2: sum max_q (size q - p q^2 / 2) + p r^2 / 2; l1: sum room (size - p)+ + p r. Both hold for every price
        p >= 0 and are tight at the price of the maximiser `moved`, so rounding in `moved` cannot break them.
        """
        if self.ball.order == 2:
            price = 1 / (moved / size.clamp_min(_TINY)).amax(1).clamp_min(_TINY)
            q = torch.minimum(size / price[:, None], room)
            return (size * q - 0.5 * price[:, None] * q.square()).sum(1) + 0.5 * price * radius.square()
        price = torch.where(moved > 0, size, math.inf).amin(1)
        price = torch.where(price.isfinite(), price, 0.0)
        return (room * (size - price[:, None]).clamp_min(0)).sum(1) + price * radius

    def cut(self, window: Window, example: Tensor) -> Region:
        """The regions of each row's window of images; a point in the padding."""
        x, low, high = (window.cut(v, example) for v in (self.x, self.low, self.high))
        return Region(x, self.ball.rows(example), low, high)

    def rows(self, index: Tensor) -> Region:
        """The regions of some examples."""
        return Region(self.x[index], self.ball.rows(index), self.low[index], self.high[index])
