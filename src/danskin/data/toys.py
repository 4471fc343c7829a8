"""Two-dimensional toy problems in the unit square, drawn from a seeded generator."""

from __future__ import annotations

import math
from collections.abc import Callable

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


TOYS: dict[str, Callable[..., tuple[Tensor, Tensor]]] = {
    "two_moons": two_moons,
    "circles": circles,
    "blobs": blobs,
    "spirals": spirals,
}


def toy(name: str, train: int = 1000, test: int = 1000, seed: int = 0) -> Dataset:
    """A toy as a `Dataset`: one draw of train + test points, cut in two."""
    x, y = TOYS[name](train + test, seed=seed)
    return Dataset(name, x[:train], y[:train], x[train:], y[train:], DATASETS[name].classes)


def _start(n: int, seed: int, classes: int = 2) -> tuple[Tensor, torch.Generator]:
    if n < 1:
        raise InputError(f"n: expected at least 1 point, got {n}; ask for more")
    return torch.arange(n) % classes, torch.Generator().manual_seed(seed)


def _finish(x: Tensor, y: Tensor, noise: float, g: torch.Generator) -> tuple[Tensor, Tensor]:
    return (x + noise * torch.randn(x.shape, generator=g)).clamp(0, 1), y
