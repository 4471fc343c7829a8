"""Learnable piecewise linear activations whose slopes are in [-1, 1], whatever the optimiser does. LECTURE row F6."""

from __future__ import annotations

import copy
import math
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from danskin.errors import InputError
from danskin.lipschitz.layers.base import LipschitzLayer, check_whole, finite, place_of
from danskin.lipschitz.splines import reading, spline, spline_for_reading

_MOST = 7.0  # of |log alpha|: knots closer or wider than a thousandth or a thousand times say nothing but rounding
Init = Literal["identity", "relu", "abs", "maxmin"]


class LinearSpline(LipschitzLayer):
    r"""sigma(alpha x) / alpha for each channel, sigma linear between knots, with slopes clipped to [-1, 1].

    The parameters are the values c at `knots` points on [-reach, reach]; outside, the end slopes go on. At each call
    the slopes are s = clip(diff(c) / T, -1, 1), and the values at the knots are their cumulative sum, moved so that
    their mean is that of c. The gradient passes through the clipping, so no projection after a step is needed, and no
    step can break the constraint.

    Args:
        channels: how many splines.
        knots: points of each, 2 or more.
        reach: of the knots, to both sides of 0; in the units of the inputs at the start (alpha = 1).
        init: "identity", "relu", "abs", or "maxmin": |x| and identity in turn.
        dim: of the channels.
        scaling: learn alpha = exp(log_alpha) > 0 for each channel (within 1e-3 and 1e3), which moves knots, not slopes.

    Reference: Ducotterd et al., JMLR 25, 2024 (the map of c, the scaling, TV2); Neumayer et al., 2023 (why). Their map
    is not the Euclidean projection. Lecture: F6.

    >>> x = torch.tensor([[-0.5], [0.25]])
    >>> LinearSpline(1, init="abs")(x).round(decimals=4).tolist()
    [[0.5], [0.25]]
    """

    grid: Tensor

    def __init__(
        self,
        channels: int,
        *,
        knots: int = 21,
        reach: float = 1.0,
        init: Init = "abs",
        dim: int = 1,
        scaling: bool = True,
    ) -> None:
        super().__init__()
        check_whole(self, 1, channels=channels)
        check_whole(self, 2, knots=knots)
        if not 0 < reach < math.inf:
            raise InputError(f"LinearSpline.reach: expected a positive number, got {reach}; correct it")
        if init not in get_args(Init):
            raise InputError(f"LinearSpline.init: expected one of {', '.join(get_args(Init))}, got {init!r}; pick one")
        self.channels, self.knots, self.init, self.dim = channels, knots, init, dim
        self.register_buffer("grid", torch.linspace(-reach, reach, knots))
        self.values = nn.Parameter(_start(self.grid, channels, init))
        self.log_alpha = nn.Parameter(torch.zeros(channels)) if scaling else None

    @property
    def step(self) -> Tensor:
        """T, the distance of the knots."""
        return (self.grid[-1] - self.grid[0]) / (self.knots - 1)

    def slopes(self) -> Tensor:
        """(channels, knots - 1): between the knots, in [-1, 1]."""
        return (self.values.diff(dim=1) / self.step).clamp(-1, 1)

    def heights(self, slopes: Tensor) -> Tensor:
        """(channels, knots): the values at the knots, with the mean of the parameters."""
        risen = torch.nn.functional.pad((slopes * self.step).cumsum(1), (1, 0))
        return risen + (self.values - risen).mean(1, keepdim=True)

    def forward(self, x: Tensor) -> Tensor:
        """The splines of the channels, in the shape of x."""
        dim = place_of(self.dim, x, self)
        if x.shape[dim] != self.channels:
            raise InputError(
                f"LinearSpline: expected {self.channels} channels in dimension {self.dim}, got shape {tuple(x.shape)}; "
                "build it with that many"
            )
        slopes = self.slopes()
        alpha = None if self.log_alpha is None else self.log_alpha.clamp(-_MOST, _MOST).exp()
        apply = spline_for_reading if reading() else spline
        return apply(x, self.grid, self.heights(slopes), slopes, alpha, dim)

    def tv2(self) -> Tensor:
        """The second-order total variation of all splines, sum_k |s_{k+1} - s_k|: few kinks where it is small.

        Published weights: 1e-10 for Wasserstein distances, 1e-6 for denoising and WGANs.
        """
        return self.slopes().diff(dim=1).abs().sum()

    @property
    def lipschitz(self) -> float:
        """The steepest slope."""
        return float(finite(self.slopes().detach(), self).double().abs().max())

    def export(self) -> nn.Module:
        """A copy: torch has no such layer."""
        return copy.deepcopy(self)

    def extra_repr(self) -> str:
        """Sizes, for printing."""
        return f"{self.channels}, knots={self.knots}, reach={float(self.grid[-1]):.4g}, init={self.init!r}"


def _start(grid: Tensor, channels: int, init: Init) -> Tensor:
    rows = {"identity": [grid], "relu": [grid.relu()], "abs": [grid.abs()], "maxmin": [grid.abs(), grid]}[init]
    return torch.stack([rows[c % len(rows)] for c in range(channels)]).clone()
