"""Sliced distances: the mean and the largest W_q of projections to lines. Lecture: row E2."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from danskin.errors import InputError
from danskin.transport.costs import check_reach, root
from danskin.transport.measures import check_order, pair_of


@dataclass(frozen=True, eq=False)
class Sliced:
    """What projections to lines say of W_q with the l2 norm.

    Args:
        distance: of sliced: the mean over the directions, an estimate; of max-sliced: the largest, which W_q is never
            below.
        values: W_q along each direction, (K,), float64; each of them is a lower bound of W_q.
        directions: unit vectors (K, d), float64.
        standard_error: of `distance` over the draw of the directions; 0 of max-sliced.
    """

    distance: Tensor
    values: Tensor
    directions: Tensor
    standard_error: float

    @property
    def lower(self) -> float:
        """The largest value: a lower bound of W_q."""
        return float(self.values.max())


def line_costs(x: Tensor, y: Tensor, q: float, a: Tensor | None = None, b: Tensor | None = None) -> Tensor:
    """W_q^q on the line of each column, (K,); differentiable in points and weights.

    Args:
        x: (n, K).
        y: (m, K).
        q: at least 1.
        a: weights (n,) with sum 1; None: 1/n each.
        b: weights (m,) with sum 1; None: 1/m each.
    """
    u, i = x.sort(0)
    v, j = y.sort(0)
    if a is None and b is None and len(x) == len(y):
        return (u - v).abs().pow(q).mean(0)
    rows, columns = _levels(a, i, x), _levels(b, j, y)
    cuts = torch.cat([rows, columns], 1).sort(1).values
    mass = cuts.diff(dim=1, prepend=torch.zeros_like(cuts[:, :1]))
    row = torch.searchsorted(rows, cuts).clamp(max=len(x) - 1)
    column = torch.searchsorted(columns, cuts).clamp(max=len(y) - 1)
    return (mass * (u.T.gather(1, row) - v.T.gather(1, column)).abs().pow(q)).sum(1)


def _levels(weights: Tensor | None, order: Tensor, x: Tensor) -> Tensor:
    """Cumulative weights of each sorted column, (K, n); the last ones are 1."""
    n, k = x.shape
    if weights is None:
        found = (torch.arange(1, n + 1, dtype=x.dtype, device=x.device) / n).expand(k, n).contiguous()
    else:
        found = weights[order.T].cumsum(1)
    found[:, -1] = 1
    return found.clamp(max=1)


def sliced(
    x: Any, y: Any, q: float = 1, *, directions: int = 100, seed: int = 0, a: Tensor | None = None,
    b: Tensor | None = None,
) -> Sliced:  # fmt: skip
    """SW_q = (mean over unit directions t of W_q(<t, x>, <t, y>)^q)^(1/q), from random directions: an estimate.

    Args:
        x: points (n, d), or an `Empirical`.
        y: points (m, d).
        q: order, at least 1.
        directions: how many are drawn.
        seed: of the draw.
        a: weights of x.
        b: weights of y.

    Reference:
        Bonneel et al. 2015, Sliced and Radon Wasserstein barycenters of measures.

    Lecture:
        E2
    """
    q, _ = check_order(q, 2)
    mu, nu = pair_of(x, y, a, b)
    if directions < 1:
        raise InputError(f"directions: expected at least 1, got {directions}; a hundred is usual")
    u, v = mu.points.to("cpu").double(), nu.points.to("cpu").double()
    theta = _unit(torch.randn(directions, mu.dimension, generator=torch.Generator().manual_seed(seed), dtype=u.dtype))
    costs = line_costs(u @ theta.T, v @ theta.T, q, *_weights(mu, nu))
    check_reach(float(costs.detach().max()))
    mean = costs.mean()
    distance, found = root(mean, q), costs.detach()
    error = float(found.std() / directions**0.5) if directions > 1 else float("inf")
    if q != 1 and float(mean.detach()):  # the delta method
        error *= float(mean.detach()) ** (1 / q - 1) / q
    home, outside = mu.points.device, mu.points.dtype
    return Sliced(distance.to(outside).to(home), found ** (1 / q), theta, error)


def max_sliced(
    x: Any, y: Any, q: float = 1, *, directions: int = 100, steps: int = 50, seed: int = 0, a: Tensor | None = None,
    b: Tensor | None = None,
) -> Sliced:  # fmt: skip
    """Max over unit directions t of W_q(<t, x>, <t, y>), searched by ascent on the sphere: a lower bound of W_q.

    Args:
        x: points (n, d), or an `Empirical`.
        y: points (m, d).
        q: order, at least 1.
        directions: random ones; ascent begins at the eight best.
        steps: of ascent, with a length that is halved where it does not help.
        seed: of the draw.
        a: weights of x.
        b: weights of y.

    Reference:
        Deshpande et al. 2019, Max-sliced Wasserstein distance and its use for GANs.

    Lecture:
        E2
    """
    q, _ = check_order(q, 2)
    mu, nu = pair_of(x, y, a, b)
    start = sliced(x, y, q, directions=directions, seed=seed, a=a, b=b)
    u, v = mu.points.to("cpu").double(), nu.points.to("cpu").double()
    weights = _weights(mu, nu)
    fixed = [None if w is None else w.detach() for w in weights]
    theta = start.directions[start.values.topk(min(8, directions)).indices]
    points, others = u.detach(), v.detach()
    best = line_costs(points @ theta.T, others @ theta.T, q, *fixed)
    length = torch.full((len(theta), 1), 0.5, dtype=u.dtype)
    for _ in range(steps):
        t = theta.clone().requires_grad_()
        (slope,) = torch.autograd.grad(line_costs(points @ t.T, others @ t.T, q, *fixed).sum(), t)
        slope = _unit(slope - (slope * theta).sum(1, keepdim=True) * theta)
        tried = _unit(theta + length * slope)
        costs = line_costs(points @ tried.T, others @ tried.T, q, *fixed)
        better = costs > best
        theta, best = torch.where(better[:, None], tried, theta), torch.where(better, costs, best)
        length = torch.where(better[:, None], length * 1.2, length / 2)
    at = theta[best.argmax()]
    cost = line_costs((u @ at)[:, None], (v @ at)[:, None], q, *weights)
    home, outside = mu.points.device, mu.points.dtype
    distance = root(cost[0], q)
    return Sliced(distance.to(outside).to(home), distance.detach()[None], at[None], 0.0)


def _weights(mu: Any, nu: Any) -> tuple[Tensor | None, Tensor | None]:
    return tuple(None if m.weights is None else m.masses() for m in (mu, nu))  # type: ignore[return-value]


def _unit(t: Tensor) -> Tensor:
    return t / t.norm(dim=1, keepdim=True).clamp(min=1e-300)
