"""Exact discrete transport: the network simplex of POT behind our checks, and the assignment problem by scipy."""

from __future__ import annotations

import math
import warnings
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from danskin.errors import DanskinWarning, InputError, MissingError
from danskin.transport.bracket import Array, c_transform, feasible_pair, row_transform

Places = NDArray[np.intp]
_MOST = 10**9  # pivots: as many as it takes


class Solved(NamedTuple):
    """Atoms of a plan and a feasible pair of potentials."""

    rows: Places
    columns: Places
    mass: Array
    f: Array
    g: Array


def network_simplex(cost: Array, a: Array, b: Array) -> Solved:
    """Min over plans P >= 0 with marginals a and b of <P, c>, by POT (Bonneel et al. 2011).

    Args:
        cost: (n, m), finite.
        a: (n,), not negative, sum 1.
        b: (m,), likewise.

    Raises:
        MissingError: POT is not installed.
    """
    try:
        import ot
    except ImportError as error:
        raise MissingError("exact transport needs POT", "pip install 'danskin[ot]'") from error
    rows, columns = a > 0, b > 0
    whole = bool(rows.all() and columns.all())
    inner = cost if whole else np.ascontiguousarray(cost[np.ix_(rows, columns)])
    scale = _scale(float(inner.max()))
    if scale != 1:
        inner = inner / scale
    plan, told = ot.emd(
        a if whole else a[rows], b if whole else b[columns], inner, numItermax=_MOST, log=True, center_dual=False,
        check_marginals=False,
    )  # fmt: skip
    if told["result_code"] != 1:
        warnings.warn(
            f"exact transport: POT ended without the optimum ({told['warning']}); the bracket says what is certain",
            DanskinWarning, stacklevel=2,
        )  # fmt: skip
    at = np.flatnonzero(plan.ravel() > 0)
    row, column = np.divmod(at, plan.shape[1])
    mass = plan.ravel()[at]
    if whole:
        g = np.asarray(told["v"]) * scale
        return Solved(row, column, mass, row_transform(cost, g), g)  # feasible whatever g is
    start = np.zeros(len(a))
    start[rows] = np.asarray(told["u"]) * scale
    f, g = feasible_pair(cost, start, a, b)
    return Solved(np.flatnonzero(rows)[row], np.flatnonzero(columns)[column], mass, f, g)


def _scale(largest: float) -> float:
    """A power of two that brings costs near 1, where they are not: POT's pivots stop at an absolute 1e-14 or so."""
    if largest == 0 or 2.0**-3 <= largest <= 2.0**20:
        return 1.0
    return 2.0 ** math.floor(math.log2(largest))


def assignment(cost: Array) -> Solved:
    """Min over permutations s of the mean of c_{i s(i)}, by scipy; potentials by shortest paths between rows.

    u_i - u_k <= c_{i s(k)} - c_{k s(k)} for all i, k: a system of differences without negative cycles exactly if s is
    optimal, which Bellman and Ford's rounds solve.

    Args:
        cost: (n, n).

    Raises:
        InputError: not square.
        MissingError: scipy is not installed.
    """
    try:
        from scipy.optimize import linear_sum_assignment
    except ImportError as error:
        raise MissingError("the assignment problem needs scipy", "pip install 'danskin[ot]'") from error
    n, m = cost.shape
    if n != m:
        raise InputError(f'method="assignment": expected equal numbers of points, got {n} and {m}; use "exact"')
    rows, columns = linear_sum_assignment(cost)
    matched = cost[:, columns]
    edges = matched - np.diag(matched)[None]  # from k to i
    u = np.zeros(n)
    for _ in range(n):
        nearer = np.minimum(u, (edges + u[None]).min(1))
        if np.array_equal(nearer, u):
            break
        u = nearer
    g = c_transform(cost, u)
    return Solved(rows, columns, np.full(n, 1 / n), row_transform(cost, g), g)
