"""W_2 between normal laws in closed form, its Monge map, and the bound by moments. Lecture: row E2."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from danskin.errors import InputError
from danskin.transport.costs import root
from danskin.transport.measures import pair_of

_SYMMETRIC, _NEGATIVE = 1e-6, 1e-8  # relative


def gaussian_w2(mean: Tensor, covariance: Tensor, other_mean: Tensor, other_covariance: Tensor) -> Tensor:
    """W_2(N(m, S), N(n, R)) = (|m - n|^2 + tr(S + R - 2 (S^1/2 R S^1/2)^1/2))^1/2; a number, differentiable.

    Args:
        mean: m, (d,).
        covariance: S, (d, d), symmetric, not negative.
        other_mean: n, (d,).
        other_covariance: R, (d, d), likewise.

    Raises:
        InputError: shapes that do not fit; a matrix that is not symmetric, not finite, or has negative eigenvalues.

    Reference:
        Dowson and Landau 1982; Gelbrich 1990.

    Lecture:
        E2

    >>> one, four = torch.eye(2), 4 * torch.eye(2)
    >>> gaussian_w2(torch.zeros(2), one, torch.zeros(2), four)  # sqrt(2) times |2 - 1|
    tensor(1.4142)
    """
    d = len(mean)
    s, r = _covariance("covariance", covariance, d), _covariance("other_covariance", other_covariance, d)
    if other_mean.shape != mean.shape or mean.ndim != 1:
        raise InputError(
            f"means: expected two of one shape (d,), got {tuple(mean.shape)} and {tuple(other_mean.shape)}"
        )
    shift = (mean.double() - other_mean.double()).square().sum()
    half = _root(s)
    cross = torch.linalg.eigvalsh(half @ r @ half).clamp(min=0)
    positive = torch.where(cross > 0, cross, torch.ones_like(cross)).sqrt()  # no infinite slope at 0
    cost = shift + s.trace() + r.trace() - 2 * torch.where(cross > 0, positive, torch.zeros_like(cross)).sum()
    return root(cost.clamp(min=0), 2).to(mean.dtype)


def gaussian_map(
    mean: Tensor, covariance: Tensor, other_mean: Tensor, other_covariance: Tensor
) -> Callable[[Tensor], Tensor]:
    """The Monge map of W_2 between normal laws: T(x) = n + A (x - m), A = S^-1/2 (S^1/2 R S^1/2)^1/2 S^-1/2.

    Args:
        mean: m, (d,).
        covariance: S, (d, d), positive.
        other_mean: n, (d,).
        other_covariance: R, (d, d), not negative.

    Returns:
        T, from points (n, d) to points (n, d).

    Raises:
        InputError: as of `gaussian_w2`; or S is singular: then there need not be a map.

    Reference:
        Knott and Smith 1984.
    """
    d = len(mean)
    s, r = _covariance("covariance", covariance, d), _covariance("other_covariance", other_covariance, d)
    values, vectors = torch.linalg.eigh(s)
    if float(values.min()) <= 1e-12 * float(values.max()):
        raise InputError(
            "covariance: expected a positive one, got one without full rank, from which there need not be a map; add a "
            "multiple of the identity"
        )
    half, inverse = (vectors * values.sqrt()) @ vectors.T, (vectors / values.sqrt()) @ vectors.T
    matrix = inverse @ _root(half @ r @ half) @ inverse

    def apply(x: Tensor) -> Tensor:
        return other_mean + (x - mean) @ matrix.to(x.dtype).T

    return apply


def moment_bound(x: Any, y: Any, a: Tensor | None = None, b: Tensor | None = None) -> float:
    """A lower bound of W_2 (l2) from means and covariances alone: W_2 of the normal laws that have them.

    Args:
        x: points (n, d), or an `Empirical`.
        y: points (m, d).
        a: weights of x.
        b: weights of y.

    Reference:
        Gelbrich 1990, On a formula for the L2 Wasserstein metric between measures on Euclidean and Hilbert spaces.
    """
    mu, nu = pair_of(x, y, a, b)
    moments = []
    for measure in (mu, nu):
        points, weights = measure.points.detach().to("cpu").double(), measure.masses().detach()
        mean = weights @ points
        centred = points - mean
        moments += [mean, (centred * weights[:, None]).T @ centred]
    return max(0.0, float(gaussian_w2(*moments)) * (1 - 1e-9))


def _covariance(name: str, matrix: Tensor, d: int) -> Tensor:
    found = matrix.double()
    if found.shape != (d, d):
        raise InputError(f"{name}: expected a matrix ({d}, {d}), got shape {tuple(found.shape)}; correct it")
    with torch.no_grad():
        if not bool(found.isfinite().all()):
            raise InputError(f"{name}: expected finite numbers, got NaN or infinity; correct them")
        size = float(found.abs().max())
        if float((found - found.T).abs().max()) > _SYMMETRIC * size:
            raise InputError(f"{name}: expected a symmetric matrix, got another; use (S + S.T) / 2")
        if float(torch.linalg.eigvalsh(found).min()) < -_NEGATIVE * size:
            raise InputError(f"{name}: expected no negative eigenvalue, got one; covariances have none")
    return (found + found.T) / 2


def _root(matrix: Tensor) -> Tensor:
    """The symmetric square root."""
    values, vectors = torch.linalg.eigh((matrix + matrix.T) / 2)
    return (vectors * values.clamp(min=1e-300).sqrt()) @ vectors.T
