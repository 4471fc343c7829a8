"""c(x, y) = ||x - y||_p^q, for all pairs or row by row, and the root of a cost."""

from __future__ import annotations

import torch
from torch import Tensor


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
