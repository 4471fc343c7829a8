"""What attracts: an equilibrium, a critical point that is none, a cycle, or nothing.

Descent in minimisation ends at critical points. The dynamics of two players can also end in cycles along which F is
nowhere 0: attractors that mean nothing for the problem (Hsieh, Mertikopoulos and Cevher, ICML 2021). Lecture: row G1.
"""

from __future__ import annotations

import enum

import torch
from torch import Tensor

from danskin.minmax.saddle import Saddle, jacobian
from danskin.minmax.trajectory import Trajectory

_INTERIOR = 1e-9
_DRIFT, _FADING = 0.02, 0.85


class Outcome(enum.Enum):
    """How a run from one start ended. The value is the sentence to show."""

    EQUILIBRIUM = "converged to a critical point where no player gains to second order"
    SOLUTION = "converged to a solution; whether a player gains there was not decided"
    NOT_NASH = "converged to a critical point that is no equilibrium: a player gains by moving"
    CYCLE = "circles where F is not 0: what attracts is no equilibrium"
    STUCK = "stands still where F is not 0: what attracts is no equilibrium"
    MOVING = "had not settled after the last step"
    DIVERGED = "diverged"

    def __str__(self) -> str:
        return self.value

    @property
    def spurious(self) -> bool:
        """Whether what attracted is no equilibrium."""
        return self in (Outcome.NOT_NASH, Outcome.CYCLE, Outcome.STUCK)


def outcomes(saddle: Saddle, found: Trajectory, tolerance: float = 1e-4) -> list[Outcome]:
    """How each row of a run ended, told from its last quarter.

    Converged: the residual is small throughout. Circling: it is not, the least and largest distance from the center are
    the same in both halves of the quarter to 2 %, the residual is not fading, and the path is longer than a loop around
    where it was. That is a diagnosis and no proof: a spiral that is slow enough looks like a cycle until it is run for
    longer. Seen through noise, what has not converged counts as moving.

    Args:
        saddle: the problem.
        found: its run.
        tolerance: a residual below this is 0.
    """
    tail, out = found.tail, []
    first, second = tail.halves.unbind(1)
    drift = (second - first).abs().amax(1) / torch.maximum(first, second)[:, 1].clamp_min(1e-300)
    settling = (drift > _DRIFT) | (tail.fading < _FADING)
    point = second_order(saddle, found.last)
    for i in range(len(found.last)):
        if bool(found.diverged[i]):
            out.append(Outcome.DIVERGED)
        elif float(tail.residual[i, 1]) <= tolerance:
            out.append(_of_point(float(point[i]), tolerance))
        elif float(tail.residual[i, 0]) <= tolerance or bool(settling[i]) or found.noisy:
            out.append(Outcome.MOVING)
        elif float(tail.path[i]) <= tolerance:
            out.append(Outcome.STUCK)
        elif float(tail.path[i]) < 2 * float(tail.extent[i]):
            out.append(Outcome.MOVING)
        else:
            out.append(Outcome.CYCLE)
    return out


def _of_point(curvature: float, tolerance: float) -> Outcome:
    if curvature != curvature:  # NaN: not decided
        return Outcome.SOLUTION
    return Outcome.EQUILIBRIUM if curvature >= -tolerance else Outcome.NOT_NASH


def second_order(saddle: Saddle, z: Tensor) -> Tensor:
    """The least eigenvalue of the players' own Hessians, of Phi_xx and of -Phi_yy, at interior points.

    At a critical point, below 0 means that a player gains by moving: it is no local equilibrium.

    Returns:
        (batch,); NaN where there is no payoff, and at the boundary of Z, where it decides nothing.
    """
    undecided = torch.full((len(z),), torch.nan, dtype=z.dtype, device=z.device)
    if saddle.payoff is None:
        return undecided
    if saddle.bilinear:  # both Hessians are 0
        return torch.zeros_like(undecided)
    J, n = jacobian(saddle.operator, z), saddle.split
    J = torch.where(J.isfinite(), J, 0.0)
    least = torch.minimum(torch.linalg.eigvalsh(J[:, :n, :n])[:, 0], torch.linalg.eigvalsh(J[:, n:, n:])[:, 0])
    if saddle.feasible is None:
        return least
    around = torch.stack([saddle.feasible.violation(z + s * 1e-6 * torch.ones_like(z)) for s in (-1, 1)])
    return torch.where((around <= _INTERIOR).all(0), least, undecided)
