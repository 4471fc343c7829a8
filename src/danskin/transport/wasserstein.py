"""W_q between two samples: a bracket, a plan, potentials, and gradients in positions and masses. Lecture: row E2."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from danskin.errors import InputError, MissingError, suggest
from danskin.transport.bracket import Bracket, bracket_of, rounding
from danskin.transport.costs import check_reach, paired_costs, quick_costs, root
from danskin.transport.exact import Solved, assignment, network_simplex
from danskin.transport.line import monotone_plan, orders, staircase_potentials
from danskin.transport.measures import Empirical, check_order, pair_of

METHODS = ("exact", "assignment", "sinkhorn")


@dataclass(frozen=True, eq=False)
class Transport:
    """How one measure is moved to another, and what it costs.

    Args:
        cost: W_q^q, a number in the dtype of x; differentiable in points and weights. Of an open bracket: the cost of
            the plan, that is, the upper end.
        distance: W_q = cost^(1/q), likewise.
        bracket: of the distance.
        potentials: (f (n,), g (m,)) in float64 with f_i + g_j <= c_ij for all i, j; detached.
        atoms: rows, columns and masses of the plan where it is sparse.
        dense: the plan (n, m) where it is not.
    """

    cost: Tensor
    distance: Tensor
    bracket: Bracket
    potentials: tuple[Tensor, Tensor]
    atoms: tuple[Tensor, Tensor, Tensor] | None = None
    dense: Tensor | None = None

    @cached_property
    def plan(self) -> Tensor:
        """(n, m), float64: how much of point i goes to point j; rows sum to a, columns to b."""
        if self.dense is not None:
            return self.dense
        assert self.atoms is not None
        f, g = self.potentials
        rows, columns, mass = self.atoms
        found = torch.zeros(len(f), len(g), dtype=mass.dtype, device=mass.device)
        return found.index_put((rows, columns), mass, accumulate=True)

    def __repr__(self) -> str:
        f, g = self.potentials
        return f"Transport({self.bracket}, {len(f)} to {len(g)} points, by {self.bracket.method})"


def wasserstein(
    x: Any,
    y: Any,
    q: float = 1,
    *,
    p: float | str = 2,
    a: Tensor | None = None,
    b: Tensor | None = None,
    method: str = "exact",
    tolerance: float = 1e-3,
) -> Transport:
    """W_q(mu, nu) = (min over plans P of sum_ij P_ij ||x_i - y_j||_p^q)^(1/q), with proof.

    Everything is computed in float64. The gradients are those of the envelope theorem: the plan is held fixed for the
    positions, and the potentials are the gradient in the masses (centred, as weights are divided by their sum).

    Args:
        x: points (n, d), or an `Empirical`.
        y: points (m, d), or an `Empirical`.
        q: order, at least 1.
        p: norm of the space: 1, 2 or "inf".
        a: weights of x, (n,); None: 1/n each.
        b: weights of y, (m,).
        method: "exact" (closed form on the line, else the network simplex of POT), "assignment" (scipy; equal numbers
            of points without weights) or "sinkhorn" (a bracket within `tolerance`).
        tolerance: of sinkhorn: stop when (upper - lower) / upper is below; above 0, below 1.

    Returns:
        `Transport`: .bracket, .distance, .cost, .plan, .potentials.

    Raises:
        InputError: bad points, weights, q, p (see `Empirical`) or tolerance; costs beyond the range of float64.
        MissingError: POT or scipy is needed and not installed.

    Reference:
        Villani 2009, Optimal Transport, Theorem 5.10 (duality); Peyre and Cuturi 2019, section 9.1 (gradients).

    Lecture:
        E2

    >>> wasserstein(torch.tensor([0.0, 1.0]), torch.tensor([2.0, 3.0])).distance
    tensor(2.)
    """
    q, p = check_order(q, p)
    mu, nu = pair_of(x, y, a, b)
    if method not in METHODS:
        raise InputError(
            f"method: expected one of {', '.join(METHODS)}, got {method!r}; {suggest(str(method), METHODS)}"
        )
    if method == "sinkhorn":
        from danskin.transport.sinkhorn import sinkhorn_transport

        return sinkhorn_transport(mu, nu, q, p, tolerance)
    points, others = mu.points.to("cpu").double(), nu.points.to("cpu").double()
    masses, other_masses = mu.masses(), nu.masses()
    solved, name, slack = _solved(mu, nu, points.detach(), others.detach(), masses, other_masses, q, p, method)
    return _transport(mu, nu, points, others, masses, other_masses, solved, q, p, name, slack)


def _solved(
    mu: Empirical, nu: Empirical, x: Tensor, y: Tensor, a: Tensor, b: Tensor, q: float, p: float, method: str
) -> tuple[Solved, str, float]:
    """Plan and potentials, how they were found, and what rounding of the plan's levels may have done to its cost."""
    if method == "exact" and mu.dimension == 1:
        u, v = x[:, 0].numpy(), y[:, 0].numpy()
        masses, others = a.detach().numpy(), b.detach().numpy()
        i, j = orders(u, v)
        check_reach(max(float(u[i[-1]]) - float(v[j[0]]), float(v[j[-1]]) - float(u[i[0]])), q)
        plan = monotone_plan(i, j, *(None if e.weights is None else w for e, w in ((mu, masses), (nu, others))))
        f, g, variation = staircase_potentials(u, v, i, j, masses, others, q)
        sums = 1 if mu.weights is None and nu.weights is None else len(mu) + len(nu)
        return Solved(*plan, f, g), "closed form on the line", rounding(sums, variation)
    matrix, error = quick_costs(x, y, q, p)
    cost = matrix.numpy()
    check_reach(float(cost.max()))
    uniform = mu.weights is None and nu.weights is None
    if method == "assignment":
        if not uniform:
            raise InputError('method="assignment": expected no weights, got some; use method="exact"')
        return _shrunk(assignment(cost), error), "assignment", 0.0
    try:
        solved = network_simplex(cost, a.detach().numpy(), b.detach().numpy())
        return _shrunk(solved, error), "network simplex", 0.0
    except MissingError:
        if not uniform or len(mu) != len(nu):
            raise
        return _shrunk(assignment(cost), error), "assignment", 0.0


def _shrunk(solved: Solved, error: float) -> Solved:
    """Potentials that are feasible for the true costs, which are at least the given ones over 1 + error."""
    return solved._replace(f=solved.f / (1 + error), g=solved.g / (1 + error)) if error else solved


def _transport(
    mu: Empirical,
    nu: Empirical,
    x: Tensor,
    y: Tensor,
    a: Tensor,
    b: Tensor,
    s: Solved,
    q: float,
    p: float,
    name: str,
    slack: float,
) -> Transport:
    """The cost of the plan anew from the points, so that gradients flow, and the bracket of its root."""
    rows, columns, mass = (torch.from_numpy(part) for part in (s.rows, s.columns, s.mass))
    f, g = torch.from_numpy(s.f), torch.from_numpy(s.g)
    cost = torch.dot(mass, paired_costs(x[rows], y[columns], q, p))
    upper = float(cost.detach())
    masses, others = a.detach().numpy(), b.detach().numpy()
    slack += rounding(len(s.mass), upper)
    if name.startswith("closed"):  # a theorem says that this plan is the best
        lower = upper
    else:
        lower = float(masses @ s.f + others @ s.g)
        slack += rounding(len(masses) + len(others), float(masses @ np.abs(s.f) + others @ np.abs(s.g)))
    for weights, potential in ((a, f), (b, g)):
        if weights.requires_grad:
            cost = cost + torch.dot(potential, weights - weights.detach())  # of value 0; its gradient is the potential
    device = mu.points.device
    inner = torch.device("cpu") if device.type == "mps" else device
    return Transport(
        cost.to(mu.points.dtype).to(device), root(cost, q).to(mu.points.dtype).to(device),
        bracket_of(lower, upper, q, name, slack), (f.to(inner), g.to(inner)),
        tuple(part.to(inner) for part in (rows, columns, mass)),  # type: ignore[arg-type]
    )  # fmt: skip
