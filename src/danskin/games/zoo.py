"""Analytic games with known solutions and constants, on which the dynamics of two players go wrong or right.

Lecture: row G1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from danskin.errors import InputError
from danskin.games.game import Cycle, Game, Separable, newton
from danskin.minmax import Box, Linf
from danskin.minmax.number import Number
from danskin.minmax.saddle import Saddle


@dataclass(frozen=True)
class Bilinear(Game):
    """Phi = scale <x, y>: descent-ascent diverges for every step, extragradient converges at a known rate.

    Args:
        size: dimension of x and of y.
        scale: the Lipschitz constant of F.
        radius: of the l_inf ball that both are in; None for all of space.

    Lecture: row G1.
    """

    size: int = 1
    scale: float = 1.0
    radius: float | None = None

    step_size: ClassVar[Number | None] = "0.1/L"

    def __post_init__(self) -> None:
        if self.size < 1 or not self.scale > 0 or (self.radius is not None and not self.radius > 0):
            raise InputError(
                f"Bilinear: expected size >= 1, scale > 0 and radius > 0 or None, got {self.size!r}, {self.scale!r}, "
                f"{self.radius!r}; the defaults are 1, 1 and None"
            )

    @property
    def dimension(self) -> int:
        """Of z."""
        return 2 * self.size

    @property
    def weak_minty(self) -> float:
        """0: F is monotone, and no more."""
        return 0.0

    @property
    def certified(self) -> str:
        """Bilinear without a set."""
        return "bilinear" if self.radius is None else "constrained"

    def saddle(self) -> Saddle:
        """F = scale (y, -x)."""
        n, c = self.size, self.scale

        def field(z: Tensor) -> Tensor:
            return c * torch.cat([z[:, n:], -z[:, :n]], 1)

        def payoff(z: Tensor) -> Tensor:
            return c * (z[:, :n] * z[:, n:]).sum(1)

        ball = None if self.radius is None else Linf(self.radius)
        return Saddle(field, n, ball, payoff, lipschitz=c, bilinear=True)


@dataclass(frozen=True)
class AlmostBilinear(Game):
    """Phi = x y + eps (y^2 / 2 - y^4 / 4): the only critical point repels, and a cycle attracts.

    Averaged over the fast rotation, the radius r obeys r' = eps (r / 2 - 3 r^3 / 8) in continuous time: the cycle has
    radius 2 / sqrt(3). A finite step eta moves it to r^2 = (4/3)(1 - eta / eps) for extragradient, optimistic and past
    steps, where it vanishes for eta >= eps, and to (4/3)(1 + eta / eps) for descent-ascent: `spurious_radius`. Whoever
    shows this cycle has to say eta.

    Reference: Hsieh, Mertikopoulos and Cevher, ICML 2021, Example 5.2. Lecture: row G1.
    """

    eps: float = 0.1

    step_size: ClassVar[Number | None] = 0.01
    default_steps: ClassVar[int] = 30_000
    view: ClassVar[tuple[float, float]] = (-2.0, 2.0)

    def __post_init__(self) -> None:
        if not 0 < self.eps < 1:
            raise InputError(f"AlmostBilinear.eps: expected a number in (0, 1), got {self.eps!r}; 0.1 or 0.01 is usual")

    @property
    def cycles(self) -> tuple[Cycle, ...]:
        """Of the continuous dynamics, to first order in eps."""
        return (Cycle(2 / math.sqrt(3), True),)

    def spurious_radius(self, step_size: float, outward: bool = False) -> float:
        """The radius of the cycle of a method with this step; 0 where there is none.

        Args:
            step_size: eta.
            outward: whether a step turns outwards on a rotation (descent-ascent), or inwards (extragradient,
                optimistic, past).
        """
        square = 4 / 3 * (1 + (step_size if outward else -step_size) / self.eps)
        return math.sqrt(max(square, 0.0))

    def saddle(self) -> Saddle:
        """F = (y, -x - eps (y - y^3)), in all of space."""
        eps = self.eps

        def field(z: Tensor) -> Tensor:
            x, y = z.unbind(1)
            return torch.stack([y, -x - eps * (y - y * y * y)], 1)

        def payoff(z: Tensor) -> Tensor:
            x, y = z.unbind(1)
            square = y * y
            return x * y + eps * square * (0.5 - 0.25 * square)

        return Saddle(field, 1, None, payoff)


@dataclass(frozen=True)
class Forsaken(Game):
    """Phi = x (y - 0.45) + phi(x) - phi(y), phi = s^2/4 - s^4/2 + s^6/6, on [-1.5, 1.5]^2.

    Two cycles shield the only critical point: the inner one repels and the outer one attracts, so that most methods
    circle for ever from all starts but those close to the point. The point itself is a solution of the variational
    inequality, but no local equilibrium: y gains there to second order.

    Reference: Hsieh, Mertikopoulos and Cevher, ICML 2021, Example 5.1 (with the shift). Lecture: row G1.
    """

    shift: float = 0.45

    radius: ClassVar[float] = 1.5
    _terms: ClassVar[tuple[float, float, float]] = (1 / 4, -1 / 2, 1 / 6)

    @property
    def solutions(self) -> Tensor:
        """(1, 2), by Newton's method."""
        return newton(Separable(self._terms, self.shift), torch.tensor([[0.1, self.shift]], dtype=torch.float64))

    def saddle(self) -> Saddle:
        """F = (y - shift + phi'(x), phi'(y) - x)."""
        form = Separable(self._terms, self.shift)
        return Saddle(form, 1, Linf(self.radius), form.payoff, lipschitz=form.lipschitz(self.radius))


@dataclass(frozen=True)
class GlobalForsaken(Game):
    """Phi = x y + phi(x) - phi(y), phi = s^2/3 - s^4/3 + 2 s^6/21, on a square: one equilibrium, behind a cycle.

    Args:
        radius: half the side of the square.

    Reference: Pethick et al., ICLR 2022. Lecture: row G1.
    """

    radius: float = 4 / 3

    _terms: ClassVar[tuple[float, float, float]] = (1 / 3, -1 / 3, 2 / 21)
    view: ClassVar[tuple[float, float]] = (-4 / 3, 4 / 3)

    def __post_init__(self) -> None:
        if not self.radius > 0:
            raise InputError(f"GlobalForsaken.radius: expected a number above 0, got {self.radius!r}; 4/3 is usual")

    def saddle(self) -> Saddle:
        """F = (y + phi'(x), phi'(y) - x)."""
        form = Separable(self._terms)
        return Saddle(form, 1, Linf(self.radius), form.payoff, lipschitz=form.lipschitz(self.radius))


@dataclass(frozen=True)
class PolarGame(Game):
    """F = (-y + psi x, x + psi y), psi = (a / 16)(r^2 - 1)(16 r^2 - 9), on [-1.1, 1.1]^2.

    The circles r = 3/4 (repels) and r = 1 (attracts) shield the solution 0. F is no gradient field: there is no payoff.
    The weak Minty parameter is m / (1 + m^2) with m = -49 a / 1024; the larger a, the harder.

    Reference: Pethick et al., ICLR 2022, Example 3 (a = 1, 3/4, 1/3 lie in three ranges of rho L). Lecture: row G1.
    """

    a: float = 1 / 3

    view: ClassVar[tuple[float, float]] = (-1.1, 1.1)

    def __post_init__(self) -> None:
        if not 0 < self.a <= 20:
            raise InputError(f"PolarGame.a: expected a number in (0, 20], got {self.a!r}; 1, 3/4 and 1/3 are usual")

    @property
    def cycles(self) -> tuple[Cycle, ...]:
        """Both circles."""
        return Cycle(3 / 4, False), Cycle(1.0, True)

    @property
    def weak_minty(self) -> float:
        """Least psi / (1 + psi^2), at r^2 = 25/32."""
        m = -49 * self.a / 1024
        return m / (1 + m * m)

    def saddle(self) -> Saddle:
        """The norm of the Jacobian is largest in the corners of the square."""
        a = self.a

        def field(z: Tensor) -> Tensor:
            x, y = z.unbind(1)
            square = x * x + y * y
            psi = a / 16 * (square - 1) * (16 * square - 9)
            return torch.stack([psi * x - y, x + psi * y], 1)

        square = 2 * 1.1**2
        psi, bend = a / 16 * (square - 1) * (16 * square - 9), a / 16 * (64 * square**2 - 50 * square)
        corner = torch.tensor([[psi + bend, -1.0], [1.0, psi]], dtype=torch.float64)
        return Saddle(field, 1, Linf(1.1), lipschitz=float(torch.linalg.matrix_norm(corner, 2)))


@dataclass(frozen=True)
class WeakMinty(Game):
    """Phi = a x y + (b/2)(x^2 - y^2), a = sqrt(L^2 - b^2), b = L^2 rho: L-Lipschitz, with exactly this weak Minty rho.

    F is linear. For rho < 0 the critical point 0 is no local equilibrium.

    Args:
        rho: the weak Minty parameter, |rho| < 1 / L.
        lipschitz: L.

    Reference: Pethick et al., ICLR 2022, Theorem 3.4. Lecture: row G1.
    """

    rho: float = -0.1
    lipschitz: float = 1.0

    view: ClassVar[tuple[float, float]] = (-1.0, 1.0)

    def __post_init__(self) -> None:
        if not (self.lipschitz > 0 and abs(self.rho) * self.lipschitz < 1):
            raise InputError(
                f"WeakMinty: expected lipschitz > 0 and |rho| < 1 / lipschitz, got rho={self.rho!r}, "
                f"lipschitz={self.lipschitz!r}; -0.1 and 1 are usual"
            )

    @property
    def weak_minty(self) -> float:
        """The parameter itself."""
        return self.rho

    @property
    def certified(self) -> str:
        """Weak Minty, with this rho."""
        return "weak_minty"

    def saddle(self) -> Saddle:
        """F = (b x + a y, b y - a x)."""
        b = self.lipschitz**2 * self.rho
        a = math.sqrt(self.lipschitz**2 - b * b)

        def field(z: Tensor) -> Tensor:
            x, y = z.unbind(1)
            return torch.stack([b * x + a * y, b * y - a * x], 1)

        def payoff(z: Tensor) -> Tensor:
            x, y = z.unbind(1)
            return a * x * y + b / 2 * (x * x - y * y)

        return Saddle(field, 1, None, payoff, lipschitz=self.lipschitz)


@dataclass(frozen=True)
class Quartic(Game):
    """Phi = quartic x^2 y^2 + bilinear x y on [-2, 2]^2: the toy games of robust reinforcement learning.

    (-1, 1) is max over x of min over y of x^2 y^2 - x y, whose equilibrium 0 has a whole curve of other critical points
    around it (x y = 1/2); (-1, 0) is x^2 y^2, where all of both axes are equilibria; (1, -1) is x y - x^2 y^2.

    Reference: Kamalaruban et al., NeurIPS 2020. Lecture: rows G1 and G3.
    """

    quartic: float = -1.0
    bilinear: float = 1.0

    view: ClassVar[tuple[float, float]] = (-2.0, 2.0)
    step_size: ClassVar[Number | None] = 0.01

    def saddle(self) -> Saddle:
        """F = (2 q x y^2 + b y, -2 q x^2 y - b x)."""
        q, b = self.quartic, self.bilinear

        def field(z: Tensor) -> Tensor:
            x, y = z.unbind(1)
            return torch.stack([(2 * q * x * y + b) * y, -(2 * q * x * y + b) * x], 1)

        def payoff(z: Tensor) -> Tensor:
            product = z.prod(1)
            return product * (q * product + b)

        return Saddle(field, 1, Box(-2.0, 2.0), payoff)
