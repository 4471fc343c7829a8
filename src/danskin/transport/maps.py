"""Monge maps: where each point goes whole. Lecture: row E2."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from danskin.errors import InputError
from danskin.transport.bracket import Bracket
from danskin.transport.measures import Empirical, pair_of
from danskin.transport.wasserstein import Transport, wasserstein

_CRUMB = 1e-9  # a share of a point's mass that is rounding


@dataclass(frozen=True, eq=False)
class MongeMap:
    """T with T(x_i) = y_{index_i}: the mass of every point goes to one place.

    Args:
        index: (n,) int64.
        targets: T(x_i), (n, d).
        bracket: of W_q, which the map attains.
    """

    index: Tensor
    targets: Tensor
    bracket: Bracket


def monge_map(
    x: Any, y: Any, q: float = 2, *, p: float | str = 2, a: Tensor | None = None, b: Tensor | None = None
) -> MongeMap:
    """The optimal map between two samples, where there is one: always for equal numbers of points without weights.

    Args:
        x: points (n, d), or an `Empirical`.
        y: points (m, d).
        q: order, at least 1.
        p: norm: 1, 2 or "inf".
        a: weights of x.
        b: weights of y.

    Raises:
        InputError: the optimal plan splits the mass of a point, so that no map comes of it.

    Lecture:
        E2

    >>> monge_map(torch.tensor([0.0, 1.0, 2.0]), torch.tensor([9.0, 7.0, 8.0])).index
    tensor([1, 2, 0])
    """
    mu, nu = pair_of(x, y, a, b)
    found = wasserstein(mu, nu, q, p=p)
    assert found.atoms is not None
    rows, columns, mass = (part.cpu() for part in found.atoms)
    share = mass / mu.masses().detach()[rows]
    kept = share > _CRUMB
    rows, columns = rows[kept], columns[kept]
    parts = torch.zeros(len(mu), dtype=torch.long).index_add(0, rows, torch.ones_like(rows))
    if bool((parts > 1).any()):
        at = int((parts > 1).nonzero()[0])
        raise InputError(
            f"monge_map: expected a plan that keeps points whole, got one that splits point {at} of x into "
            f"{int(parts[at])}; a point has one image only: use the plan, or barycentric_map"
        )
    index = torch.zeros(len(mu), dtype=torch.long)
    index[rows] = columns
    index = index.to(nu.points.device)
    return MongeMap(index, nu.points.detach()[index], found.bracket)


def barycentric_map(found: Transport, y: Tensor) -> Tensor:
    """The mean of where each point goes, sum_j P_ij y_j / a_i, (n, d); optimal only if none is split.

    Args:
        found: of `wasserstein(x, y)`.
        y: (m, d).

    Raises:
        InputError: a point of x has no mass, and so no mean; y is not what the plan goes to, or not finite.
    """
    y, plan = Empirical(y, name="y").points, found.plan
    if len(y) != plan.shape[1]:
        raise InputError(
            f"barycentric_map: expected the {plan.shape[1]} points that x went to, got {len(y)}; use those"
        )
    mass = plan.sum(1, keepdim=True)
    if bool((mass == 0).any()):
        raise InputError("barycentric_map: expected mass at every point of x, got none at one; leave it out")
    return ((plan @ y.to(plan)) / mass).to(y)


@dataclass(frozen=True, eq=False)
class LineMap:
    """The monotone map through given pairs: linear between them, a shift beyond the first and the last.

    Args:
        start: sorted points (n,).
        end: where they go, sorted (n,).
    """

    start: Tensor
    end: Tensor

    def __call__(self, t: Tensor) -> Tensor:
        """Images of numbers of any shape."""
        k = torch.searchsorted(self.start, t.contiguous()).clamp(1, max(len(self.start) - 1, 1))
        if len(self.start) == 1:
            return t + (self.end - self.start)
        left, right = self.start[k - 1], self.start[k]
        share = torch.where(right > left, (t - left) / (right - left).clamp(min=1e-300), torch.ones_like(t))
        inside = self.end[k - 1] + share * (self.end[k] - self.end[k - 1])
        below, above = t < self.start[0], t > self.start[-1]
        inside = torch.where(below, t + (self.end[0] - self.start[0]), inside)
        return torch.where(above, t + (self.end[-1] - self.start[-1]), inside)


def monotone_map(x: Tensor, y: Tensor, points: int | None = None) -> LineMap:
    """The optimal map on the line for every convex cost: quantiles of x to quantiles of y.

    Args:
        x: (n,).
        y: (m,).
        points: quantiles at so many levels (k + 1/2) / points; None with n = m: the points themselves, exactly.

    Raises:
        InputError: unequal numbers of points and no `points`, or samples that are not on the line.
    """
    if x.ndim != 1 or y.ndim != 1:
        raise InputError(f"monotone_map: expected numbers (n,) and (m,), got {tuple(x.shape)} and {tuple(y.shape)}")
    pair_of(x, y)
    if points is None:
        if len(x) != len(y):
            raise InputError(
                f"monotone_map: expected equal numbers of points, got {len(x)} and {len(y)}; say at how many quantiles "
                "with points="
            )
        return LineMap(x.sort().values, y.sort().values)
    levels = ((torch.arange(points, dtype=torch.float64) + 0.5) / points).to(x)
    return LineMap(torch.quantile(x, levels), torch.quantile(y, levels.to(y)))
