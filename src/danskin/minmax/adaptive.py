"""Ascent that chooses its own step: Auto-PGD, one state per row."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor

from danskin.errors import InputError
from danskin.minmax.box import Box
from danskin.minmax.conveyor import Belt, State, convey
from danskin.minmax.intersection import Intersection, ball_of, order_of
from danskin.minmax.measured import grown
from danskin.minmax.random import Streams
from danskin.minmax.result import Cost, Maximum
from danskin.minmax.rows import PerRow
from danskin.minmax.search import Keep, Payoff, look, mask
from danskin.minmax.sets import Set, rowwise, vector_norm

Start = Literal["sphere", "uniform", "given"]
Quirks = Literal["none", "reference"]


def checkpoints(steps: int) -> list[int]:
    """The steps at which step sizes are looked at: the first gap is 22 % of the steps, each 3 % shorter, at least 6 %.

    >>> checkpoints(100)
    [22, 41, 57, 70, 80, 87, 93, 99]

    Reference: Croce and Hein, ICML 2020, §3.1, with the rounding of its released code.
    """
    gap, least, less = max(int(0.22 * steps), 1), max(int(0.06 * steps), 1), max(int(0.03 * steps), 1)
    out, at = [], 0
    while at + gap <= steps:
        at += gap
        out.append(at)
        gap = max(gap - less, least)
    return out


def on_sphere(like: Tensor, Y: Set, streams: Streams) -> Tensor:
    """A random point of the ball's surface, cut at the box, as Auto-PGD starts.

    l_inf: radius t / max|t| with t uniform in the cube; l2: radius n / |n| with n normal; l1: n projected; another
    set: the linear maximiser of n, which is on its surface.
    """
    ball, order = ball_of(Y), order_of(Y)
    t = 2 * streams.uniform(like) - 1 if order == math.inf else streams.normal(like)
    if order is None:
        return Y.project(ball.lmo(t))
    if order != 1:
        t = t / rowwise(ball.norm(t).clamp_min(1e-30), t) * rowwise(ball.value, t)
    return Y.project(t)


def _first(start: Start, y0: Tensor, Y: Set, streams: Streams | None) -> Tensor:
    if start == "given":
        return Y.project(y0)
    if streams is None:
        raise InputError(f"AdaptiveAscent: expected streams for start={start!r}, got None; pass Streams")
    return on_sphere(y0, Y, streams) if start == "sphere" else Y.project(Y.sample(y0, streams))


@dataclass(frozen=True)
class AdaptiveAscent(PerRow):
    r"""Auto-PGD: projected ascent with momentum whose step is halved, row by row, when progress stalls.

    z = P(y_k + eta d_k), y_{k+1} = P(y_k + a (z - y_k) + (1 - a) (y_k - y_{k-1})), d_k the steepest direction,
    a = momentum (1 at the first step). At each checkpoint eta is halved and the row goes back to its best point
    when fewer than rho of the steps since the last one raised the value, or when neither eta nor the best value has
    changed since then. For an l1 set: sparse signs without momentum; the share of coordinates moved
    follows the sparsity of the best point (Croce and Hein, ICML 2021).

    Args:
        steps: steps >= 1; gradients are taken at each of them and at the start.
        step: the first eta: a number, or one per row (2 * radius for l_inf and l2, the radius for l1).
        start: "sphere" (the ball's surface, as published), "uniform" in the ball, or "given" (y0).
        rho: in (0, 1].
        momentum: in (0, 1].
        keep: "best" (settled first, then by value), or best by "value" alone.
        stop: leave a row as soon as it is settled.
        width: rows in work at a time, None for all. Changes nothing but memory and time.
        fan: rows per example (see `Belt`).
        quirks: "none", the published algorithm; or "reference", step by step what its released code does: the first
            checkpoint compares the oldest step with 0 instead of the initial value and never looks at the best value,
            "at most" rho of the steps instead of fewer, and for l2 the ball's projection followed by clipping
            instead of the projection on ball and box.

    Reference: Croce and Hein, "Reliable evaluation of adversarial robustness with an ensemble of diverse
    parameter-free attacks", ICML 2020, Algorithm 1; for l1 "Mind the box", ICML 2021, Algorithm 1. Lecture: C8.
    """

    steps: int
    step: float | Tensor
    start: Start = "sphere"
    rho: float = 0.75
    momentum: float = 0.75
    keep: Keep = "best"
    stop: bool = False
    width: int | None = None
    fan: int = 1
    quirks: Quirks = "none"

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise InputError(f"AdaptiveAscent.steps: expected at least 1, got {self.steps}; the default is 100")
        if self.start not in ("sphere", "uniform", "given"):
            raise InputError(f"start: expected 'sphere', 'uniform' or 'given', got {self.start!r}; pick one")
        if self.quirks not in ("none", "reference"):
            raise InputError(f"quirks: expected 'none' or 'reference', got {self.quirks!r}; pick one")
        for name, value in (("rho", self.rho), ("momentum", self.momentum)):
            if not 0 < value <= 1:
                raise InputError(f"{name}: expected a number in (0, 1], got {value}; the published one is 0.75")

    def __call__(self, f: Payoff, y0: Tensor, Y: Set, generator: Streams | None = None) -> Maximum:
        """Maximise f over Y."""
        return convey(self, f, y0, Y, generator, width=self.width, keep=self.keep, stop=self.stop, fan=self.fan)

    def fanned(self, fan: int) -> AdaptiveAscent:
        """The same ascent with `fan` rows per example."""
        return replace(self, fan=fan)

    @cached_property
    def _gaps(self) -> list[int]:
        """For each step: how many since the last checkpoint if it is one, else 0."""
        at = checkpoints(self.steps)
        return [k - at[at.index(k) - 1] * (k != at[0]) if k in at else 0 for k in range(self.steps + 1)]

    def begin(self, y0: Tensor, Y: Set, streams: Streams | None, rows: Tensor) -> State:
        """The state of rows that have just come."""
        y = _first(self.start, y0, Y, streams)
        step = torch.as_tensor(self.step, dtype=y.dtype, device=y.device)
        lowest = y.new_full((len(y),), -math.inf)
        state = {
            "k": torch.zeros(len(y), dtype=torch.int64, device=y.device),
            "y": y,
            "best": y,
            "slope": torch.zeros_like(y),
            "value": lowest,
            "eta": (step[rows] if step.numel() > 1 else step.reshape(1)).expand(len(y)).clone(),
        }
        if order_of(Y) == 1:
            moved = (y != 0).reshape(len(y), -1).sum(1).to(y.dtype)
            given, size = self.start == "given", float(_size(y))
            share = moved / size / 1.5 if given else torch.full_like(moved, 0.2)
            count = moved if given else torch.full_like(moved, size)
            return state | {"share": share, "count": count, "most": state["eta"].clone()}
        ups = torch.zeros_like(lowest)
        halved = torch.full_like(lowest, self.quirks == "reference", dtype=torch.bool)
        return state | {"before": y, "ups": ups, "last": lowest, "checked": lowest, "halved": halved}

    def advance(self, belt: Belt, state: State) -> tuple[State, Tensor]:
        """One evaluation, and the step it leads to."""
        y, k = state["y"], state["k"]
        over = k == self.steps
        gradient = not bool(over.all())
        value, g = belt.evaluate(y, gradient=gradient)
        if not gradient:
            return state, over
        better = ~(value <= state["value"])
        state = state | {
            "value": torch.where(better, value, state["value"]),
            "best": torch.where(mask(better, y), y, state["best"]),
            "slope": torch.where(mask(better, y), g, state["slope"]),
        }
        move = self._sparse if "share" in state else self._momentum
        return move(belt.Y, state, value, g) | {"k": k + 1}, over

    def _momentum(self, Y: Set, state: State, value: Tensor, g: Tensor) -> State:
        """The step for l_inf and l2."""
        k, y, ups, checked, eta, halved = (state[key] for key in ("k", "y", "ups", "checked", "eta", "halved"))
        reference, first = self.quirks == "reference", k == 0
        ups = ups + ((value > state["last"]) & ~first)
        checked = torch.where(first, value, checked)
        gap = torch.tensor(self._gaps, device=k.device)[k]
        at = gap > 0
        if bool(at.any()):
            few = ups <= self.rho * gap if reference else ups < self.rho * gap
            stalls = at & (few | (~halved & (checked >= state["value"])))
            eta = torch.where(stalls, eta / 2, eta)
            halved, checked = torch.where(at, stalls, halved), torch.where(at, state["value"], checked)
            ups = torch.where(at, 0.0, ups)
            y = torch.where(mask(stalls, y), state["best"], y)
            g = torch.where(mask(stalls, y), state["slope"], g)
        z = self._onto(Y, torch.addcmul(y, Y.steepest(g), rowwise(eta, y)))
        a = rowwise(torch.where(first, 1.0, self.momentum).to(y.dtype), y)
        ahead = self._onto(Y, y + a * (z - y) + (1 - a) * (y - state["before"]))
        last = torch.where(first, 0.0, value) if reference else value
        moved = {"y": ahead, "before": y, "ups": ups, "last": last, "checked": checked, "eta": eta, "halved": halved}
        return state | moved

    def _sparse(self, Y: Set, state: State, value: Tensor, g: Tensor) -> State:
        """The step for l1: signs of the largest coordinates, with l1 norm eta.

        The first step looks at the linear maximiser instead, and the second goes on from the better of the two: sparse
        signs do not come to the worst case even of a linear payoff. (The released code has no such step.)
        """
        k, y, eta, share, count, most = (state[key] for key in ("k", "y", "eta", "share", "count", "most"))
        if self.quirks == "none":
            y = torch.where(mask(k == 1, y), state["best"], y)
            g = torch.where(mask(k == 1, y), state["slope"], g)
        at = (k > 0) & (k % max(int(0.04 * self.steps), 1) == 0)
        if bool(at.any()):
            now = (state["best"] != 0).reshape(len(y), -1).sum(1).to(y.dtype)
            back = at & (now < 0.95 * count)
            eta = torch.where(at, torch.where(back, most, (eta / 1.5).clamp(min=most / 10)), eta)
            share, count = torch.where(at, now / _size(y) / 1.5, share), torch.where(at, now, count)
            y = torch.where(mask(back, y), state["best"], y)
            g = torch.where(mask(back, y), state["slope"], g)
        ahead = Y.project(torch.addcmul(y, _largest_signs(g, share), rowwise(eta, y)))
        if self.quirks == "none" and bool((k == 0).any()):
            ahead = torch.where(mask(k == 0, y), Y.lmo(g), ahead)
        return state | {"y": ahead, "eta": eta, "share": share, "count": count}

    def _onto(self, Y: Set, y: Tensor) -> Tensor:
        if self.quirks == "reference" and isinstance(Y, Intersection) and order_of(Y) == 2:
            return Y.ball.project(y).clamp(*Y.bounds(y))
        return Y.project(y)


def _size(y: Tensor) -> int:
    return max(math.prod(y.shape[1:]), 1)


def _largest_signs(g: Tensor, share: Tensor) -> Tensor:
    """Signs of the coordinates of g in its largest `share`, with l1 norm 1 per row; 0 where g is 0."""
    size = g.abs().reshape(len(g), -1)
    at = ((1 - share) * size.shape[1]).long().clamp(0, max(size.shape[1] - 1, 0))
    level = size.sort(1).values.gather(1, at[:, None])
    signs = (g.reshape(len(g), -1).sign() * (size >= level)).view(g.shape)
    return signs / rowwise(vector_norm(signs, 1).clamp_min(1e-10), g)


@dataclass(frozen=True)
class _ValueOnly:
    """A payoff that settles nothing: what counts as an answer in a smaller ball is not one in a larger."""

    f: Any

    def __call__(self, y: Tensor) -> Tensor:
        out = self.f(y)
        return out[0] if isinstance(out, tuple) else out

    def with_gradient(self, y: Tensor) -> tuple[Tensor, None, Tensor]:
        value, _, g = look(self.f, y, True)
        return value, None, g

    def rows(self, index: Tensor) -> _ValueOnly:
        return _ValueOnly(self.f.rows(index))


@dataclass(frozen=True)
class ShrinkingBalls(PerRow):
    """Auto-PGD in balls 3, 2 and 1 times as large, with 30, 30 and 40 % of the steps.

    Each run starts at the best point of the one before, projected; only the last one can settle a row. This is
    how the ensemble of reference uses Auto-PGD in l1, where a small ball is hard to move in.

    Args:
        ascent: the run in the ball itself, with all the steps; its step is the radius.

    Reference: Croce and Hein, "Mind the box", ICML 2021, §4.
    """

    ascent: AdaptiveAscent

    def fanned(self, fan: int) -> ShrinkingBalls:
        """The same with `fan` rows per example."""
        return replace(self, ascent=self.ascent.fanned(fan))

    def __call__(self, f: Payoff, y0: Tensor, Y: Set, generator: Streams | None = None) -> Maximum:
        """Maximise f over Y."""
        if not isinstance(Y, Intersection):
            Y = Intersection(Y, Box(-math.inf, math.inf))
        third, cost, start = math.ceil(0.3 * self.ascent.steps), Cost(), self.ascent.start
        for factor in (3, 2):
            ball = grown(Y.ball, factor * torch.as_tensor(Y.ball.value))
            run = replace(
                self.ascent, steps=third, step=factor * self.ascent.step, start=start, keep="value", stop=False
            )
            found = run(_ValueOnly(f), y0, Intersection(ball, Y.box), generator)
            y0, cost, start = found.y, cost + found.cost, "given"
        last = replace(self.ascent, steps=max(self.ascent.steps - 2 * third, 1), start="given")
        found = last(f, y0, Y, generator)
        return replace(found, cost=cost + found.cost)
