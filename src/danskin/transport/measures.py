"""Samples with weights, checked: what every distance of this package begins with."""

from __future__ import annotations

import math
import numbers
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from danskin.errors import InputError

_TOLERANCE = 1e-6


@dataclass(frozen=True)
class Empirical:
    """A measure on finitely many points: sum_i w_i delta_{x_i}.

    Args:
        points: (n, d) floating-point, finite; (n,) counts as n points of the line. Arrays of numpy are taken, too.
        weights: (n,), not negative, with sum 1 up to 1e-6; None: 1/n each. A solver renormalises them in float64.
        name: what errors call it.

    Raises:
        InputError: no points, NaN or infinite values, negative weights, weights whose sum is not 1, shapes that do not
            fit, integers.

    >>> Empirical(torch.tensor([0.0, 1.0])).points.shape
    torch.Size([2, 1])
    """

    points: Tensor
    weights: Tensor | None = None
    name: str = "points"

    def __post_init__(self) -> None:
        object.__setattr__(self, "points", _points(self.points, self.name))
        if self.weights is not None:
            object.__setattr__(self, "weights", _weights(self.weights, len(self.points), self.name))

    def __len__(self) -> int:
        return len(self.points)

    @property
    def dimension(self) -> int:
        """Of the space the points are in."""
        return self.points.shape[1]

    def masses(self) -> Tensor:
        """The weights in float64 on the CPU with sum 1, (n,); differentiable in the weights that were given.

        Dividing by the sum is part of the function, so its gradient is centred: <gradient, weights> = 0.
        """
        if self.weights is None:
            return torch.full((len(self),), 1 / len(self), dtype=torch.float64)
        found = self.weights.to("cpu").double()
        return found / found.sum()


def _points(value: Any, name: str) -> Tensor:
    x = torch.as_tensor(value) if isinstance(value, np.ndarray) else value
    if not isinstance(x, Tensor):
        raise InputError(f"{name}: expected a tensor of points (n, d), got {type(value).__name__}; use torch.tensor")
    if not x.is_floating_point():
        raise InputError(f"{name}: expected floating-point numbers, got {x.dtype}; use .float() or .double()")
    if x.ndim == 1:
        x = x[:, None]
    if x.ndim != 2:
        raise InputError(
            f"{name}: expected points (n, d), got shape {tuple(x.shape)}; use .flatten(1), one row a point"
        )
    if not x.numel():
        raise InputError(f"{name}: expected at least one point of at least one number, got shape {tuple(x.shape)}")
    with torch.no_grad():
        if not math.isfinite(float(x.sum())):  # cheap; a sum may overflow where all numbers are finite
            bad = ~x.isfinite()
            if bool(bad.any()):
                row = int(bad.any(1).nonzero()[0])
                raise InputError(f"{name}: expected finite numbers, got {_which(x[row])} in row {row}; drop such rows")
    return x


def _which(row: Tensor) -> str:
    return "NaN" if bool(row.isnan().any()) else "infinity"


def _weights(value: Any, n: int, name: str) -> Tensor:
    w = torch.as_tensor(value) if isinstance(value, np.ndarray) else value
    what = f"weights of {name}"
    if not isinstance(w, Tensor) or not w.is_floating_point():
        got = w.dtype if isinstance(w, Tensor) else type(value).__name__
        raise InputError(f"{what}: expected a floating-point tensor, got {got}; use torch.tensor(..., dtype=float64)")
    if w.shape != (n,):
        raise InputError(f"{what}: expected one for each of {n} points, got shape {tuple(w.shape)}; correct it")
    with torch.no_grad():
        total, least = (
            float(w.double().sum()) if w.device.type != "mps" else float(w.cpu().double().sum()),
            float(w.min()),
        )
    if not math.isfinite(total):
        raise InputError(f"{what}: expected finite numbers, got NaN or infinity; correct them")
    if least < 0:
        raise InputError(f"{what}: expected none below 0, got {least:g} at {int(w.argmin())}; correct them")
    if abs(total - 1) > _TOLERANCE:
        raise InputError(f"{what}: expected a sum of 1, got {total:.9g}; divide by the sum (in float64)")
    return w


def pair_of(x: Any, y: Any, a: Any = None, b: Any = None) -> tuple[Empirical, Empirical]:
    """Two measures on the same space.

    Args:
        x: (n, d), or an `Empirical`.
        y: (m, d), or an `Empirical`.
        a: weights (n,) of x.
        b: weights (m,) of y.

    Raises:
        InputError: as of `Empirical`; unequal dimensions; weights given twice.
    """
    mu, nu = _measure(x, a, "x"), _measure(y, b, "y")
    if mu.dimension != nu.dimension:
        raise InputError(
            f"x and y: expected points of one space, got {mu.dimension} and {nu.dimension} numbers a point; "
            "bring both to the same features"
        )
    return mu, nu


def _measure(points: Any, weights: Any, name: str) -> Empirical:
    if isinstance(points, Empirical):
        if weights is not None:
            raise InputError(f"weights of {name}: expected none beside an Empirical, got some; give them once")
        return points
    return Empirical(points, weights, name)


def check_order(q: Any, p: Any) -> tuple[float, float]:
    """The order q >= 1 of W_q and the norm p in {1, 2, inf} as floats.

    Raises:
        InputError: another q or p.
    """
    if isinstance(q, bool) or not isinstance(q, numbers.Real) or not 1 <= float(q) < math.inf:
        raise InputError(f"q: expected a number of at least 1, got {q!r}; W_q is a metric from 1 on")
    order = {"1": 1.0, "2": 2.0, "inf": math.inf}.get(str(p).lower().removesuffix(".0"))
    if order is None:
        raise InputError(f"p: expected the norm 1, 2 or inf, got {p!r}; choose one of them")
    return float(q), order
