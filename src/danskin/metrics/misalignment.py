"""Gradient misalignment: how far the loss gradient turns within the ball. LECTURE row C11."""

from __future__ import annotations

import torch
from torch import Tensor

from danskin.errors import InputError
from danskin.losses import LossName
from danskin.metrics.saliency import Model, loss_gradient
from danskin.minmax import Set, Streams
from danskin.minmax.reading import read_ball
from danskin.minmax.search import mask
from danskin.minmax.sets import vector_norm


def shifts(x: Tensor, eta: Tensor | Set, seed: int = 0) -> Tensor:
    """Perturbations of x: `eta` itself, or one uniform point of the ball `eta` per example.

    What is drawn for an example depends on the seed and its content only.
    """
    if not isinstance(eta, Tensor):
        return read_ball(eta, "eta").sample(x, Streams.of_content(seed, x))
    if eta.shape != x.shape:
        raise InputError(
            f"eta: expected a perturbation per example, shape {tuple(x.shape)}, got {tuple(eta.shape)}; or pass a ball"
        )
    return eta.to(x)


def gradient_misalignment(
    model: Model,
    x: Tensor,
    y: Tensor,
    eta: Tensor | Set,
    *,
    seed: int = 0,
    loss: LossName = "cross_entropy",
) -> Tensor:
    """(batch,): 1 - cos(g, g~), with g the gradient of loss(x, y) at x and g~ the one at x + eta.

    0 for a loss that is linear around x, 1 for perpendicular gradients, 2 for opposite ones. Near 1 over the
    training ball goes with catastrophic overfitting. NaN where one of the gradients is exactly 0 and has no
    direction (`Average.of` counts these apart).

    Args:
        model: inputs to logits; looked at in eval mode and left as found.
        x: (batch, ...) inputs.
        y: (batch,) labels.
        eta: (batch, ...) perturbations, or a ball to draw uniformly from.
        seed: of the draw.
        loss: by name.

    Equation (20) of the lecture writes both gradients at x + eta, which would always give 0; one is at x.
    Reference: Andriushchenko and Flammarion, NeurIPS 2020, eq. (6). Lecture: row C11.
    """
    moved = x + shifts(x, eta, seed)
    first, second = (loss_gradient(model, at, y, loss)[1] for at in (x, moved))
    return 1 - cosine(first, second)


def cosine(a: Tensor, b: Tensor) -> Tensor:
    """(batch,): the cosine of the angle between rows, right for entries as small as 1e-38; NaN where one is 0."""
    units = []
    for g in (a, b):
        largest = vector_norm(g, torch.inf)
        g = g / mask(torch.where(largest > 0, largest, torch.nan), g)
        units.append(g / mask(vector_norm(g, 2), g))
    return (units[0] * units[1]).flatten(1).sum(1, dtype=torch.float64).clamp(-1, 1).to(a.dtype)
