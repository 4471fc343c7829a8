"""Row E1: laws pushed through maps: samples against distribution functions, densities against closed forms."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Exponential, LogNormal, MultivariateNormal, Normal

from danskin.recipes.sampling_study import number_of
from danskin.report.densities import density_figure
from danskin.report.drawing import Drawn
from danskin.transport import Branch, PushForward, kolmogorov_smirnov

_LEVEL = 0.01


def _gaussian() -> Normal:
    return Normal(torch.tensor(0.0, dtype=torch.float64), torch.tensor(1.0, dtype=torch.float64))


def _chi_square(degrees: int) -> Callable[[Tensor], Tensor]:
    half = torch.tensor(degrees / 2, dtype=torch.float64)
    return lambda y: torch.special.gammainc(half, y.clamp(min=0) / 2)


def _negative_root(y: Tensor) -> Tensor:
    return -y.sqrt()


def _square() -> PushForward:
    return PushForward(_gaussian(), torch.square, (Branch(torch.sqrt), Branch(_negative_root)))


def _chi_square_density(y: Tensor) -> Tensor:
    return torch.exp(-y / 2) / (2 * math.pi * y).sqrt()


def _log_normal_density(y: Tensor) -> Tensor:
    return LogNormal(torch.tensor(0.0, dtype=y.dtype), torch.tensor(1.0, dtype=y.dtype)).log_prob(y).exp()


def _cube_root(y: Tensor) -> Tensor:
    return y.sign() * y.abs() ** (1 / 3)


def _cubic(w: Tensor) -> Tensor:
    return w**3


def _cubic_density(y: Tensor) -> Tensor:
    return _gaussian().log_prob(_cube_root(y)).exp() / (3 * y.abs() ** (2 / 3))


def _weibull_density(y: Tensor) -> Tensor:
    return 2 * y * torch.exp(-(y**2))


def _absolute(w: Tensor) -> Tensor:
    return w.abs()


def _itself(y: Tensor) -> Tensor:
    return torch.where(y >= 0, y, torch.full_like(y, math.nan))


def _negative(y: Tensor) -> Tensor:
    return -_itself(y)


def _half_normal_density(y: Tensor) -> Tensor:
    return 2 * _gaussian().log_prob(y).exp()


Line = tuple[Callable[[], PushForward], Callable[[Tensor], Tensor], Callable[[Tensor], Tensor], tuple[float, float]]
#: The map, the distribution function and the density in closed form, and where to look at it.
LINES: dict[str, Line] = {
    "square": (_square, _chi_square(1), _chi_square_density, (0.0, 60.0)),
    "absolute": (
        lambda: PushForward(_gaussian(), _absolute, (Branch(_itself), Branch(_negative))),
        lambda y: torch.erf(y.clamp(min=0) / 2**0.5), _half_normal_density, (0.0, 10.0),
    ),
    "exp": (
        lambda: PushForward(_gaussian(), torch.exp, torch.log),
        lambda y: torch.special.ndtr(y.clamp(min=1e-300).log()), _log_normal_density, (0.0, 3000.0),
    ),
    "cubic": (
        lambda: PushForward(_gaussian(), _cubic, _cube_root),
        lambda y: torch.special.ndtr(_cube_root(y)), _cubic_density, (-500.0, 500.0),
    ),
    "root": (
        lambda: PushForward(Exponential(torch.tensor(1.0, dtype=torch.float64)), torch.sqrt, torch.square),
        lambda y: 1 - torch.exp(-(y.clamp(min=0) ** 2)), _weibull_density, (0.0, 6.5),
    ),
}  # fmt: skip


def integral(density: Callable[[Tensor], Tensor], low: float, high: float) -> float:
    """Of a density over an interval, by tanh-sinh quadrature on each side of 0, where it may be infinite."""
    t = torch.linspace(-3.6, 3.6, 4001, dtype=torch.float64)
    inner = math.pi / 2 * torch.sinh(t)
    share = 1 / (1 + torch.exp(-2 * inner))  # of the way from 0, exact near 0
    weight = math.pi / 2 * torch.cosh(t) / (2 * torch.cosh(inner) ** 2) * (t[1] - t[0])
    total = 0.0
    for end in (low, high):
        if end:
            at = end * share
            total += abs(end) * float((density(at) * weight).sum())
    return total


def cell(settings: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """The numbers of one seed."""
    n = settings["points"]
    if settings["kind"] == "sum":
        return _sum_of_squares(settings["degrees"], n, seed)
    if settings["kind"] == "plane":
        return _plane(settings["map"], n, seed)
    made, cdf, density, (low, high) = LINES[settings["map"]]
    law = made()
    test = kolmogorov_smirnov(law.sample(n, seed), cdf)
    grid = torch.linspace(low, high, 401, dtype=torch.float64)[1:]
    grid = grid[grid != 0]
    found, wanted = law.log_prob(grid).exp(), density(grid)
    return {
        "numbers": {
            "KS statistic": test.statistic,
            "KS p-value": test.p_value,
            "integral of the density": integral(lambda y: law.log_prob(y).exp(), low, high),
            "largest error of the density": float(((found - wanted).abs() / wanted.clamp(min=1e-12)).max()),
        },
        "shares": {"rejected at 1 %": float(test.p_value < _LEVEL)},
    }


def _sum_of_squares(degrees: int, n: int, seed: int) -> dict[str, Any]:
    """Chi-square with some degrees of freedom, a map that lowers the dimension: samples only."""
    base = MultivariateNormal(torch.zeros(degrees, dtype=torch.float64), torch.eye(degrees, dtype=torch.float64))
    sample = PushForward(base, lambda w: w.square().sum(1, keepdim=True)).sample(n, seed)[:, 0]
    test = kolmogorov_smirnov(sample, _chi_square(degrees))
    other = kolmogorov_smirnov(sample, _chi_square(degrees + 1))
    return {
        "numbers": {"KS statistic": test.statistic, "KS p-value": test.p_value},
        "shares": {
            "rejected at 1 %": float(test.p_value < _LEVEL),
            "one degree more: rejected": float(other.p_value < _LEVEL),
        },
    }


_MATRIX = torch.tensor([[1.5, 0.4], [-0.6, 0.8]], dtype=torch.float64)


def banana(w: Tensor) -> Tensor:
    """(u, v) -> (u, v / 2 + u^2): volume halves everywhere."""
    return torch.stack([w[:, 0], w[:, 1] / 2 + w[:, 0] ** 2], 1)


def _straightened(y: Tensor) -> Tensor:
    return torch.stack([y[:, 0], 2 * (y[:, 1] - y[:, 0] ** 2)], 1)


def polar(w: Tensor) -> Tensor:
    """(u, v) -> (exp(u) cos v, exp(u) sin v): the determinant is exp(2u)."""
    return w[:, :1].exp() * torch.stack([w[:, 1].cos(), w[:, 1].sin()], 1)


def _unrolled(y: Tensor) -> Tensor:
    return torch.stack([y.norm(dim=1).log(), torch.atan2(y[:, 1], y[:, 0])], 1)


def _plane_law(name: str) -> PushForward:
    eye = torch.eye(2, dtype=torch.float64)
    base = MultivariateNormal(torch.zeros(2, dtype=torch.float64), eye)
    if name == "matrix":
        return PushForward(base, lambda w: w @ _MATRIX.T, lambda y: torch.linalg.solve(_MATRIX, y.T).T)
    if name == "banana":
        return PushForward(base, banana, _straightened)
    narrow = MultivariateNormal(torch.zeros(2, dtype=torch.float64), torch.diag(torch.tensor([0.09, 0.16]).double()))
    return PushForward(narrow, polar, _unrolled)


def _plane(name: str, n: int, seed: int) -> dict[str, Any]:
    """Integral over a grid, and the mass of a square by the density beside the share of the sample there."""
    law = _plane_law(name)
    low, high, side = -9.0, 9.0, 720  # so that cells end where the square does
    step = (high - low) / side
    axis = low + step * (torch.arange(side, dtype=torch.float64) + 0.5)
    grid = torch.cartesian_prod(axis, axis) if name != "banana" else torch.cartesian_prod(axis * 0.5, axis + 7)
    area = step**2 * (0.5 if name == "banana" else 1)
    density = law.log_prob(grid).exp()
    inside = ((grid - 1).abs() < 0.5).all(1)
    sample = law.sample(n, seed)
    share = float(((sample - 1).abs() < 0.5).all(1).double().mean())
    mass = float(density[inside].sum() * area)
    return {
        "numbers": {
            "integral of the density": float(density.sum() * area),
            "mass of a square, by the density": mass,
            "by the sample": share,
            "z-score": (share - mass) / math.sqrt(mass * (1 - mass) / n),
        }
    }


def draw(result: Mapping[str, Any]) -> list[Drawn]:
    """Histograms of samples under their densities."""
    shown = {}
    for name, (low, high) in {
        "square": (0.0, 4.0),
        "exp": (0.0, 6.0),
        "cubic": (-4.0, 4.0),
        "root": (0.0, 3.0),
    }.items():
        law = LINES[name][0]()
        grid = torch.linspace(low, high, 400, dtype=torch.float64)[1:]
        sample = law.sample(20_000, 0)
        counts, edges = np.histogram(sample.numpy(), bins=60, range=(low, high))
        heights = counts / len(sample) / np.diff(edges)
        shown[result["methods"][name]] = (grid.numpy(), law.log_prob(grid).exp().numpy(), edges, heights)
    found = number_of(result, "numbers to numbers", "square", "KS p-value")
    words = "" if found is None else f" Mean KS p-value of the squared Gaussian: {found['mean']:.2f}."
    return density_figure(shown, words)
