"""The mean loss along random directions of the weights that are scaled filter by filter. LECTURE row D5."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from danskin.errors import InputError
from danskin.inputs import whole_number
from danskin.losses import LossName
from danskin.metrics.saliency import Model
from danskin.metrics.weights import MeanLoss, Weights, mean_loss


@dataclass(frozen=True, eq=False)
class Surface:
    """The mean loss on a grid of shifts around the weights.

    Args:
        at: (points,) multiples of a direction, from -span to span, float64. A direction is as long as the weights that
            it moves: 1 is a shift of their own size.
        loss: (draws, points) along lines, or (points, points) on a plane (first direction down, second across); inf or
            NaN where the network overflows, float64.
    """

    at: Tensor
    loss: Tensor


def filter_direction(weights: Weights, generator: torch.Generator) -> Tensor:
    r"""(d,): a random direction, each filter of which is as long as the filter of the weights: d_ij |w_ij| / |d_ij|.

    A filter is what makes one output: a row of a matrix, a kernel with all its inputs. Parameters with one dimension
    (biases, normalisation) are left alone, as published.

    Reference: Li et al., "Visualizing the loss landscape of neural nets", NeurIPS 2018, section 4.
    """
    parts = []
    for w in weights:
        way = torch.randn(w.shape, generator=generator, dtype=torch.float64).to(w.device)
        if w.ndim < 2:
            parts.append(torch.zeros_like(way).reshape(-1))
            continue
        flat, own = way.flatten(1), w.detach().double().flatten(1)
        length = own.norm(dim=1, keepdim=True) / flat.norm(dim=1, keepdim=True).clamp_min(1e-300)
        parts.append((flat * length).reshape(-1))
    return torch.cat(parts)


def loss_line(
    model: Model,
    x: Tensor,
    y: Tensor,
    *,
    span: float = 1.0,
    points: int = 21,
    draws: int = 1,
    loss: LossName = "cross_entropy",
    batch_size: int = 256,
    seed: int = 0,
) -> Surface:
    """L(w + a d) for a from -span to span, along `draws` filter-normalised random directions d.

    Directions of networks of one architecture come from the same random numbers for the same seed. A few random lines
    in very many dimensions show how flat the typical direction is, not the worst one.

    Args:
        model: inputs to logits, in eval mode; left as found.
        x: (n, ...) inputs.
        y: (n,) labels.
        span: > 0.
        points: on a line, odd so that the weights themselves are among them.
        draws: lines.
        loss: by name.
        batch_size: examples in a pass.
        seed: of the directions.

    Reference: Li et al., NeurIPS 2018. Lecture: row D5.
    """
    draws = whole_number(draws, "draws", 1)
    at = _grid(span, points)
    with mean_loss(model, x, y, loss, batch_size) as f:
        ways = _directions(f, draws, seed)
        return Surface(at, torch.tensor([[_at(f, a * way) for a in at.tolist()] for way in ways], dtype=torch.float64))


def loss_plane(
    model: Model,
    x: Tensor,
    y: Tensor,
    *,
    span: float = 1.0,
    points: int = 15,
    loss: LossName = "cross_entropy",
    batch_size: int = 256,
    seed: int = 0,
) -> Surface:
    """L(w + a d + b e) on a grid of points^2 places, d and e two filter-normalised random directions.

    Args: as of `loss_line`; d is its first direction for the same seed.

    Reference: Li et al., NeurIPS 2018. Lecture: row D5.
    """
    at = _grid(span, points)
    with mean_loss(model, x, y, loss, batch_size) as f:
        d, e = _directions(f, 2, seed)
        rows = [[_at(f, a * d + b * e) for b in at.tolist()] for a in at.tolist()]
        return Surface(at, torch.tensor(rows, dtype=torch.float64))


def _at(f: MeanLoss, shift: Tensor) -> float:
    with f.moved(shift.to(f.here)):
        return f.value()


def _directions(f: MeanLoss, draws: int, seed: int) -> list[Tensor]:
    dice = torch.Generator().manual_seed(whole_number(seed, "seed"))
    return [filter_direction(f.weights, dice) for _ in range(draws)]


def _grid(span: float, points: int) -> Tensor:
    points = whole_number(points, "points", 3)
    if points % 2 == 0:
        raise InputError(f"points: expected an odd number, got {points}; the weights themselves are the middle one")
    if not 0 < span < float("inf"):
        raise InputError(f"span: expected a number > 0, got {span}; 1 is a shift as long as the weights")
    half = points // 2  # whole multiples of a step, so that the middle is exactly 0
    return span * torch.arange(-half, half + 1, dtype=torch.float64) / half
