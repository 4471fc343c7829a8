"""Kernels of maximum mean discrepancies."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from danskin.critics.samples import samples
from danskin.errors import InputError

_MOST = 2**22  # numbers in one block of differences


class Kernel(Protocol):
    """A positive definite kernel k(x, y); conditionally so is enough, as only mu - nu of total mass 0 is looked at."""

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """(n, m): k(x_i, y_j) for x (n, d) and y (m, d)."""
        ...


@dataclass(frozen=True)
class _Scaled:
    """What kernels with a length share."""

    scale: float = 1.0

    def __post_init__(self) -> None:
        if isinstance(self.scale, bool) or not (math.isfinite(self.scale) and self.scale > 0):
            raise InputError(
                f"{type(self).__name__}.scale: expected a number > 0, got {self.scale!r}; give a length in the "
                "units of the points, such as their median distance (danskin.critics.median_distance)"
            )


@dataclass(frozen=True)
class RBF(_Scaled):
    r"""k(x, y) = exp(-\|x - y\|_2^2 / (2 scale^2)): the Gaussian kernel.

    Args:
        scale: a length in the units of the points, > 0.
    """

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """(n, m)."""
        return (squared_distances(x, y) / (-2 * self.scale**2)).exp()


@dataclass(frozen=True)
class Laplace(_Scaled):
    r"""k(x, y) = exp(-\|x - y\|_1 / scale).

    Args:
        scale: a length in the units of the points, > 0.
    """

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """(n, m)."""
        return (-torch.cdist(x, y, 1) / self.scale).exp()


@dataclass(frozen=True)
class IMQ(_Scaled):
    r"""k(x, y) = (1 + \|x - y\|_2^2 / scale^2)^(-1/2): the inverse multiquadric, with heavier tails than `RBF`.

    Args:
        scale: a length in the units of the points, > 0.
    """

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """(n, m)."""
        return (1 + squared_distances(x, y) / self.scale**2).rsqrt()


@dataclass(frozen=True)
class Energy:
    r"""k(x, y) = -\|x - y\|_2, whose squared MMD is the energy distance.

    It is positive definite on signed measures of total mass 0 (so is |x - z| + |y - z| - |x - y| on all, which gives
    the same for any z).

    Reference: Sejdinovic et al., Annals of Statistics 2013, section 3.
    """

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """(n, m)."""
        return -distances(x, y)


def squared_distances(x: Tensor, y: Tensor) -> Tensor:
    r"""(n, m): \|x_i - y_j\|_2^2 from differences, in blocks of columns so that no (n, m, d) tensor is made at once.

    Exactly 0 for equal points, and smooth there, which the square of a distance is not for autograd.
    """
    step = max(1, _MOST // max(1, x.numel()))
    return torch.cat([(x[:, None] - part).square().sum(2) for part in y.split(step)], 1)


def distances(x: Tensor, y: Tensor) -> Tensor:
    r"""(n, m): \|x_i - y_j\|_2, with gradient 0 where points meet."""
    return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")


def median_distance(x: Tensor, y: Tensor) -> float:
    """The median of all distances between different points of both samples: a usual length for kernels.

    Args:
        x: (n, ...).
        y: (m, ...).

    Raises:
        InputError: samples that cannot be used, or all points are equal.
    """
    found = torch.nn.functional.pdist(samples(x, y).points.detach())
    found = found[found > 0]
    if not len(found):
        raise InputError("median_distance: expected two different points, got one point many times; set a scale")
    return float(found.median())
