"""Slow, obvious twins of the fast formulas: one row at a time, plain Python or bisection in float64."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import torch
from torch import Tensor

Order = Literal["linf", "l2", "l1"]
Row = Sequence[float]


def bisect(decreasing: Callable[[float], float], goal: float, low: float, high: float) -> float:
    """The point of [low, high] where a decreasing function meets the goal."""
    for _ in range(120):
        middle = 0.5 * (low + high)
        if decreasing(middle) > goal:
            low = middle
        else:
            high = middle
    return 0.5 * (low + high)


def _clip(value: float, low: float, high: float) -> float:
    return min(max(value, low), high)


def _norm(q: Row, order: Order) -> float:
    if order == "linf":
        return max((abs(v) for v in q), default=0.0)
    return math.fsum(abs(v) for v in q) if order == "l1" else math.sqrt(math.fsum(v * v for v in q))


def project(y: Row, radius: float, low: Row, high: Row, order: Order) -> list[float]:
    """The nearest point of one row y in ball and box (low <= 0 <= high), by bisection on the multiplier."""

    def at(t: float) -> list[float]:
        if order == "l1":
            shrunk = [math.copysign(max(abs(v) - t, 0.0), v) for v in y]
        else:
            shrunk = [v / (1 + t) for v in y]
        return [_clip(v, lo, hi) for v, lo, hi in zip(shrunk, low, high, strict=True)]

    if order == "linf":
        return [_clip(v, max(lo, -radius), min(hi, radius)) for v, lo, hi in zip(y, low, high, strict=True)]
    if _norm(at(0.0), order) <= radius:
        return at(0.0)
    most = max(abs(v) for v in y) * (1 if order == "l1" else math.sqrt(len(y)) / max(radius, 1e-12)) + 1
    return at(bisect(lambda t: _norm(at(t), order), radius, 0.0, most))


def project_simplex(y: Row, total: float = 1.0) -> list[float]:
    """The nearest point of {q >= 0, sum q = total}, by bisection on the threshold."""
    t = bisect(lambda t: math.fsum(max(v - t, 0.0) for v in y), total, min(y) - total - 1, max(y))
    return [max(v - t, 0.0) for v in y]


def linear_worst_case(g: Row, radius: float, low: Row, high: Row, order: Order) -> tuple[float, list[float]]:
    """(most, where) of <g, q> over ball and box (low <= 0 <= high), for one row."""
    room = [hi if v > 0 else -lo for v, lo, hi in zip(g, low, high, strict=True)]
    if order == "linf":
        size = [min(r, radius) for r in room]
    elif order == "l1":
        size, left = [0.0] * len(g), radius
        for i in sorted(range(len(g)), key=lambda i: -abs(g[i])):
            size[i] = min(room[i], left)
            left -= size[i]
    else:

        def at(s: float) -> list[float]:
            return [min(s * abs(v), r) for v, r in zip(g, room, strict=True)]

        most = max((r / abs(v) for v, r in zip(g, room, strict=True) if v and r < math.inf), default=0.0)
        most = max(most, 2 * radius / max(_norm(g, "l2"), 1e-300))
        size = at(most)
        if _norm(size, "l2") > radius:
            size = at(bisect(lambda s: -_norm(at(s), "l2"), -radius, 0.0, most))
    where = [math.copysign(s, v) if v else 0.0 for s, v in zip(size, g, strict=True)]
    return math.fsum(v * q for v, q in zip(g, where, strict=True)), where


def corners(low: Row, high: Row) -> Iterator[tuple[float, ...]]:
    """All 2^d corners of a box."""
    return itertools.product(*zip(low, high, strict=True))


def best_length(a: Row, room: Row, smooth: float, points: int = 20001) -> float:
    """Argmax over a grid of t >= 0 of sum_i a_i min(t, room_i) - smooth t^2 / 2."""
    most = max((r for v, r in zip(a, room, strict=True) if v > 0), default=0.0)
    t = torch.linspace(0, most, points, dtype=torch.float64)
    gain = sum((v * t.clamp_max(r) for v, r in zip(a, room, strict=True)), torch.zeros_like(t))
    return float(t[(gain - smooth * t**2 / 2).argmax()])


def plain_pgd(
    loss: Callable[[Tensor], Tensor], x: Tensor, radius: float, step: float, steps: int, box: tuple[float, float]
) -> Tensor:
    """Textbook l_inf loop from x: q <- q + step sign(grad loss(q)), its shift cut to the ball, and to the box."""
    q = x
    for _ in range(steps):
        q = q.detach().requires_grad_()
        (g,) = torch.autograd.grad(loss(q).sum(), q)
        moved = torch.add(q.detach(), g.sign(), alpha=step)
        q = (x + (moved - x).clamp(-radius, radius)).clamp(*box)
    return q


def ddi_synthetic(x: Tensor, y: float | Tensor) -> Tensor:
    """Y (x1^2 + (x2+1)^2) + (1-y) (x1^2 + (x2-1)^2) - y (1-y): max over y in [0, 1] is x1^2 + (|x2|+1)^2.

    At (1, 0) both corners are maximisers, with gradients (2, 2) and (2, -2); the shortest vector of their
    hull is (2, 0).
    """
    return y * (x[0] ** 2 + (x[1] + 1) ** 2) + (1 - y) * (x[0] ** 2 + (x[1] - 1) ** 2) - y * (1 - y)


def two_planes(x: Tensor, y: float | Tensor) -> Tensor:
    """Y <x, u> + (1-y) <x, v> - y (1-y), u = (1, 0), v = (-1, -1)/sqrt(2).

    At 0, minus either gradient is an ascent direction (Df = 0.7071) while -(u+v)/|u+v| descends (Df = -0.3827).
    """
    u, v = x.new_tensor([1.0, 0.0]), x.new_tensor([-1.0, -1.0]) / math.sqrt(2)
    return y * (x @ u) + (1 - y) * (x @ v) - y * (1 - y)
