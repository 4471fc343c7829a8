"""Sinkhorn's iterations that return [lower, upper]: potentials made feasible below, a plan made feasible above.

Ascent on the entropic dual (`ascent`), with eps falling by four as it goes. What comes of it at any moment is made
feasible, so that the bracket is proven whatever eps is. Lecture: row E2.
"""

from __future__ import annotations

import math
import warnings
from typing import NamedTuple

import torch
from torch import Tensor

from danskin.errors import DanskinWarning, InputError
from danskin.transport.ascent import Problems, ascend
from danskin.transport.bracket import bracket_of, rounding
from danskin.transport.costs import check_reach, cost_matrix, root
from danskin.transport.measures import Empirical, check_order, pair_of
from danskin.transport.wasserstein import Transport

_LOOKS = 80
_FIRST, _LAST, _FALL = 0.1, 1e-12, 4.0  # eps over the largest cost, and by how much it falls at a time
_TINY = 1e-20  # stands for a weight of 0 in the iterations; the rounding knows the true one


class Bracketed(NamedTuple):
    """Of a batch: bounds (B,) of the cost, feasible potentials and plans."""

    lower: Tensor
    upper: Tensor
    f: Tensor
    g: Tensor
    plan: Tensor


def rounded(plan: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """A plan with the marginals a and b from any non-negative matrix: shrink rows, shrink columns, add what is left.

    Args:
        plan: (..., n, m), not negative.
        a: (..., n), the sum 1.
        b: (..., m), the sum 1.

    Reference:
        Altschuler, Weed and Rigollet 2017, Near-linear time approximation algorithms, Algorithm 2.
    """
    plan = plan * _at_most(a, plan.sum(-1))[..., :, None]
    plan = plan * _at_most(b, plan.sum(-2))[..., None, :]
    rows, columns = (a - plan.sum(-1)).clamp(min=0), (b - plan.sum(-2)).clamp(min=0)
    total = rows.sum(-1, keepdim=True)
    share = torch.where(total > 0, columns / total.clamp(min=1e-300), torch.zeros_like(columns))
    return plan + rows[..., :, None] * share[..., None, :]


def _at_most(wanted: Tensor, there: Tensor) -> Tensor:
    return torch.where(there > wanted, wanted / there.clamp(min=1e-300), torch.ones_like(there))


def feasible(cost: Tensor, f: Tensor) -> tuple[Tensor, Tensor]:
    """Two c-transforms of f, batched: f_i + g_j <= c_ij.

    Args:
        cost: (..., n, m).
        f: (..., n), finite.
    """
    g = (cost - f[..., :, None]).amin(-2)
    return (cost - g[..., None, :]).amin(-1), g


def bracketed(cost: Tensor, a: Tensor, b: Tensor, q: float, tolerance: float) -> Bracketed:
    """Bounds of min <P, c> for each of a batch, until W_q = cost^(1/q) is known to `tolerance`, or for 80 looks.

    What is known well enough leaves the batch, so that no problem changes the result of another.

    Args:
        cost: (B, n, m), float64.
        a: (B, n), sum 1.
        b: (B, m), sum 1.
        q: order of the distance that is wanted.
        tolerance: of (upper - lower) / upper of the distance.

    Raises:
        InputError: no tolerance.
    """
    if not isinstance(tolerance, int | float) or not 0 < tolerance < 1:
        raise InputError(f"tolerance: expected a number above 0 and below 1, got {tolerance!r}; 1e-3 is usual")
    if cost.shape[1] < cost.shape[2]:  # the matrix of Newton's step is that of the columns: the fewer, the better
        other = bracketed(cost.mT.contiguous(), b, a, q, tolerance)
        return Bracketed(other.lower, other.upper, other.g, other.f, other.plan.mT)
    largest = cost.amax((1, 2)).clamp(min=1e-300)
    f, g = feasible(cost, torch.zeros_like(a))
    plan = a[:, :, None] * b[:, None, :]
    best = Bracketed((a * f).sum(1) + (b * g).sum(1), (plan * cost).sum((1, 2)), f, g, plan)
    live = torch.arange(len(cost), device=cost.device)
    eps, g = _FIRST * largest, torch.zeros_like(b)
    for _ in range(_LOOKS):
        live = live[~_done(best, live, q, tolerance, largest)]
        if not len(live):
            break
        masses, others = a[live], b[live]
        now = ascend(Problems(cost[live], masses.clamp(min=_TINY), others.clamp(min=_TINY), eps[live]), g[live])
        g[live] = now.g
        ready = _improve(best, live, cost[live], masses, others, now.f, now.kernel)
        eps[live[ready]] /= _FALL
        eps = torch.maximum(eps, _LAST * largest)
    return best


def _done(best: Bracketed, live: Tensor, q: float, tolerance: float, largest: Tensor) -> Tensor:
    low, high = (bound[live].clamp(min=0) ** (1 / q) for bound in (best.lower, best.upper))
    return (high - low <= tolerance * high) | (high <= 1e-9 * largest[live] ** (1 / q))


def _improve(best: Bracketed, live: Tensor, cost: Tensor, a: Tensor, b: Tensor, f: Tensor, kernel: Tensor) -> Tensor:
    """Keep what is better than before, row by row of the batch.

    Returns:
        (B,) whether to go on with a smaller eps: unless the error of the marginals costs more than entropy does, that
        is, unless <plan, c - f - g> is more than twice <kernel, c - f - g>.
    """
    plan = rounded(kernel, a, b)
    upper = (plan * cost).sum((1, 2))
    f, g = feasible(cost, f)
    lower = (a * f).sum(1) + (b * g).sum(1)
    entropy = (kernel * cost).sum((1, 2)) - (kernel.sum(2) * f).sum(1) - (kernel.sum(1) * g).sum(1)
    ready = upper - lower <= 2 * entropy
    better = upper < best.upper[live]
    best.upper[live[better]], best.plan[live[better]] = upper[better], plan[better]
    better = lower > best.lower[live]
    best.lower[live[better]], best.f[live[better]], best.g[live[better]] = lower[better], f[better], g[better]
    return ready


def sinkhorn_transport(mu: Empirical, nu: Empirical, q: float, p: float, tolerance: float) -> Transport:
    """`wasserstein(..., method="sinkhorn")`."""
    home = mu.points.device
    device = torch.device("cpu") if home.type == "mps" else home  # float64 is not there
    x, y = mu.points.to(device).double(), nu.points.to(device).double()
    a, b = mu.masses().to(device), nu.masses().to(device)
    with torch.no_grad():
        matrix = cost_matrix(x, y, q, p)
        check_reach(float(matrix.max()))
        found = bracketed(matrix[None], a[None], b[None], q, tolerance)
    plan, f, g = found.plan[0], found.f[0], found.g[0]
    upper, lower = float(found.upper), float(found.lower)
    size = float((a.detach() * f.abs()).sum() + (b.detach() * g.abs()).sum())
    slack = rounding(plan.numel(), upper) + rounding(len(a) + len(b), size)
    bracket = bracket_of(lower, upper, q, "sinkhorn", slack)
    if bracket.gap > tolerance and bracket.upper > 1e-9 * float(matrix.max()) ** (1 / q):
        warnings.warn(
            f"sinkhorn: expected a bracket within {tolerance:g}, got {bracket} ({bracket.gap:.2g}); use "
            'method="exact", or a larger tolerance',
            DanskinWarning, stacklevel=3,
        )  # fmt: skip
    cost = found.upper[0]
    if x.requires_grad or y.requires_grad:
        cost = (plan * cost_matrix(x, y, q, p)).sum()
    for weights, potential in ((a, f), (b, g)):
        if weights.requires_grad:
            cost = cost + torch.dot(potential, weights - weights.detach())
    outside = mu.points.dtype
    return Transport(
        cost.to(outside).to(home), root(cost, q).to(outside).to(home), bracket, (f, g), dense=plan
    )  # fmt: skip


def sinkhorn_divergence(
    x: Tensor, y: Tensor, q: float = 2, *, p: float | str = 2, eps: float, a: Tensor | None = None,
    b: Tensor | None = None, steps: int = 1000, tolerance: float = 1e-7,
) -> Tensor:  # fmt: skip
    """S(mu, nu) = OT(mu, nu) - OT(mu, mu)/2 - OT(nu, nu)/2 with the entropic OT at eps: an estimate, no bound.

    OT(mu, nu) = min over plans <P, c> + eps KL(P | a b^T). The debiased value is not negative and 0 where the measures
    agree, if the iterations have converged; that is checked.

    Args:
        x: points (n, d), or an `Empirical`.
        y: points (m, d).
        q: order of the cost ||x - y||_p^q.
        p: norm: 1, 2 or "inf".
        eps: above 0, in units of the cost.
        a: weights of x.
        b: weights of y.
        steps: at most so many iterations in the log domain for each of the three problems.
        tolerance: of the marginals, in l1, where the iterations stop.

    Returns:
        A number in the dtype of x; differentiable in points and weights.

    Raises:
        InputError: bad points or weights, eps not above 0, no steps, costs beyond the range of float64.

    Reference:
        Feydy et al. 2019, Interpolating between optimal transport and MMD using Sinkhorn divergences.
    """
    q, p = check_order(q, p)
    mu, nu = pair_of(x, y, a, b)
    if not 0 < eps < math.inf:
        raise InputError(f"eps: expected a number above 0, got {eps!r}; a hundredth of the mean cost is a beginning")
    if steps < 1:
        raise InputError(f"steps: expected at least 1, got {steps}; a thousand is usual")
    home, outside = mu.points.device, mu.points.dtype
    device = torch.device("cpu") if home.type == "mps" else home
    u, v = mu.points.to(device).double(), nu.points.to(device).double()
    wu, wv = mu.masses().to(device), nu.masses().to(device)
    pairs = ((u, wu, v, wv), (u, wu, u, wu), (v, wv, v, wv))
    cross, own, other = (
        _entropic(cost_matrix(x, y, q, p), masses, others, eps, steps, tolerance) for x, masses, y, others in pairs
    )
    return (cross - own / 2 - other / 2).to(outside).to(home)


def _entropic(cost: Tensor, a: Tensor, b: Tensor, eps: float, steps: int, tolerance: float) -> Tensor:
    """The dual value at converged potentials; they are held fixed, as the envelope theorem has it."""
    with torch.no_grad():
        check_reach(float(cost.max()))
        c = cost.detach() / eps
        la, lb = a.detach().clamp(min=_TINY).log(), b.detach().clamp(min=_TINY).log()
        f, g = torch.zeros_like(a), torch.zeros_like(b)
        same, error = a is b, math.inf
        for _ in range(steps):
            new = -torch.logsumexp(g + lb - c, 1)
            error = float((a * ((f - new).clamp(max=50).exp() - 1).abs()).sum())
            if same:  # of a measure with itself: one potential, the mean of two steps (Feydy et al. 2019, section 3)
                f = g = (f + new) / 2
            else:
                f = new
                g = -torch.logsumexp((f + la)[:, None] - c, 0)
            if error < tolerance:
                break
        if error > 1e-3:
            warnings.warn(
                f"sinkhorn divergence: expected marginals to 1e-3, got {error:.2g} after {steps} steps; use more steps "
                "or a larger eps",
                DanskinWarning, stacklevel=4,
            )  # fmt: skip
    mass = (a[:, None] * b) * torch.exp(f[:, None] + g - cost / eps)
    return eps * (torch.dot(a, f) + torch.dot(b, g) - mass.sum() + 1)
