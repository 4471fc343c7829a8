"""Two samples to be told apart: points and weights, checked and in float64."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from danskin.errors import InputError
from danskin.transport.measures import pair_of

_LARGEST = 1e150  # whose square is a float64


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
        InputError: no points, NaN or infinity, unequal dimensions, negative weights or weights that do not sum to one,
            numbers so large that the squares of distances overflow.
    """
    mu, nu = pair_of(_flat(x), _flat(y), a, b)
    if mu.points.device != nu.points.device:
        raise InputError(
            f"samples: expected one device, got {mu.points.device} and {nu.points.device}; move one of them"
        )
    points = mu.points.double(), nu.points.double()
    largest = max(float(t.detach().abs().amax()) for t in points)
    if largest > _LARGEST:
        raise InputError(
            f"samples: expected numbers of at most {_LARGEST:g}, got {largest:.3g}; distances overflow, so rescale them"
        )
    return Samples(*points, mu.masses().to(points[0]), nu.masses().to(points[1]))


def as_points(x: Tensor) -> Tensor:
    """(n, ...) as critics take them: numpy's arrays as tensors, (n,) as n points of the line."""
    x = torch.as_tensor(x) if isinstance(x, np.ndarray) else x
    return x[:, None] if isinstance(x, Tensor) and x.ndim == 1 else x


def _flat(x: Tensor) -> Tensor:
    """One row a point."""
    x = as_points(x)
    return x.flatten(1) if isinstance(x, Tensor) and x.ndim > 2 else x
