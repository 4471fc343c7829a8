"""The networks and the points of row F6. Lecture: row F6."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from danskin.critics import AdamAscent, NeuralDual
from danskin.data import load
from danskin.data.toys import gaussians_8
from danskin.lipschitz.layers import Abs, GroupSort, LinearSpline, OrthogonalLinear, SpectralLinear

LINEARS: dict[str, Callable[[int, int], nn.Module]] = {
    "plain": nn.Linear,
    "spectral": SpectralLinear,
    "orthogonal": OrthogonalLinear,
}
ACTIVATIONS: dict[str, Callable[[int], nn.Module]] = {
    "relu": lambda width: nn.ReLU(),
    "abs": lambda width: Abs(),
    "group_sort": lambda width: GroupSort(2),
    "spline": lambda width: LinearSpline(width, init="abs"),
}


def points_of(case: Mapping[str, Any], seed: int) -> tuple[Tensor, Tensor]:
    """Two samples, (n, d) float32: 8 Gaussians and N(0, I / 4); Gaussians, one shifted by 1; two kinds of digits."""
    n, generator = case["points"], torch.Generator().manual_seed(1000 + seed)
    if case["data"] == "gaussians_8":
        x = gaussians_8(n, seed=seed)[0]
        return x, 0.5 * torch.randn(n, 2, generator=generator)
    if case["data"] == "shift":
        x, y = torch.randn(2, n, case["d"], generator=generator)
        y[:, 0] += 1
        return x, y
    digits = load("digits")
    low = torch.cat([digits.y_train, digits.y_test]) < 5
    images = torch.cat([digits.x_train, digits.x_test]).flatten(1).float()
    images = images / images.max()
    chosen = [images[rows][torch.randperm(int(rows.sum()), generator=generator)[:n]] for rows in (low, ~low)]
    return chosen[0], chosen[1]


def critic_of(method: Mapping[str, Any], case: Mapping[str, Any], inputs: int, seed: int) -> nn.Module:
    """A network with one output."""
    linear, activation = LINEARS[method["layer"]], ACTIVATIONS[method["activation"]]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers: list[nn.Module] = []
        for width in case["hidden"]:
            layers += [linear(inputs, width), activation(width)]
            inputs = width
        return nn.Sequential(*layers, linear(inputs, 1))


def dual_of(method: Mapping[str, Any], case: Mapping[str, Any], inputs: int, seed: int) -> NeuralDual:
    """The critic and how it is trained: all points at every step, a step that falls to 0."""
    ascent = AdamAscent(case["steps"], case["lr"], penalty=method.get("penalty", 0.0))
    return NeuralDual(critic_of(method, case, inputs, seed), ascent, seed=seed)
