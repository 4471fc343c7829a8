"""c(x, y) = ||x - y||_p^q, for all pairs or row by row, and the root of a cost."""

from __future__ import annotations

import sys

import torch
from torch import Tensor

from danskin.errors import InputError


def check_reach(largest: float, q: float = 1) -> None:
    """That the q-th power of the largest distance is a number of float64.

    Args:
        largest: ||x - y|| of the pair farthest apart, or, with q = 1, its cost.
        q: at least 1.

    Raises:
        InputError: it is infinite.
    """
    if not largest <= sys.float_info.max ** (1 / q):
        raise InputError("cost: expected finite ||x - y||^q, got infinity; scale the points, or take a smaller q")


def _power(distance: Tensor, q: float) -> Tensor:
    if q == 1:
        return distance
    return distance.square() if q == 2 else distance**q


def cost_matrix(x: Tensor, y: Tensor, q: float, p: float) -> Tensor:
    """All ||x_i - y_j||_p^q, (..., n, m), from the differences themselves.

    The expansion |x|^2 - 2<x, y> + |y|^2 would be quicker and lose the half of all digits where points are close.

    Args:
        x: (..., n, d).
        y: (..., m, d).
        q: at least 1.
        p: 1, 2 or inf.
    """
    return _power(torch.cdist(x, y, p=p, compute_mode="donot_use_mm_for_euclid_dist"), q)


_WIDE = 16  # numbers a point from which a product of matrices is quicker
_NEAR = 1e-2  # squared distances below this share of the largest norm are taken from the differences
_UNIT = 2.0**-53


def quick_costs(x: Tensor, y: Tensor, q: float, p: float) -> tuple[Tensor, float]:
    """`cost_matrix` of one pair of samples, and a bound of its relative error (0 where none is known of).

    Points of many numbers go through |x|^2 + |y|^2 - 2<x, y>, centred. What is near by that comes from the differences,
    so that the error of the rest, at most 8 (d + 8) u of the largest norm, is a small share of it.

    Args:
        x: (n, d), float64.
        y: (m, d), float64.
        q: at least 1.
        p: 1, 2 or inf.
    """
    d = x.shape[1]
    if p != 2 or d < _WIDE:
        return cost_matrix(x, y, q, p), 0.0
    middle = x.mean(0)
    u, v = x - middle, y - middle
    left, right = (torch.linalg.vector_norm(z, dim=1).square_() for z in (u, v))
    squares = (u @ v.T).mul_(-2).add_(left[:, None]).add_(right)  # a quarter quicker than addmm, which copies first
    bound = _NEAR * (left.max() + right.max())
    if bool(squares.min() < bound):
        near = squares < bound
        if int(near.sum()) * 20 > near.numel():
            return cost_matrix(x, y, q, p), 0.0
        rows, columns = near.nonzero(as_tuple=True)
        squares[rows, columns] = (x[rows] - y[columns]).square().sum(1)
    error = 8 * (d + 8) * _UNIT / _NEAR
    found = squares if q == 2 else _power(squares.sqrt_(), q)
    return found, error * max(1.0, q / 2)


def paired_costs(x: Tensor, y: Tensor, q: float, p: float) -> Tensor:
    """||x_i - y_i||_p^q of rows, (n,); its gradient is 0 where a pair coincides.

    Args:
        x: (n, d).
        y: (n, d).
        q: at least 1.
        p: 1, 2 or inf.
    """
    shift = x - y
    if p == 2 and q == 2:
        return shift.square().sum(-1)
    return _power(torch.linalg.vector_norm(shift, p, dim=-1), q)


def root(cost: Tensor, q: float) -> Tensor:
    """W_q from W_q^q; the gradient at 0, which the root does not have, is 0.

    Args:
        cost: any shape, not negative.
        q: at least 1.
    """
    if q == 1:
        return cost
    positive = cost > 0
    safe = torch.where(positive, cost, torch.ones_like(cost))
    return torch.where(positive, safe ** (1 / q), torch.zeros_like(cost))
