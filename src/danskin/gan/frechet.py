"""The Fréchet distance of Gaussians fitted to features. On features other than Inception's it is not FID."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from danskin.errors import InputError


@dataclass(frozen=True)
class Frechet:
    """A Fréchet distance, with all that another must share to be compared with it.

    Args:
        value: squared distance, at least 0.
        features: the name of what the features are.
        n: examples of the first sample.
        m: examples of the second.
        dimensions: of a feature.
        ridge: what was added to the diagonals of both covariances; 0 for nothing.
    """

    value: float
    features: str
    n: int
    m: int
    dimensions: int
    ridge: float = 0.0

    def __str__(self) -> str:
        ridged = f", ridge {self.ridge:g}" if self.ridge else ""
        return f"Fréchet distance {self.value:.4g} on {self.features} ({self.n} and {self.m} examples{ridged}; not FID)"


def frechet_distance(x: Tensor, y: Tensor, features: str, ridge: float = 0.0) -> Frechet:
    r"""The squared 2-Wasserstein distance of the Gaussians with the samples' means and covariances, in float64.

    .. math:: |\mu_x - \mu_y|^2 + \mathrm{tr}\,\Sigma_x + \mathrm{tr}\,\Sigma_y - 2 \|\Sigma_x^{1/2}
        \Sigma_y^{1/2}\|_*

    The nuclear norm needs no root of a matrix that is not symmetric: it is never complex or NaN, and what rounding
    leaves of a sample against itself (below 1e-12 of the traces) is 0.

    Args:
        x: (n, d) features.
        y: (m, d) features.
        features: their name, which goes with the number: distances on other features do not compare.
        ridge: >= 0, added to both diagonals. Needed where there are no more examples than dimensions.

    Raises:
        InputError: n or m not above d without a ridge (the covariance is singular, and the distance mostly one of
            sample sizes); shapes that do not fit; NaN.

    Reference: Dowson and Landau, 1982; Heusel et al., NeurIPS 2017, equation 6. Lecture: F7.
    """
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1]:
        raise InputError(
            f"frechet_distance: expected features (n, d) and (m, d), got {tuple(x.shape)} and {tuple(y.shape)}"
        )
    n, m, d = len(x), len(y), x.shape[1]
    if not ridge >= 0:
        raise InputError(f"frechet_distance.ridge: expected a number >= 0, got {ridge}")
    if min(n, m) < 2 or (min(n, m) <= d and not ridge):
        raise InputError(
            f"frechet_distance: expected more examples than the {d} dimensions of a feature, got {n} and {m}; take "
            "more, fewer dimensions, or a ridge, which is told with the number"
        )
    x, y = x.detach().double(), y.detach().double()
    if not bool(x.isfinite().all() & y.isfinite().all()):
        raise InputError("frechet_distance: expected finite features, got NaN or infinity")
    one, two = (torch.atleast_2d(t.T.cov()) + ridge * torch.eye(d, dtype=t.dtype, device=t.device) for t in (x, y))
    both = torch.linalg.svdvals(_root(one) @ _root(two)).sum()
    traces = one.trace() + two.trace()
    value = float((x.mean(0) - y.mean(0)).square().sum() + traces - 2 * both)
    return Frechet(value if value > 1e-12 * float(traces) else 0.0, features, n, m, d, ridge)


def _root(covariance: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(covariance)
    return (vectors * values.clamp_min(0).sqrt()) @ vectors.T
