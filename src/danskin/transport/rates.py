"""How fast samples approach their law in W_1: the experiment, its slope, and what theory says. Lecture: row E3."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from danskin.errors import InputError
from danskin.transport.exact import network_simplex
from danskin.transport.line import monotone_plan, orders


def uniform_distance(space: str, p: int, n: int, generator: torch.Generator) -> float:
    """W_1 (l2) between two uniform samples of n points, in the unit cube or on the flat torus of dimension p.

    Args:
        space: "cube" or "torus" (opposite faces are one).
        p: dimension, at least 1.
        n: points of each.
        generator: of the draw.

    Raises:
        InputError: another space, or no dimension or no points.
        MissingError: POT is not installed (p >= 2).
    """
    if space not in ("cube", "torus"):
        raise InputError(f"space: expected cube or torus, got {space!r}; choose one of them")
    if p < 1 or n < 1:
        raise InputError(f"p and n: expected at least 1, got {p} and {n}; correct them")
    x, y = (torch.rand(n, p, generator=generator, dtype=torch.float64) for _ in range(2))
    if p == 1:
        u, v = x[:, 0].numpy(), y[:, 0].numpy()
        if space == "torus":
            return circle_distance(u, v)
        rows, columns, mass = monotone_plan(*orders(u, v), None, None)
        return float(mass @ np.abs(u[rows] - v[columns]))
    cost = (torus_costs(x, y) if space == "torus" else torch.cdist(x, y)).numpy()
    weights = np.full(n, 1 / n)
    found = network_simplex(cost, weights, weights)
    return float(found.mass @ cost[found.rows, found.columns])


def torus_costs(x: Tensor, y: Tensor) -> Tensor:
    """Distances on the flat torus [0, 1)^p, (n, m): each coordinate the short way round.

    Args:
        x: (n, p) in [0, 1).
        y: (m, p) in [0, 1).
    """
    total = torch.zeros(len(x), len(y), dtype=x.dtype)
    for k in range(x.shape[1]):
        shift = (x[:, k, None] - y[None, :, k]).abs_()
        total += torch.minimum(shift, 1 - shift).square_()
    return total.sqrt_()


def circle_distance(x: np.ndarray, y: np.ndarray) -> float:
    """W_1 between equally weighted points of a circle of length 1: min over a of the integral of |F - G - a|.

    Args:
        x: (n,) in [0, 1).
        y: (m,) in [0, 1).

    Reference:
        Rabin, Delon and Gousseau 2011, Transportation distances on the circle, equation (13).
    """
    cuts = np.concatenate([x, y])
    steps = np.concatenate([np.full(len(x), 1 / len(x)), np.full(len(y), -1 / len(y))])
    order = np.argsort(cuts, kind="stable")
    height = np.cumsum(steps[order])  # F - G behind each cut; the last piece goes round to the first
    length = np.diff(cuts[order], append=cuts[order][0] + 1)
    by_height = np.argsort(height, kind="stable")
    middle = int(np.searchsorted(np.cumsum(length[by_height]), 0.5))
    median = height[by_height][min(middle, len(height) - 1)]
    return float(length @ np.abs(height - median))


def fitted_slope(sizes: Sequence[int], values: Sequence[float]) -> float:
    """The slope of log value against log size, by least squares.

    Args:
        sizes: at least two different ones.
        values: above 0.
    """
    if len(set(sizes)) < 2 or len(sizes) != len(values) or min(values) <= 0:
        raise InputError(f"sizes and values: expected two or more sizes with values above 0, got {len(sizes)} of them")
    u, v = np.log(np.asarray(sizes, dtype=float)), np.log(np.asarray(values, dtype=float))
    u = u - u.mean()
    return float(u @ v / (u @ u))


def theory(p: int, n: float) -> float:
    """The order of E W_1(mu, mu_n) for a law with a density on a p-dimensional space, without its constant.

    n^(-1/2) for p = 1, (log n / n)^(1/2) for p = 2, n^(-1/p) from p = 3 on. The lecture's n^(-1/p) is not it for p = 1,
    where it would be too fast, nor for p = 2, where a logarithm is missing.

    Reference:
        Ajtai, Komlos and Tusnady 1984 (p = 2); Fournier and Guillin 2015; Bobkov and Ledoux 2019 (p = 1).
    """
    if p < 1 or n <= 1:
        raise InputError(f"p and n: expected p of at least 1 and n above 1, got {p} and {n}; correct them")
    if p == 1:
        return n**-0.5
    return (math.log(n) / n) ** 0.5 if p == 2 else n ** (-1 / p)


def expected_line_distance(n: int) -> float:
    """E W_1(mu_n, mu) for mu uniform on [0, 1], exactly: the integral of E |Bin(n, t) / n - t| over t.

    De Moivre: E |Bin(n, t) - n t| = 2 v C(n, v) t^v (1 - t)^(n - v + 1) with v = floor(n t) + 1; each of the n pieces
    is a polynomial, which Gauss and Legendre's rule integrates to rounding. Times sqrt(n) it goes to
    sqrt(2 / pi) pi / 8.

    >>> round(expected_line_distance(10), 7), round(expected_line_distance(1000), 8)
    (0.0998387, 0.00990914)
    """
    if n < 1:
        raise InputError(f"n: expected at least 1 point, got {n}; correct it")
    nodes, weights = np.polynomial.legendre.leggauss(40)
    v = np.arange(1, n + 1)[:, None]
    t = (v - 1 + (nodes + 1) / 2) / n
    lgamma = np.vectorize(math.lgamma)
    log = math.lgamma(n + 1) - lgamma(v + 1) - lgamma(n - v + 1) + v * np.log(t) + (n - v + 1) * np.log1p(-t)
    return float((2 * v * np.exp(log) @ weights).sum() / (2 * n) / n)
