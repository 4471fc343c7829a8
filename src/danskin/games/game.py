"""What a game of the zoo tells of itself: its operator, its solutions, its constants, where to start and to look."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from danskin.errors import InputError
from danskin.minmax import Streams
from danskin.minmax.number import Number
from danskin.minmax.saddle import Operator, Saddle, jacobian


@dataclass(frozen=True)
class Cycle:
    """A circle around a solution on which the continuous dynamics stay.

    Args:
        radius: of the circle.
        attracts: whether what starts nearby comes closer.
    """

    radius: float
    attracts: bool


@dataclass(frozen=True)
class Game:
    """A game with known constants; every concrete one is a frozen dataclass whose fields are its parameters.

    Class attributes: `step_size` is the step for runs that name none (None: the solver's own); `default_steps` how
    many; `view` bounds the square of starts and pictures.
    """

    step_size: ClassVar[Number | None] = None
    default_steps: ClassVar[int] = 5000
    view: ClassVar[tuple[float, float]] = (-1.5, 1.5)

    def saddle(self) -> Saddle:
        """The operator, the set, the payoff, the constants."""
        raise NotImplementedError

    @property
    def dimension(self) -> int:
        """Of z = (x, y)."""
        return 2

    @property
    def solutions(self) -> Tensor | None:
        """(k, d) float64: the known solutions of the variational inequality; None where none are known in advance."""
        return torch.zeros(1, self.dimension, dtype=torch.float64)

    @property
    def weak_minty(self) -> float | None:
        r"""The largest rho with <F(z), z - z*> >= rho \|F(z)\|^2 on Z, where known in closed form."""
        return None

    @property
    def certified(self) -> str | None:
        """Its class of problems in `danskin.games.certificates`; None where none of them fits."""
        return None

    @property
    def cycles(self) -> tuple[Cycle, ...]:
        """Cycles of the continuous dynamics dz/dt = -F(z) around the first solution."""
        return ()

    def starts(self, n: int, seed: int = 0) -> Tensor:
        """(n, d) float64 starts, uniform in the square of `view`; start i is the same for every n."""
        if n < 1:
            raise InputError(f"starts: expected at least 1, got {n}; 16 is usual")
        low, high = self.view
        like = torch.empty(n, self.dimension, dtype=torch.float64)
        return low + (high - low) * Streams.of(seed, torch.arange(n)).uniform(like)


@dataclass(frozen=True, eq=False)
class Separable:
    """Phi(x, y) = x (y - shift) + phi(x) - phi(y) of one coordinate each, with phi an even polynomial.

    Args:
        powers: coefficients of s^2, s^4, s^6 in phi.
        shift: of y in the bilinear term.
    """

    powers: tuple[float, float, float]
    shift: float = 0.0

    def phi(self, s: Tensor) -> Tensor:
        """The polynomial."""
        a, b, c = self.powers
        square = s * s
        return square * (a + square * (b + square * c))

    def slope(self, s: Tensor) -> Tensor:
        """Its derivative."""
        a, b, c = self.powers
        square = s * s
        return s * (2 * a + square * (4 * b + square * 6 * c))

    def payoff(self, z: Tensor) -> Tensor:
        """(batch,): Phi."""
        x, y = z.unbind(1)
        return x * (y - self.shift) + self.phi(x) - self.phi(y)

    def __call__(self, z: Tensor) -> Tensor:
        """F(z)."""
        x, y = z.unbind(1)
        return torch.stack([y - self.shift + self.slope(x), self.slope(y) - x], 1)

    def lipschitz(self, radius: float) -> float:
        r"""The largest \|J\|_2 on [-radius, radius]^2.

        J = [[phi''(x), 1], [-1, phi''(y)]] and its norm is convex in both entries, so their extremes decide: at 0, at
        the edge, and where phi'' turns.
        """
        a, b, c = self.powers
        squares = [0.0, radius**2] + ([-b / (5 * c)] if 0 < -b / (5 * c) < radius**2 else [])
        bends = [2 * a + 12 * b * s + 30 * c * s * s for s in squares]
        corners = torch.tensor([[[p, 1.0], [-1.0, q]] for p in bends for q in bends], dtype=torch.float64)
        return float(torch.linalg.matrix_norm(corners, 2).max())


def newton(F: Operator, z: Tensor, steps: int = 30) -> Tensor:
    """A zero of F near z (batch, d), by Newton's method."""
    for _ in range(steps):
        z = z - torch.linalg.solve(jacobian(F, z), F(z)[:, :, None])[:, :, 0]
    return z


def weak_minty_on(saddle: Saddle, solution: Tensor, points: Tensor) -> float:
    r"""The least <F(z), z - z*> / \|F(z)\|^2 over points (n, d): an upper bound of the weak Minty parameter rho.

    Points where F is 0 do not count.
    """
    value = saddle(points)
    square = value.square().sum(1)
    inner = (value * (points - solution)).sum(1)
    return float((inner / square.clamp_min(1e-300))[square > 1e-20].min())
