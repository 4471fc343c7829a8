"""Games whose operator is seen one noisy sample at a time. Lecture: row G1."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from danskin.errors import InputError
from danskin.games.game import Game
from danskin.minmax import Linf, Streams
from danskin.minmax.number import Number
from danskin.minmax.saddle import Saddle


@dataclass(frozen=True)
class ConstrainedBilinear(Game):
    """Phi = (x - 0.9)(y - 0.9) on the square [-1, 1]^2, F seen with Gaussian noise: the solution is near the corner.

    Args:
        noise: standard deviation of each coordinate of F.

    Reference: Pethick et al., ICLR 2023 (stochastic weak Minty). Lecture: row G1.
    """

    noise: float = 0.1

    step_size: ClassVar[Number | None] = 0.5
    view: ClassVar[tuple[float, float]] = (-1.0, 1.0)

    def __post_init__(self) -> None:
        if not 0 <= self.noise < math.inf:
            raise InputError(f"ConstrainedBilinear.noise: expected a number >= 0, got {self.noise!r}; 0.1 is usual")

    @property
    def certified(self) -> str:
        """Without noise, monotone with a set."""
        return "constrained"

    @property
    def solutions(self) -> Tensor:
        """(0.9, 0.9)."""
        return torch.full((1, 2), 0.9, dtype=torch.float64)

    @property
    def weak_minty(self) -> float:
        """0: F is monotone."""
        return 0.0

    def saddle(self) -> Saddle:
        """F = (y - 0.9, 0.9 - x)."""

        def field(z: Tensor) -> Tensor:
            x, y = z.unbind(1)
            return torch.stack([y - 0.9, 0.9 - x], 1)

        def payoff(z: Tensor) -> Tensor:
            return (z - 0.9).prod(1)

        def noisy(z: Tensor, streams: Streams) -> Tensor:
            return field(z) + self.noise * streams.normal(z)

        seen = noisy if self.noise else None
        return Saddle(field, 1, Linf(1.0), payoff, lipschitz=1.0, bilinear=True, noisy=seen)


@dataclass(frozen=True)
class ScaledBilinear(Game):
    """Phi = E[c] x y seen one sample at a time, c = 3 with probability 0.2 and 0.5 with 0.8; E[c] = 1.

    The samples have a larger Lipschitz constant than their mean. Reference: Pethick et al., ICLR 2023. Lecture: row G1.
    """

    high: float = 3.0
    low: float = 0.5
    probability: float = 0.2

    view: ClassVar[tuple[float, float]] = (-1.0, 1.0)
    step_size: ClassVar[Number | None] = "0.1/L"

    def __post_init__(self) -> None:
        if not (0 <= self.probability <= 1 and self.high >= self.low > 0):
            raise InputError(
                f"ScaledBilinear: expected high >= low > 0 and a probability, got {self.high!r}, {self.low!r}, "
                f"{self.probability!r}; the defaults are 3, 0.5 and 0.2"
            )

    @property
    def weak_minty(self) -> float:
        """0: F is monotone."""
        return 0.0

    def saddle(self) -> Saddle:
        """F = E[c] (y, -x)."""
        mean = self.probability * self.high + (1 - self.probability) * self.low

        def rotation(z: Tensor) -> Tensor:
            return torch.stack([z[:, 1], -z[:, 0]], 1)

        def noisy(z: Tensor, streams: Streams) -> Tensor:
            scale = torch.where(streams.uniform(z[:, :1]) < self.probability, self.high, self.low)
            return scale * rotation(z)

        return Saddle(
            lambda z: mean * rotation(z),
            1,
            None,
            lambda z: mean * z.prod(1),
            lipschitz=mean,
            bilinear=True,
            noisy=noisy,
        )
