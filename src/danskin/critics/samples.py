"""Two samples to be told apart: points and weights, checked and in float64."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from danskin.errors import InputError


@dataclass(frozen=True, eq=False)
class Samples:
    """mu = sum_i a_i delta_{x_i} and nu = sum_j b_j delta_{y_j}, in float64.

    Args:
        x: (n, d) float64.
        y: (m, d) float64.
        a: (n,) float64, >= 0, sum 1.
        b: (m,) float64, >= 0, sum 1.
    """

    x: Tensor
    y: Tensor
    a: Tensor
    b: Tensor

    @property
    def points(self) -> Tensor:
        """(n + m, d): x above y."""
        return torch.cat([self.x, self.y])

    @property
    def signed(self) -> Tensor:
        """(n + m,): the masses of mu - nu on `points`."""
        return torch.cat([self.a, -self.b])

    def gap(self, x: Tensor, y: Tensor) -> Tensor:
        """E_mu f - E_nu f from the values of f, (n, ...) and (m, ...)."""
        return torch.tensordot(self.a, x, 1) - torch.tensordot(self.b, y, 1)


def samples(x: Tensor, y: Tensor, a: Tensor | None = None, b: Tensor | None = None) -> Samples:
    """Check two samples and flatten their points.

    Args:
        x: (n, ...) floating points.
        y: (m, ...) of the same shape per point, on the same device.
        a: (n,) weights of x, >= 0, that sum to one; None for equal ones. Renormalised in float64.
        b: (m,) of y.

    Raises:
        InputError: no points, NaN or infinity, unequal dimensions, negative weights or weights that do not sum to one.
    """
    x, y = _points(x, "x"), _points(y, "y")
    if x.shape[1:] != y.shape[1:]:
        raise InputError(
            f"samples: expected points of the same shape, got {tuple(x.shape[1:])} and {tuple(y.shape[1:])}; both "
            "distributions live in one space"
        )
    if x.device != y.device:
        raise InputError(f"samples: expected one device, got {x.device} and {y.device}; move one of them")
    x, y = (t.reshape(len(t), math.prod(t.shape[1:])) for t in (x, y))
    return Samples(x, y, _weights(a, x, "a"), _weights(b, y, "b"))


def _points(x: Tensor, name: str) -> Tensor:
    if not isinstance(x, Tensor) or not x.is_floating_point() or x.ndim < 2:
        got = f"{tuple(x.shape)} {x.dtype}" if isinstance(x, Tensor) else type(x).__name__
        raise InputError(f"{name}: expected a floating tensor (n, d), got {got}; one row a point, x[:, None] in 1-D")
    if not x.numel():
        raise InputError(f"{name}: expected at least one point, got shape {tuple(x.shape)}; draw a sample first")
    if not bool(x.isfinite().all()):
        raise InputError(f"{name}: expected finite points, got NaN or infinity; remove such rows")
    return x.double()


def _weights(w: Tensor | None, points: Tensor, name: str) -> Tensor:
    n = len(points)
    if w is None:
        return points.new_full((n,), 1 / n)
    if not isinstance(w, Tensor) or w.shape != (n,) or w.is_complex():
        got = tuple(w.shape) if isinstance(w, Tensor) else type(w).__name__
        raise InputError(f"{name}: expected one weight for each of {n} points, got {got}; pass a tensor ({n},)")
    w = w.to(points)
    if not bool((w >= 0).all() & w.isfinite().all()):
        raise InputError(f"{name}: expected finite weights >= 0, got others; a distribution has no negative mass")
    total = float(w.detach().sum())
    if abs(total - 1) > 1e-6:
        raise InputError(
            f"{name}: expected weights that sum to one, got {total:.8g}; divide by their sum if that is meant"
        )
    return w / w.sum()
