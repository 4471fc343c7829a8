"""Ascent on the dual of entropic transport: a few scaling steps, then a step of Newton's. Batched, float64.

D(g) = <a, f> + <b, g>, where f = f(g) gives every row of P = exp((f + g - c) / eps) its mass. D is concave, its
gradient b - (column sums of P), its Hessian -(diag(columns) - P^T diag(1/a) P) / eps. Scaling steps alone take
thousands where eps is small beside the cost; Newton's steps alone go astray where the columns are far from b.
Lecture: row E2.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

_SCALINGS = 20
_RELAXATION = 1.8  # of the scalings, in (0, 2): Thibault, Chizat, Dossal and Papadakis 2021
_CAPS = (10.0, 3.0, 1.0)  # of Newton's step over eps, number by number: parts that are nearly apart ask for millions
_RIDGE = 1e-10  # beside a diagonal of ones


class Problems(NamedTuple):
    """A batch: costs (B, n, m), masses a (B, n) and b (B, m) above 0, and eps (B,)."""

    cost: Tensor
    a: Tensor
    b: Tensor
    eps: Tensor


class Point(NamedTuple):
    """Potentials f (B, n) and g (B, m), P (B, n, m) with the row sums a, and the value D(g), (B,)."""

    f: Tensor
    g: Tensor
    kernel: Tensor
    value: Tensor


def point_at(s: Problems, g: Tensor) -> Point:
    """Rows of P scaled to their masses: f and P from g."""
    z = (g[:, None, :] - s.cost) / s.eps[:, None, None]
    top = z.amax(2, keepdim=True)
    kernel = z.sub_(top).exp_()
    sums = kernel.sum(2)
    f = s.eps[:, None] * (s.a.log() - top[..., 0] - sums.log())
    return Point(f, g, kernel.mul_((s.a / sums)[..., None]), (s.a * f).sum(1) + (s.b * g).sum(1))


def ascend(s: Problems, g: Tensor) -> Point:
    """Twenty over-relaxed scaling steps, or a plain one where those go down; then a step of Newton's unless that does.

    Args:
        s: the problems.
        g: (B, m), where to begin.

    Reference:
        Brauer, Clason, Lorenz and Wirth 2017, A Sinkhorn-Newton method for entropic optimal transport.
    """
    start = point_at(s, g)
    now = point_at(s, g + s.eps[:, None] * _scalings(s, start.kernel).log())
    up = now.value >= start.value
    if not bool(up.all()):
        plain = g + s.eps[:, None] * (s.b / start.kernel.sum(1).clamp(min=1e-300)).log()  # this one cannot go down
        now = _where(up, now, point_at(s, plain))
    step = _newton(s, now)
    left = torch.ones_like(up)
    for cap in _CAPS:
        tried = point_at(s, now.g + s.eps[:, None] * step.clamp(-cap, cap))
        up = left & (tried.value >= now.value)
        now, left = _where(up, tried, now), left & ~up
        if not bool(left.any()):
            break
    return now


def _where(which: Tensor, one: Point, other: Point) -> Point:
    if bool(which.all()):
        return one
    return Point(*(torch.where(which.view(-1, *[1] * (u.ndim - 1)), u, v) for u, v in zip(one, other, strict=True)))


def _scalings(s: Problems, kernel: Tensor) -> Tensor:
    """Factors of the columns, (B, m)."""
    u, v = torch.ones_like(s.a), torch.ones_like(s.b)
    for _ in range(_SCALINGS):
        v = v * (s.b / (v * torch.bmm(u[:, None], kernel)[:, 0])) ** _RELAXATION
        u = u * (s.a / (u * torch.bmm(kernel, v[..., None])[..., 0])) ** _RELAXATION
    return v


def _newton(s: Problems, now: Point) -> Tensor:
    """The step over eps, (B, m), its mean 0 under the columns' masses; NaN where there is none.

    The matrix is scaled to I - S with S = P^T diag(1/a) P between roots of the columns' masses. S has the eigenvector
    root of the eigenvalue 1, as a constant added to g changes nothing: that direction is set apart.
    """
    columns = now.kernel.sum(1)
    root = columns.clamp(min=1e-300).sqrt()
    scaled = now.kernel * s.a.rsqrt()[:, :, None] / root[:, None, :]
    matrix = torch.baddbmm(root[:, :, None] * root[:, None, :], scaled.mT, scaled, alpha=-1)
    matrix.diagonal(dim1=1, dim2=2).add_(1 + _RIDGE)
    factor, info = torch.linalg.cholesky_ex(matrix)
    step = torch.cholesky_solve(((s.b - columns) / root)[..., None], factor)[..., 0] / root
    return torch.where((info == 0)[:, None], step, torch.nan)
