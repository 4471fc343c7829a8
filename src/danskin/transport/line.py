"""On the line the monotone plan is optimal: quantiles meet quantiles. Lecture: row E2."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Places = NDArray[np.intp]


def _levels(weights: Array) -> Array:
    """Cumulative weights; the last one is 1."""
    found: Array = np.cumsum(weights)
    found[-1] = 1.0
    return np.minimum(found, 1.0)


def orders(x: Array, y: Array) -> tuple[Places, Places]:
    """How to sort both, ties as they come: what plan and potentials begin with."""
    return np.argsort(x, kind="stable"), np.argsort(y, kind="stable")


def monotone_plan(i: Places, j: Places, a: Array | None, b: Array | None) -> tuple[Places, Places, Array]:
    """The plan that joins equal quantiles, as at most n + m - 1 atoms (row, column, mass).

    It is optimal for every cost h(x - y) with h convex (Santambrogio 2015, Optimal Transport for Applied
    Mathematicians, Theorem 2.9).

    Args:
        i: the order of the points of one sample, (n,); see `orders`.
        j: of the other, (m,).
        a: weights (n,) with sum 1; None: 1/n each.
        b: weights (m,) with sum 1; None: 1/m each.
    """
    n, m = len(i), len(j)
    if a is None and b is None and n == m:
        return i, j, np.full(n, 1 / n)
    rows = np.arange(1, n + 1) / n if a is None else _levels(a[i])
    columns = np.arange(1, m + 1) / m if b is None else _levels(b[j])
    cuts = np.unique(np.concatenate([rows, columns]))
    mass = np.diff(cuts, prepend=0.0)
    kept = mass > 0
    cuts, mass = cuts[kept], mass[kept]
    return i[np.searchsorted(rows, cuts)], j[np.searchsorted(columns, cuts)], mass


def staircase_potentials(
    x: Array, y: Array, i: Places, j: Places, a: Array, b: Array, q: float
) -> tuple[Array, Array, float]:
    """Potentials (f, g) of the cost |x - y|^q, tight along the staircase of the monotone plan; and its variation.

    The variation is the sum of |change of the cost| along the staircase: levels that are off by t change the cost of
    the plan by at most t times it.

    The staircase goes from cell (0, 0) to (n - 1, m - 1) of the sorted cost matrix, one row or one column at a time. As
    that matrix has the Monge property, f_i + g_j = c_ij along any staircase gives f_i + g_j <= c_ij everywhere.

    Args:
        x: (n,).
        y: (m,).
        i: the order of x, (n,).
        j: the order of y, (m,).
        a: weights (n,) with sum 1.
        b: weights (m,) with sum 1.
        q: at least 1.
    """
    u, v, n = x[i], y[j], len(x)
    ends = np.concatenate([_levels(a[i])[:-1], _levels(b[j])[:-1]])
    order = np.argsort(ends, kind="stable")
    down = order < n - 1  # this step goes to the next row
    row, column = np.cumsum(down), np.cumsum(~down)
    now = np.abs(u[row] - v[column]) ** q
    change = now - np.abs(u[row - down] - v[column - ~down]) ** q
    f, g = np.zeros(n), np.zeros(len(y))
    f[i[1:]] = np.cumsum(change[down])
    g[j[0]] = np.abs(u[0] - v[0]) ** q
    g[j[1:]] = g[j[0]] + np.cumsum(change[~down])
    return f, g, float(np.abs(change).sum())
