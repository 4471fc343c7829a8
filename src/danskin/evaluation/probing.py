"""The measurements behind `diagnostics`: finite differences against gradients, noise in a ball, the size of a box."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from danskin.attacks.attack import Ball
from danskin.attacks.checks import DataBox
from danskin.attacks.guard import as_found
from danskin.losses import apart, largest, margin
from danskin.minmax import L1, L2, Box, Intersection, Linf, Streams
from danskin.minmax.gradients import gradient_at
from danskin.minmax.precision import at_least_float32
from danskin.minmax.sets import rowwise

Model = Callable[[Tensor], Tensor]


def gradient(model: Model, x: Tensor, y: Tensor, loss: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """The gradient of the loss with respect to x, per example, in eval mode."""
    with as_found(model, "eval", x.device):
        leaf = x.detach().clone().requires_grad_()
        logits = model(leaf)
        return gradient_at(loss(at_least_float32(logits), y), leaf)


def whole_box(ball: Ball, x: Tensor, width: float | None) -> float:
    """The radius at which the ball around any point of the box holds the box; without one, 1024 radii."""
    d = math.prod(x.shape[1:])
    if width is None:
        return 1024 * float(torch.as_tensor(ball.value).max())
    return {Linf: width, L2: width * math.sqrt(d), L1: width * d}[type(ball)]


def coordinate_step(ball: Ball, x: Tensor) -> Tensor:
    """(batch,): half the radius, spread over all coordinates: h such that h (±1, …, ±1) has norm radius / 2."""
    d = math.prod(x.shape[1:])
    share = {Linf: 1.0, L2: 1 / math.sqrt(d), L1: 1 / d}[type(ball)]
    radius = torch.as_tensor(ball.value, dtype=torch.float64, device=x.device).reshape(-1)
    return 0.5 * share * (radius.expand(len(x)) if len(radius) == 1 else radius[: len(x)])


def noise(ball: Ball, box: DataBox, x: Tensor, streams: Streams, draws: int = 10) -> list[Tensor]:
    """Random points around x: uniform ones of the ball and random vertices, half and half, cut at the box."""
    feasible: Any = ball
    if box is not None:
        feasible = Intersection(ball, Box((box[0] - x).clamp_max(0), (box[1] - x).clamp_min(0)))
    out = []
    for k in range(draws):
        inner = feasible.sample(x, streams.child(2 * k))
        outer = feasible.lmo(streams.child(2 * k + 1).normal(x))
        out += [x + inner, x + outer]
    return out if box is None else [p.clamp(*box) for p in out]


#: Steps per coordinate at which differences are not yet rounding noise; in half precision only large ones.
_TINY = {"float64": (1e-6, 1e-5, 1e-4, 1e-3), "float32": (1e-3, 3e-3)}


class Agreement(NamedTuple):
    """On how many examples gradient and differences disagree, at tiny steps and over half the radius."""

    fine: int
    coarse: int
    precision: str


def agreement(
    model: Any, x: Tensor, y: Tensor, logits: Tensor, coarse: Tensor, box: DataBox, seed: int, directions: int = 16
) -> Agreement:
    """Compare <gradient, u> of the margin with its central differences along random sign vectors u.

    Per example, the cosine between the two over all directions: below 0.8 at each of some tiny steps means that
    the gradient is not the derivative; below 0.5 over half the radius, that it does not foretell the margin there.
    In float64 when the model can be copied and moved there, else in the coarser precision of x and logits.

    Args:
        model: inputs to logits.
        x: (batch, ...) inputs.
        y: (batch,) labels.
        logits: of the model at x in its own precision: the copy in float64 must agree with them.
        coarse: (batch,) the large step, per coordinate.
        box: points stay inside, so that a clamp in the model is not met.
        seed: of the directions.
        directions: how many.
    """
    wide, precision = _in_float64(model, x, logits)
    x = x.to(torch.float64) if precision == "float64" else x
    score = _single if logits.ndim == 1 or logits.shape[1] == 1 else margin
    streams = Streams.of_content(seed, x)
    signs = [streams.child(k).sign(x) for k in range(directions)]
    tiny = _TINY.get(precision, (1e-2, 3e-2))
    fine = torch.full((len(x),), -1.0, dtype=torch.float64, device=x.device)
    for h in tiny:  # the best of the steps: rounding spoils the small ones, kinks the large ones
        fine = torch.maximum(fine, _cosine(wide, x, y, score, signs, torch.full_like(fine, h), box))
    far = _cosine(wide, x, y, score, signs, coarse.to(fine), box)
    return Agreement(int((fine < 0.8).sum()), int((far < 0.5).sum()), precision)


def _single(logits: Tensor, labels: Tensor) -> Tensor:
    return -logits.reshape(-1) * labels.to(logits)


def _in_float64(model: Any, x: Tensor, logits: Tensor) -> tuple[Any, str]:
    """A copy of the model in float64, or the model itself where that does not work; and which precision it is."""
    own = str(torch.finfo(max(x.dtype, logits.dtype, key=lambda t: torch.finfo(t).eps)).dtype)  # the coarser of both
    if not isinstance(model, nn.Module) or x.device.type == "mps":
        return model, own
    try:
        wide = copy.deepcopy(model).double()
        with as_found(wide, "eval", x.device), torch.no_grad():
            again = wide(x[:1].double())
    except (RuntimeError, TypeError, NotImplementedError, AttributeError):  # buffers or casts that stay float32, hooks
        return model, own
    scale = largest(logits[:1]).amax().clamp_min(1e-6)
    close = (
        again.dtype == torch.float64
        and again.shape == logits[:1].shape
        and bool((apart(again, logits[:1]) <= 0.02 * scale).all())
    )
    return (wide, "float64") if close else (model, own)


def _cosine(
    model: Any,
    x: Tensor,
    y: Tensor,
    score: Callable[[Tensor, Tensor], Tensor],
    signs: list[Tensor],
    step: Tensor,
    box: DataBox,
) -> Tensor:
    """(batch,): the cosine between slopes by gradient and by differences; 1 where both are flat."""
    h = rowwise(step, x)
    base = x if box is None else torch.minimum(torch.maximum(x, box[0] + h), box[1] - h)
    slope = gradient(model, base, y, score)
    with as_found(model, "eval", x.device), torch.no_grad():
        told = torch.stack([(slope * u).flatten(1).sum(1).double() for u in signs], 1)
        seen = torch.stack(
            [(score(model(base + h * u), y) - score(model(base - h * u), y)).double() / (2 * step) for u in signs], 1
        )
    both = told.norm(dim=1) * seen.norm(dim=1)
    flat = (told.abs().amax(1) == 0) & (seen.abs().amax(1) == 0)
    return torch.where(flat, 1.0, (told * seen).sum(1) / both.clamp_min(1e-300))
