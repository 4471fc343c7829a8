"""Two-player games on intervals and boxes whose players mix: payoffs of two points, with known mixed equilibria.

min over mu, max over nu of the mean of Phi(x, y) under mu and nu, both probability measures: bilinear in (mu, nu),
whatever Phi is, so an equilibrium exists where Phi is continuous and the domain compact (Glicksberg). Lecture: row G2.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from danskin.errors import InputError
from danskin.minmax import Box, Linf, Saddle


@dataclass(frozen=True)
class Domain:
    """[low, high]^d, a box or a torus.

    Args:
        low: of every coordinate.
        high: above low.
        dimension: d, at least 1.
        periodic: whether high is low again.
    """

    low: float = -1.0
    high: float = 1.0
    dimension: int = 1
    periodic: bool = False

    def __post_init__(self) -> None:
        if not self.low < self.high or self.dimension < 1:
            raise InputError(f"Domain: expected low < high and a dimension of at least 1, got {self}; correct it")

    def project(self, x: Tensor) -> Tensor:
        """The nearest point of a box; the same point of a torus."""
        if self.periodic:
            return self.low + (x - self.low).remainder(self.high - self.low)
        return x.clamp(self.low, self.high)

    def grid(self, points: int) -> Tensor:
        """(points^d, d) float64: evenly spaced in every coordinate, both ends of a box included."""
        if points < 2:
            raise InputError(f"grid: expected at least 2 points in each coordinate, got {points}")
        line = torch.linspace(self.low, self.high, points + self.periodic, dtype=torch.float64)[:points]
        return torch.cartesian_prod(*[line] * self.dimension).reshape(-1, self.dimension)

    def spacing(self, points: int) -> float:
        """How far any point of the domain is at most from such a grid, in l2."""
        step = (self.high - self.low) / (points if self.periodic else points - 1)
        return 0.5 * step * math.sqrt(self.dimension)


@dataclass(frozen=True, eq=False)
class MixedGame:
    """min over mu, max over nu of sum_ij a_i b_j Phi(x_i, y_j).

    Args:
        payoff: (x (m, d), y (n, e)) -> (m, n) values of Phi, differentiable.
        x: where the minimising player moves.
        y: where the maximising player moves.
        value: of the game, where it is known.
        lipschitz: of Phi in x and in y, on the domains, in l2; for bounds of the gap. None where unknown.
    """

    payoff: Callable[[Tensor, Tensor], Tensor]
    x: Domain
    y: Domain
    value: float | None = None
    lipschitz: float | None = None


def mixed(saddle: Saddle) -> MixedGame:
    """A game of two numbers in a box, now played by measures on the two intervals.

    Raises:
        InputError: no payoff, no box, or players of more than one number.
    """
    Z = saddle.feasible
    if saddle.payoff is None or not isinstance(Z, Box | Linf):
        lacks = "no payoff" if saddle.payoff is None else f"the set {Z!r}"
        raise InputError(
            f"mixed: expected a game with a payoff on a box, got one with {lacks}; measures need a compact set: bound "
            "the players (radius=2 of bilinear), or play forsaken, quartic or square_distance"
        )
    corners = [Z.project(torch.full((1, 2), far, dtype=torch.float64))[0].tolist() for far in (-1e9, 1e9)]
    if saddle.split != 1 or len(corners[0]) != 2:
        raise InputError(f"mixed: expected one number for each player, got {saddle.split} of the first")
    value = saddle.payoff

    def payoff(x: Tensor, y: Tensor) -> Tensor:
        pairs = torch.stack(torch.broadcast_tensors(x, y.T), 2)
        return value(pairs.flatten(0, 1)).view(len(x), len(y))

    x, y = (Domain(low, high) for low, high in zip(*corners, strict=True))
    return MixedGame(payoff, x, y)


def square_distance() -> MixedGame:
    """Phi = (x - y)^2 on [-1, 1]^2: x = 0 against y = -1 and 1 with half each; value 1. No pure equilibrium."""
    return MixedGame(lambda x, y: (x - y.T) ** 2, Domain(), Domain(), 1.0, 4.0)


def circle() -> MixedGame:
    """Phi = cos(x - y) on the circle: any pair without a first Fourier mode, such as the uniform measures; value 0.

    The gap of (mu, nu) is |E exp(i x)| + |E exp(i y)| exactly.
    """
    around = Domain(0.0, 2 * math.pi, periodic=True)
    return MixedGame(lambda x, y: (x - y.T).cos(), around, around, 0.0, 1.0)


MIXED_GAMES: dict[str, Callable[[], MixedGame]] = {"square_distance": square_distance, "circle": circle}
