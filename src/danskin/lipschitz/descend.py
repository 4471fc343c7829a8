"""Descent of a smooth function that is defined on an open set only: steps that leave it are taken back."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor

Objective = Callable[[Tensor], Tensor | None]
_MEMORY = 20
_ADAPTIVE = 60  # steps by RMSprop before L-BFGS


def descend(f: Objective, theta: Tensor, steps: int, until: float, tolerance: float = 1e-7) -> Tensor:
    """RMSprop with backtracking, then L-BFGS with backtracking; the best point that was seen.

    Args:
        f: a value, or None outside its domain.
        theta: (n,) in the domain.
        steps: evaluations with a gradient, at most.
        until: of `time.perf_counter`.
        tolerance: of the fall of f over ten steps, below which it ends.
    """
    value, slope = _at(f, theta)
    if value is None:
        return theta
    theta, value, slope, used = _rmsprop(f, theta, value, slope, min(_ADAPTIVE, steps), until)
    return _lbfgs(f, theta, value, slope, steps - used, until, tolerance)


def _at(f: Objective, theta: Tensor) -> tuple[float | None, Tensor]:
    theta = theta.detach().requires_grad_()
    value = f(theta)
    if value is None or not bool(torch.isfinite(value)):
        return None, theta
    (slope,) = torch.autograd.grad(value, theta)
    return (float(value.detach()), slope) if bool(torch.isfinite(slope).all()) else (None, slope)


def _rmsprop(
    f: Objective, theta: Tensor, value: float, slope: Tensor, steps: int, until: float
) -> tuple[Tensor, float, Tensor, int]:
    square, rate, used = slope.square(), 0.1, 0
    while used < steps and time.perf_counter() < until and rate > 1e-6:
        square = 0.9 * square + 0.1 * slope.square()
        move = slope / (square.sqrt() + 1e-12 + 1e-3 * square.max().sqrt())
        used += 1
        tried, tried_slope = _at(f, theta - rate * move)
        if tried is not None and tried < value:
            theta, value, slope, rate = theta - rate * move, tried, tried_slope, rate * 1.1
        else:
            rate *= 0.5
    return theta, value, slope, used


def _lbfgs(
    f: Objective, theta: Tensor, value: float, slope: Tensor, steps: int, until: float, tolerance: float
) -> Tensor:
    memory: list[tuple[Tensor, Tensor, float]] = []
    past = [value]
    used, length = 0, 1.0
    while used < steps and time.perf_counter() < until:
        move = _direction(slope, memory)
        fall = float(slope @ move)
        if not fall < 0:
            memory, move = [], -slope
            fall = float(slope @ move)
            if not fall < 0:
                break
        length = 1.0 if memory else min(1.0, 0.1 / float(move.abs().max()))
        moved = False
        while used < steps and length > 1e-10:
            used += 1
            tried, tried_slope = _at(f, theta + length * move)
            if tried is not None and tried <= value + 1e-4 * length * fall:
                moved = True
                break
            length *= 0.3
        if not moved or tried is None:
            if not memory:
                break
            memory = []
            continue
        s, y = length * move, tried_slope - slope
        curvature = float(s @ y)
        if curvature > 1e-12 * float(y @ y):
            memory = [*memory[-_MEMORY + 1 :], (s, y, curvature)]
        theta, value, slope = theta + length * move, tried, tried_slope
        past.append(value)
        if len(past) > 10 and past[-11] - value < tolerance:
            break
    return theta


def _direction(slope: Tensor, memory: list[tuple[Tensor, Tensor, float]]) -> Tensor:
    """The two-loop recursion (Nocedal and Wright, algorithm 7.4)."""
    q, weights = slope.clone(), []
    for s, y, curvature in reversed(memory):
        a = float(s @ q) / curvature
        weights.append(a)
        q -= a * y
    if memory:
        s, y, curvature = memory[-1]
        q *= curvature / float(y @ y)
    for (s, y, curvature), a in zip(memory, reversed(weights), strict=True):
        q += (a - float(y @ q) / curvature) * s
    return -q
