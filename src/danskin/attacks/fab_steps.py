"""What FAB does on the conveyor: steps to linearised boundaries, and the pull back at the end."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from danskin.attacks.bounds import Ball
from danskin.attacks.payoff import ShiftPayoff
from danskin.errors import InputError
from danskin.minmax import Box, Intersection, Maximum, Set, Streams
from danskin.minmax.conveyor import Belt, State, convey
from danskin.minmax.hyperplane import hyperplane_step
from danskin.minmax.intersection import ball_of
from danskin.minmax.rows import PerRow, numbers
from danskin.minmax.search import Payoff, mask
from danskin.minmax.sets import rowwise


@dataclass(frozen=True, eq=False)
class Nearest:
    r"""The payoff linearised at its nearest boundary: the class with the least |F_j| / \|grad F_j\|_q.

    One forward pass, and a backward pass for each boundary.

    Args:
        base: the payoff of an attack.
        ball: in whose norm boundaries are near.
    """

    base: ShiftPayoff
    ball: Ball

    def __call__(self, delta: Tensor) -> tuple[Tensor, Tensor]:
        """(lead of the nearest wrong class, adversarial) at x + delta."""
        logits, hit = self.base.look(self.base.shifted(delta))
        return self.base.goal.lead(logits), hit

    def with_gradient(self, delta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(F_j, adversarial, gradient of F_j) at x + delta for the nearest boundary j."""
        with torch.no_grad():
            point = self.base.shifted(delta)
        tally, asked = self.base.asking.tally, self.base.asking.tally.forwards
        logits, hit = self.base.look(point.requires_grad_())
        gaps = self.base.goal.gaps(logits)
        last = gaps.shape[1] - 1
        value, slope, far = gaps[:, 0].detach(), None, None
        for j in range(last + 1):
            g = self.base.asking.gradient(gaps[:, j], point, retain=j < last)
            distance = gaps[:, j].detach().abs() / (self.ball.dual_norm(g) + 1e-12)
            if slope is None or far is None:
                slope, far = g, distance
                continue
            nearer = distance < far
            far, value = torch.where(nearer, distance, far), torch.where(nearer, gaps[:, j].detach(), value)
            slope = torch.where(mask(nearer, g), g, slope)
        tally.backwards += last * (len(point) + tally.forwards - asked)  # some of them twice
        return value, hit, slope if slope is not None else torch.zeros_like(point)

    def rows(self, index: Tensor) -> Nearest:
        """The payoff of some examples."""
        return Nearest(self.base.rows(index), self.ball.rows(index))


def _payoff_of(f: Any) -> ShiftPayoff:
    payoff: ShiftPayoff = f.base if isinstance(f, Nearest) else f
    return payoff


def _as_seen(f: Any, delta: Tensor) -> Tensor:
    """The shift whose point the model sees: within the box, in the dtype of the inputs."""
    payoff = _payoff_of(f)
    return payoff.seen(delta) - payoff.x


def _look(belt: Belt, y: Tensor, *, gradient: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(y as the model sees it, F, adversarial, gradient of F), the point recorded by its distance.

    About half of all points are adversarial, and few of them are the closest so far: where the search sees a cheaper
    form of the model, the plain one is asked about those only, and only where they are nearly in the ball: further out
    they decide nothing, and a closer one takes their place. The others lead on as the cheaper form has it.
    """
    y, ball, payoff = _as_seen(belt.f, y), ball_of(belt.Y), _payoff_of(belt.f)
    value, hit, slope = belt.look(y, gradient=gradient)
    if hit is None:
        raise InputError("FAB: expected the payoff of an attack, got another function; call the attack")
    norm = ball.norm(y)
    held = belt.value[belt.examples].repeat_interleave(belt.fan)
    closer = hit & (-norm > held)
    sure = payoff.confirmed(payoff.shifted(y), closer)
    # what is NaN is recorded too, and found by whoever judges it
    rank = torch.where(sure | value.isnan(), -norm, -math.inf)
    belt.record(y, rank, sure & (ball.violation(y) == 0))
    return y, value, hit & (sure | ~closer), slope


def _away(ball: Any, like: Tensor, radius: Tensor, streams: Streams | None) -> Tensor:
    """Shifts of half this norm (rows,) in random directions."""
    if streams is None:
        raise InputError("FAB: expected streams for fresh starts, got None; pass Streams")
    t = 2 * streams.uniform(like) - 1 if ball.order == math.inf else streams.normal(like)
    return t * rowwise(0.5 * radius / ball.norm(t).clamp_min(1e-30), t)


@dataclass(frozen=True)
class BoundarySteps(PerRow):
    """One run of FAB; what it maximises is -norm(delta) over the adversarial shifts of the box.

    A row's state is its step k and its shift y. The payoff gives F and its gradient at y; a point is settled where it
    is adversarial inside the ball. For the hyperparameters see `danskin.attacks.fab.FAB`.
    """

    steps: int
    alpha_max: float
    eta: float
    beta: float
    stop: bool
    width: int | None
    patience: int | None
    random: bool = False
    fan: int = 1

    def fanned(self, fan: int) -> BoundarySteps:
        """The same run with `fan` rows per example."""
        return replace(self, fan=fan)

    def __call__(self, f: Payoff, y0: Tensor, Y: Set, generator: Streams | None = None) -> Maximum:
        """The closest adversarial points."""
        return convey(self, f, y0, Y, generator, width=self.width, stop=self.stop, fan=self.fan)

    def begin(self, y0: Tensor, Y: Set, streams: Streams | None, rows: Tensor) -> State:
        """At the clean input, or half a radius away from it in a random direction."""
        y, ball = y0, ball_of(Y)
        if self.random:
            y = y0 + _away(ball, y0, numbers(ball.value, y0), streams)
        none = torch.zeros(len(y), dtype=torch.int64, device=y.device)
        return {"k": none, "y": y, "near": y.new_full((len(y),), math.inf), "stale": none}

    def advance(self, belt: Belt, state: State) -> tuple[State, Tensor]:
        """Linearise, step over the boundary, and from a point beyond it back towards the clean input."""
        k, ball = state["k"], ball_of(belt.Y)
        at, gap, hit_at, w = _look(belt, state["y"], gradient=True)
        ahead, _, hit, _ = _look(belt, self._step(belt.Y, at, gap, w), gradient=False)
        near = torch.minimum(torch.where(hit_at, ball.norm(at), math.inf), torch.where(hit, ball.norm(ahead), math.inf))
        stale = torch.where(near < 0.999 * state["near"], 0, state["stale"] + 1)
        # a step that leads nowhere has no gradient, and none will come
        stuck = ~((ahead != at).reshape(len(at), -1).any(1) | hit)
        home = (belt.value[belt.examples] == 0).repeat_interleave(self.fan)  # the clean input itself is adversarial
        new = {
            "k": k + 1,
            "y": torch.where(mask(hit, ahead), self.beta * ahead, ahead),
            "near": torch.minimum(near, state["near"]),
            "stale": stale,
        }
        if self.patience is None:
            return new, (k + 1 >= self.steps) | stuck | home
        return self._anew(belt, new, stuck | (stale >= self.patience)), (k + 1 >= self.steps) | home

    def _anew(self, belt: Belt, state: State, rows: Tensor) -> State:
        """These rows start again away from the clean input, and not further than half the way to what is known."""
        if not bool(rows.any()):
            return state
        ball, y = ball_of(belt.Y), state["y"]
        known = (-belt.value[belt.examples]).repeat_interleave(self.fan)
        radius = torch.minimum(numbers(ball.value, y), known)
        streams = None if belt.streams is None else belt.streams.child(state["k"])
        return {
            "k": state["k"],
            "y": torch.where(mask(rows, y), _away(ball, y, radius, streams), y),
            "near": torch.where(rows, math.inf, state["near"]),
            "stale": torch.where(rows, 0, state["stale"]),
        }

    def _step(self, Y: Set, y: Tensor, gap: Tensor, w: Tensor) -> Tensor:
        r"""(1 - a) (y + eta d1) + a eta d2, with d1, d2 the ways from y and from 0 to the linearised boundary."""
        ball, n = ball_of(Y), len(y)
        low, high = _box_of(Y).bounds(y)
        wide = torch.float32 if y.device.type == "mps" else torch.float64
        reached = (w * y).reshape(n, -1).sum(1, dtype=wide)
        rise = torch.cat([-gap, (reached - gap).to(y.dtype)])
        down, up = torch.cat([y - low, -low.expand_as(y)]), torch.cat([high - y, high.expand_as(y)])
        d = hyperplane_step(rise, w, down, up, ball.order)
        far = ball.norm(d[:n]).clamp_min(1e-8), ball.norm(d[n:]).clamp_min(1e-8)
        a = rowwise((far[0] / (far[0] + far[1])).clamp_max(self.alpha_max), y)
        ahead = (1 - a) * (y + self.eta * d[:n]) + a * self.eta * d[n:]
        return ahead.clamp(low, high)


def _box_of(Y: Set) -> Box:
    return Y.box if isinstance(Y, Intersection) else Box(-math.inf, math.inf)


@dataclass(frozen=True)
class PullBack:
    """The point of the way from 0 to an adversarial shift where it becomes adversarial, by the secant rule.

    A share of the way is that share of the shift; in l_inf, the shift cut off at that share of its norm. The lead F of
    the wrong class is looked at there, at a share `beta`, and then where the line through its values at the nearest
    points on both sides is 0, a hundredth of the way further on; a side that stays for two looks counts half (Illinois
    rule). The nearest adversarial point is kept.

    Args:
        looks: forward passes.
        beta: in (0, 1).
        stop: leave an example whose point has come into the ball.
        width: rows at a time.
    """

    looks: int
    beta: float
    stop: bool
    width: int | None

    def __call__(self, f: Payoff, y0: Tensor, Y: Set, generator: Streams | None = None) -> Maximum:
        """The nearest points on the ways to y0."""
        return convey(self, f, y0, Y, generator, width=self.width, stop=self.stop)

    def begin(self, y0: Tensor, Y: Set, streams: Streams | None, rows: Tensor) -> State:
        """The whole way."""
        none, all_ = y0.new_zeros(len(y0)), y0.new_ones(len(y0))
        ends = {"low": none, "high": all_, "below": -all_, "above": all_, "share": all_}
        return ends | {"k": rows * 0, "whole": y0, "last": rows < 0}

    def advance(self, belt: Belt, state: State) -> tuple[State, Tensor]:
        """One look."""
        k, low, high, below, above, share = (state[key] for key in ("k", "low", "high", "below", "above", "share"))
        whole, ball = state["whole"], ball_of(belt.Y)
        if ball.order == math.inf:  # the coordinates that are nearer can stay
            most = rowwise(share * ball.norm(whole), whole)
            part = torch.minimum(torch.maximum(whole, -most), most)
        else:
            part = rowwise(share, whole) * whole
        _, value, hit, _ = _look(belt, part, gradient=False)
        hit |= k == 0  # it was found adversarial; should rounding say no here, nothing is lost
        again = (hit == state["last"]) & (k > 1)
        below = torch.where(hit, torch.where(again, below / 2, below), value.clamp_max(0))
        above = torch.where(hit, value.clamp_min(0), torch.where(again, above / 2, above))
        low, high = torch.where(hit, low, share), torch.where(hit, share, high)
        root = low + (high - low) * below / (below - above).clamp_max(-1e-30)
        share = torch.where(low > 0, root + 0.01 * (high - root), self.beta * high)
        ends = {"low": low, "high": high, "below": below, "above": above, "share": share}
        return ends | {"k": k + 1, "whole": whole, "last": hit}, k + 1 >= self.looks
