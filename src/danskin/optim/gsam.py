"""GSAM: descend the gap between worst and own loss, too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from danskin.errors import InputError
from danskin.minmax import Template, lists
from danskin.minmax.weight_balls import AllWeights, WeightBall, check_radius
from danskin.optim.sharpness import SharpnessAware


class GSAM(SharpnessAware):
    r"""SAM whose step also lowers the gap f(w + v) - f(w): it leaves out a part of g that the worst gradient has not.

    With p = grad f(w + v) and g = grad f(w), the base steps along p - alpha (g - (<g, p> / |p|^2) p). The radius
    follows the learning rate: rho_t = rho_min + (rho - rho_min) (lr_t - lr_min) / (lr_max - lr_min).

    Args:
        base: one optimiser, or several; lr_t is that of the first group.
        rho: the largest radius, > 0.
        alpha: of the gap, >= 0.
        rho_min: the smallest radius; default: rho, a radius that stays.
        lr_max: default: the learning rate at the start.
        lr_min: learning rate at which the radius is `rho_min`.
        options: those of `SharpnessAware`.

    Reference: Zhuang et al. 2022, algorithm 1.
    Lecture: row D3.
    """

    template = Template("weights", "weight shift", "l2 ball", "loss + its gap")
    moves = "one linear maximiser on the weights, the base optimiser outside"
    _keeps_first = True

    def __init__(
        self,
        base: Optimizer | Sequence[Optimizer],
        rho: float = 0.05,
        alpha: float = 0.4,
        *,
        rho_min: float | None = None,
        lr_max: float | None = None,
        lr_min: float = 0.0,
        **options: Any,
    ) -> None:
        super().__init__(base, **options)
        self.alpha, self.rho, self.rho_min = alpha, rho, rho if rho_min is None else rho_min
        for name, value in (("rho", self.rho), ("rho_min", self.rho_min)):
            check_radius(f"GSAM.{name}", value)
        if not alpha >= 0:
            raise InputError(f"GSAM.alpha: expected a number >= 0, got {alpha!r}; 0 is SAM")
        self.lr_max = float(self.param_groups[0]["lr"]) if lr_max is None else lr_max
        self.lr_min = lr_min
        if not self.lr_max > lr_min and self.rho_min != self.rho:
            raise InputError(f"GSAM.lr_max: expected more than lr_min={lr_min}, got {self.lr_max}; give lr_max=")

    def radius(self) -> float:
        """rho_t, at the learning rate of now."""
        if self.rho_min == self.rho:
            return self.rho
        share = (float(self.param_groups[0]["lr"]) - self.lr_min) / (self.lr_max - self.lr_min)
        return self.rho_min + (self.rho - self.rho_min) * min(max(share, 0.0), 1.0)

    def _ball(self) -> WeightBall:
        return AllWeights(self.radius())

    def _combine(self, weights: list[Tensor], first: list[Tensor] | None, second: list[Tensor]) -> None:
        assert first is not None
        square = lists.dot(second, second)
        share = lists.dot(first, second) / square if square > 0 else 0.0
        torch._foreach_mul_(second, 1 + self.alpha * share)
        torch._foreach_add_(second, first, alpha=-self.alpha)
