"""Perturbed inputs that are valid images again: whole steps of 1/255, say."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from danskin.errors import InputError
from danskin.minmax.intersection import order_of
from danskin.minmax.search import mask
from danskin.minmax.sets import rowwise

_OFF = 1e-3  # of a step: how far from the grid an input may lie by rounding


@dataclass(frozen=True)
class Grid:
    """The inputs low + k (high - low) / levels, k = 0 .. levels, within a ball around the clean ones.

    Args:
        levels: steps of the box: 255 for images of 8 bits.
        box: (low, high).
        ball: the perturbation ball.
    """

    levels: int
    box: tuple[Any, Any]
    ball: Any

    @property
    def _unit(self) -> Any:
        return (self.box[1] - self.box[0]) / self.levels

    def check(self, x: Tensor, dtype: torch.dtype) -> None:
        """Refuse clean inputs off the grid, and dtypes that cannot hold it.

        Raises:
            InputError: see above.
        """
        if torch.finfo(dtype).eps * self.levels > 1e-2:
            raise InputError(
                f"grid: expected float32 or float64 inputs, got {dtype}, too coarse for {self.levels} levels"
            )
        steps = (x - self.box[0]) / self._unit
        if steps.numel() and float((steps - steps.round()).abs().max()) > _OFF:
            raise InputError(
                f"grid: expected inputs that are multiples of 1/{self.levels} of the box, got others; take the images "
                "as stored, or grid=None"
            )

    def point(self, x: Tensor, delta: Tensor) -> Tensor:
        """The point of grid, ball and box at or near x + delta: rounded; where that leaves the ball, cut towards x."""
        low, unit = self.box[0], self._unit
        steps = delta / unit
        near = steps.round()
        if order_of(self.ball) == math.inf:
            most = torch.as_tensor(rowwise(self.ball.value, delta), dtype=delta.dtype, device=delta.device)
            near = near.clamp(-(most / unit + _OFF).floor(), (most / unit + _OFF).floor())
        else:
            outside = self.ball.violation(near * unit) > 0
            near = torch.where(mask(outside, near), steps.trunc(), near)
        here = ((x - low) / unit).round()
        return low + (here + near).clamp(0, self.levels) * (self.box[1] - low) / self.levels

    def rows(self, index: Tensor) -> Grid:
        """The same for some examples."""
        return replace(self, ball=self.ball.rows(index))
