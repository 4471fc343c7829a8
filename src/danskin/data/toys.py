"""Two-dimensional toy problems, drawn from a seeded generator.

Those with classes to tell apart lie in the unit square. Those for generators to learn (`gaussians_8`, `gaussians_25`,
`swiss_roll`) are samples of a known density, whose modes `SUPPORTS` lists.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from danskin.data.dataset import Dataset
from danskin.data.registry import DATASETS
from danskin.errors import InputError


def two_moons(n: int, *, noise: float = 0.03, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Two interleaved half circles.

    Args:
        n: number of points; classes alternate.
        noise: standard deviation added to each coordinate, in units of the square's side.
        seed: seed of the draw.

    Returns:
        Points (n, 2), float32 in [0, 1], and labels (n,), int64.
    """
    y, g = _start(n, seed)
    angle = math.pi * torch.rand(n, generator=g)
    sign = (1 - 2 * y).float()  # the second moon is the first turned by half a turn about the centre
    x = 0.5 + sign[:, None] * (0.27 * torch.stack([angle.cos(), angle.sin()], 1) - torch.tensor([0.135, 0.07]))
    return _finish(x, y, noise, g)


def circles(n: int, *, noise: float = 0.02, seed: int = 0) -> tuple[Tensor, Tensor]:
    """A circle (class 1, radius 0.2) inside a circle (class 0, radius 0.4); arguments as in `two_moons`."""
    y, g = _start(n, seed)
    angle = 2 * math.pi * torch.rand(n, generator=g)
    radius = 0.4 - 0.2 * y.float()
    x = 0.5 + radius[:, None] * torch.stack([angle.cos(), angle.sin()], 1)
    return _finish(x, y, noise, g)


def blobs(n: int, *, noise: float = 0.07, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Three Gaussian blobs at the corners of a triangle; `noise` is their standard deviation."""
    y, g = _start(n, seed, classes=3)
    centers = torch.tensor([[0.25, 0.3], [0.75, 0.3], [0.5, 0.75]])
    return _finish(centers[y], y, noise, g)


def spirals(n: int, *, noise: float = 0.01, turns: float = 1.5, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Two interleaved spirals of `turns` turns; other arguments as in `two_moons`."""
    y, g = _start(n, seed)
    t = torch.rand(n, generator=g).sqrt()  # even along the arm, which is longer outside
    angle = 2 * math.pi * turns * t + math.pi * y
    x = 0.5 + (0.04 + 0.4 * t)[:, None] * torch.stack([angle.cos(), angle.sin()], 1)
    return _finish(x, y, noise, g)


@dataclass(frozen=True, eq=False)
class Support:
    """Where a known density lies: noise around points.

    Args:
        points: (k, d) without noise.
        labels: (k,) int64: which mode each belongs to.
        sigma: standard deviation of the noise in each coordinate.
    """

    points: Tensor
    labels: Tensor
    sigma: float


def gaussians_8(n: int, *, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Eight narrow Gaussians on a circle of radius 1.414, standard deviation 0.0141, equally likely.

    Args:
        n: number of points, independent of each other.
        seed: seed of the draw.

    Returns:
        Points (n, 2), float32, and which Gaussian each is from, (n,), int64.
    """
    return _around(SUPPORTS["gaussians_8"], n, seed)


def gaussians_25(n: int, *, seed: int = 0) -> tuple[Tensor, Tensor]:
    """25 narrow Gaussians on a square grid of pitch 0.707, standard deviation 0.0177; arguments as `gaussians_8`."""
    return _around(SUPPORTS["gaussians_25"], n, seed)


def swiss_roll(n: int, *, seed: int = 0) -> tuple[Tensor, Tensor]:
    """A spiral t (cos t, sin t) / 7.5, t uniform in [1.5 pi, 4.5 pi], with noise of 0.0333; arguments as `gaussians_8`.

    The labels are ten arcs of equal mass.
    """
    g = _begin(n, seed)
    u = torch.rand(n, generator=g)
    x = _roll(u) + _ROLL_NOISE * torch.randn(n, 2, generator=g)
    return x, (10 * u).long().clamp(max=9)


_ROLL_NOISE = 0.25 / 7.5


def _roll(u: Tensor) -> Tensor:
    t = 1.5 * math.pi * (1 + 2 * u)
    return torch.stack([t * t.cos(), t * t.sin()], 1) / 7.5


def _around(support: Support, n: int, seed: int) -> tuple[Tensor, Tensor]:
    g = _begin(n, seed)
    y = torch.randint(len(support.points), (n,), generator=g)
    return support.points[y] + support.sigma * torch.randn(n, 2, generator=g), y


def _supports() -> dict[str, Support]:
    angle = 2 * math.pi * torch.arange(8) / 8
    grid = torch.cartesian_prod(torch.arange(-2.0, 3), torch.arange(-2.0, 3)) / math.sqrt(2)
    u = (torch.arange(2000) + 0.5) / 2000
    ring = math.sqrt(2) * torch.stack([angle.cos(), angle.sin()], 1)
    return {
        "gaussians_8": Support(ring, torch.arange(8), 0.02 / math.sqrt(2)),
        "gaussians_25": Support(grid, torch.arange(25), 0.05 / (2 * math.sqrt(2))),
        "swiss_roll": Support(_roll(u), (10 * u).long(), _ROLL_NOISE),
    }


#: Where the densities for generators lie.
SUPPORTS = _supports()

TOYS: dict[str, Callable[..., tuple[Tensor, Tensor]]] = {
    "two_moons": two_moons,
    "circles": circles,
    "blobs": blobs,
    "spirals": spirals,
    "gaussians_8": gaussians_8,
    "gaussians_25": gaussians_25,
    "swiss_roll": swiss_roll,
}


def toy(name: str, train: int | None = None, test: int | None = None, seed: int = 0) -> Dataset:
    """A toy as a `Dataset`: one draw of train + test points, cut in two.

    Args:
        name: in `TOYS`.
        train: default: 1,000, and 20,000 of the densities for generators.
        test: default: 1,000, and 4,096 of the densities for generators.
        seed: of the draw.
    """
    density = name in SUPPORTS
    train, test = train or (20_000 if density else 1000), test or (4096 if density else 1000)
    x, y = TOYS[name](train + test, seed=seed)
    return Dataset(name, x[:train], y[:train], x[train:], y[train:], DATASETS[name].classes)


def _begin(n: int, seed: int) -> torch.Generator:
    if n < 1:
        raise InputError(f"n: expected at least 1 point, got {n}; ask for more")
    return torch.Generator().manual_seed(seed)


def _start(n: int, seed: int, classes: int = 2) -> tuple[Tensor, torch.Generator]:
    g = _begin(n, seed)
    return torch.arange(n) % classes, g


def _finish(x: Tensor, y: Tensor, noise: float, g: torch.Generator) -> tuple[Tensor, Tensor]:
    return (x + noise * torch.randn(x.shape, generator=g)).clamp(0, 1), y
