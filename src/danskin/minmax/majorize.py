"""Majorisation-minimisation: ascent whose step length smoothness decides, found by a line search per row."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from danskin.errors import InputError
from danskin.minmax.maximize import first_point
from danskin.minmax.random import Streams
from danskin.minmax.result import Maximum, Status
from danskin.minmax.search import Payoff, Search, mask
from danskin.minmax.sets import Set, is_cube, rowwise, vector_norm


@dataclass(frozen=True)
class MajorizeMinimize:
    r"""Maximise, at each step, the lower bound that smoothness gives, with its constant found by line search.

    With f smooth in a norm with constant L, for all d: f(y + d) >= f(y) + <g, d> - L/2 \|d\|^2. The right
    side is maximised exactly over Y: in l_inf (Linf, Box, Linf with box) by
    d = clip(y + t* sign g) - y with t* = argmax over t of sum_i |g_i| min(t, room_i) - L t^2 / 2, a sort;
    for other sets in l2, by projecting y + g / L. Per row, L starts at 0 (the first trial is the linear
    maximiser); a trial that breaks the bound is refused and L grows, one that keeps it is accepted
    and L is halved. f never falls, whether or not it is concave or smooth; where it is both, the iterates
    converge to the maximum.

    Args:
        steps: trials made, accepted or not, >= 1.
        random_start: begin at a random point of Y (needs a generator).
        stop: leave a row as soon as it is settled.

    Lecture: row B6 (the slide prints the minimisation sign, -t*; this is the ascent). Reference: the
    l_inf step is that of Kelner et al. (SODA 2014) for steepest descent in a non-Euclidean norm.
    """

    steps: int
    random_start: bool = False
    stop: bool = False

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise InputError(f"MajorizeMinimize.steps: expected at least 1, got {self.steps}; use 10, say")

    def __call__(self, f: Payoff, y0: Tensor, Y: Set, generator: Streams | None = None) -> Maximum:
        """Maximise f over Y from y0."""
        y0 = first_point("MajorizeMinimize", self.random_start, y0, Y, generator)
        search = Search(f, y0, Y, keep="best", drop=self.stop)
        y = search.y
        value, g = search.evaluate(y, gradient=True)
        smooth = torch.zeros_like(value)
        for k in range(self.steps):
            left = search.compact(y, value, g, smooth)
            if left is None:
                return search.result(Status.SETTLED)
            y, value, g, smooth = left
            trial = _majorizer_step(y, g, smooth, search.Y)
            new_value, new_g = search.evaluate(trial, gradient=k < self.steps - 1)
            if k == self.steps - 1:
                break
            y, value, g, smooth = _accept((y, value, g, smooth), (trial, new_value, new_g), search.Y)
        return search.result(Status.DONE)


def _majorizer_step(y: Tensor, g: Tensor, smooth: Tensor, Y: Set) -> Tensor:
    free = mask(smooth == 0, y)
    if not is_cube(Y):
        moved = Y.project(y + g / rowwise(torch.where(smooth > 0, smooth, 1.0), y))
        return torch.where(free, Y.lmo(g), moved)
    low, high = (b.expand_as(y) for b in Y.bounds(y))  # type: ignore[attr-defined]
    room = torch.where(g > 0, high - y, y - low).reshape(len(y), -1)
    t = _best_length(g.reshape(len(y), -1).abs(), room, smooth)
    return (y + rowwise(t, y) * g.sign()).clamp(low, high)


def _best_length(a: Tensor, room: Tensor, smooth: Tensor) -> Tensor:
    """Argmax over t >= 0 of sum_i a_i min(t, room_i) - smooth t^2 / 2, per row."""
    room = torch.where(a > 0, room, 0.0)
    r, order = room.sort(1)
    slope = a.gather(1, order).flip(1).cumsum(1).flip(1)  # of the linear part before each break point
    before = torch.cat([torch.zeros_like(r[:, :1]), r[:, :-1]], 1)
    meets = torch.maximum(before, slope / smooth[:, None])  # smooth = 0 gives inf: go as far as there is room
    return torch.minimum(meets.nan_to_num(nan=math.inf).amin(1), r[:, -1])


def _accept(
    old: tuple[Tensor, Tensor, Tensor, Tensor], new: tuple[Tensor, Tensor, Tensor], Y: Set
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Per row: move and halve the constant where the lower bound held, else stay and raise it."""
    y, value, g, smooth = old
    trial, new_value, new_g = new
    d = (trial - y).reshape(len(y), -1)
    linear = (d * g.reshape(len(y), -1)).sum(1)
    square = vector_norm(d, math.inf if is_cube(Y) else 2) ** 2
    slack = 1e-6 * (value.abs() + linear.abs())
    ok = (new_value >= value) & (new_value + slack >= value + linear - smooth * square / 2)
    needed = 2 * (value + linear - new_value) / square.clamp_min(1e-30)
    raised = torch.where(smooth > 0, torch.maximum(2 * smooth, needed.clamp_max(16 * smooth)), needed.clamp_min(0))
    wide = mask(ok, y)
    return (
        torch.where(wide, trial, y),
        torch.where(ok, new_value, value),
        torch.where(wide, new_g, g),
        torch.where(ok, smooth / 2, raised),
    )
