"""The closest adversarial point: what the minimum-norm and the decision-based attacks share.

They solve min over delta of norm(delta) with x + delta in the box and misclassified (or classified as the target).
The norm is that of the ball; an example counts as broken where the closest point found lies in the ball.
"""

from __future__ import annotations

import math
import time
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import ClassVar, cast

import torch
from torch import Tensor

from danskin.attacks.attack import Attack
from danskin.attacks.bounds import Ball
from danskin.attacks.payoff import ShiftPayoff
from danskin.errors import InputError
from danskin.losses import usable
from danskin.minmax import Cost, Intersection, Maximizer, Maximum, Set, Status, Streams, Template
from danskin.minmax.balls import balls_named
from danskin.minmax.intersection import order_of
from danskin.minmax.measured import radius_of
from danskin.minmax.rows import numbers
from danskin.minmax.search import Payoff, mask
from danskin.minmax.sets import rowwise, vector_norm


def annealed(k: int, steps: int, first: float, last: float) -> float:
    """From `first` at k = 0 to `last` at k = steps along half a cosine."""
    return last + (first - last) * 0.5 * (1 + math.cos(math.pi * k / steps))


class Closest:
    """The book-keeping of one search: evaluates points, counts, keeps the closest adversarial one, drops rows.

    A point inside the ball beats one outside; among equals the smaller `rank` wins, which is the ball's norm unless
    the attack says otherwise. Which rows share a batch never changes what is found for a row.

    Args:
        f: the payoff of all examples.
        y0: (batch, ...) zeros: the shift at which every search begins.
        Y: the ball, or ball and box.
        streams: random numbers, or None for attacks without.
        stop: a row is done at the first adversarial point inside the ball.
        labels_only: the outcome is left to be judged; of the model only its decision is used.

    Attributes:
        f: the payoff of the rows still in work, like `Y`, `low` and `high` (None without a box).
        index: (rows,) their places in the batch.
        done: (rows,) bool, set where a row shall leave at the next `compact`.
        distance: (batch,) norm of the closest point so far, inf before there is one.
        spent: (batch,) int64 forward passes.
        least: the lead that counts as adversarial, where more than a bare success is wanted.
        rank: shifts -> (rows,), what is minimised; None for the ball's norm.
    """

    def __init__(
        self, f: ShiftPayoff, y0: Tensor, Y: Set, streams: Streams | None, *, stop: bool, labels_only: bool
    ) -> None:
        self._all, self.stop, self.labels_only = (f, Y), stop, labels_only
        self._streams, self._began = streams, time.perf_counter()
        self.ball = cast(Ball, Y.ball if isinstance(Y, Intersection) else Y)
        n, device = len(y0), y0.device
        self.best = torch.zeros_like(y0)
        self._logits: Tensor | None = None
        self._flat: Tensor | None = None
        self.distance = torch.full((n,), math.inf, dtype=y0.dtype, device=device)
        self._ranks = self.distance.clone()
        self.radius = numbers(radius_of(self.ball), y0)
        self.spent = torch.zeros(n, dtype=torch.int64, device=device)
        self.least = 0.0
        self.rank: Callable[[Tensor], Tensor] | None = None
        self.cost = Cost()
        self.index = torch.arange(n, device=device)
        self._seat(self.index)

    @property
    def streams(self) -> Streams:
        """The random numbers of the rows in work."""
        if self._streams is None:
            raise InputError("generator: expected Streams for an attack that draws, got None; pass Streams")
        return self._streams.rows(self.index)

    @property
    def start(self) -> Tensor:
        """Zeros for the rows in work."""
        return torch.zeros_like(self.f.x)

    def _seat(self, index: Tensor) -> None:
        """Put these rows of the batch to work."""
        f, Y = self._all
        whole = len(index) == len(self.best)
        self.index, self.f, self.Y = index, f if whole else f.rows(index), Y if whole else Y.rows(index)
        self.done = torch.zeros(len(index), dtype=torch.bool, device=index.device)
        self.low = self.high = None
        if isinstance(self.Y, Intersection):
            self.low, self.high = self.Y.box.bounds(self.f.x)

    def boxed(self, delta: Tensor) -> Tensor:
        """`delta` clipped so that x + delta is in the box."""
        return delta if self.low is None else delta.clamp(self.low, self.high)

    def largest(self) -> Tensor:
        """(rows,) the norm of the largest shift in the box; a very large number without one."""
        if self.low is None or self.high is None:
            return torch.full_like(self.distance[self.index], 1e30)
        return self.ball.norm(torch.maximum(-self.low, self.high))

    def look(
        self, delta: Tensor, *, gradient: bool = False, rows: Tensor | None = None, keep: bool = True
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(logits, adversarial, point) at shifts of the rows in work: one forward pass, recorded.

        Args:
            delta: one shift per row, within the box.
            gradient: the logits carry the graph down to `point`, for `slope`.
            rows: positions of the rows the shifts belong to (repeats allowed); default: each row once.
            keep: remember the adversarial ones if they are closer.
        """
        f = self.f if rows is None else self.f.rows(rows)
        with torch.no_grad():
            point = f.seen(delta)
        with torch.set_grad_enabled(gradient):
            logits = f.logits(point.requires_grad_(gradient))
        seen = logits.detach()
        hit = f.confirmed(point, f.goal.adversarial(seen)) & usable(seen)
        if self.least > 0:
            hit &= f.goal.lead(seen) >= self.least
        self.cost += Cost(len(delta), 0, 1)
        places = self.index if rows is None else self.index[rows]
        self.spent.index_add_(0, places, torch.ones_like(places))
        if self._logits is None:  # the first look is at the clean inputs
            self._logits = seen.clone()
        if keep:
            self._record(delta, hit, seen, places, rows)
        return logits, hit, point

    def _record(self, delta: Tensor, hit: Tensor, logits: Tensor, places: Tensor, rows: Tensor | None) -> None:
        at = hit.nonzero().squeeze(1)
        if not len(at):
            return
        places, shift = places[at], delta[at]
        distance = self.ball.norm(shift)
        rank = distance if self.rank is None else self.rank(shift)
        inside, was_inside = distance <= self.radius[places], self.distance[places] <= self.radius[places]
        better = torch.where(inside == was_inside, rank < self._ranks[places], inside).nonzero().squeeze(1)
        if not len(better):
            return
        at, places = at[better], places[better]
        self.best[places], self.distance[places], self._ranks[places] = shift[better], distance[better], rank[better]
        if self._logits is not None and not self.labels_only:
            self._logits[places] = logits[at]
        over = distance[better] == 0
        self.done[at if rows is None else rows[at]] |= (over | inside[better]) if self.stop else over

    def slope(self, value: Tensor, point: Tensor, *, retain: bool = False) -> Tensor:
        """The gradient of the values (rows,) at the point of a `look`, counted; it may be overwritten.

        `retain` keeps the graph for more.
        """
        self.cost += Cost(0, len(point), 0)
        g = self.f.asking.gradient(value, point, retain=retain)
        if g.stride() != point.stride():  # an expanded gradient cannot be written to
            g = torch.empty_like(point).copy_(g)
        if self._flat is None:
            self._flat = ~g.reshape(len(g), -1).any(1) & ~self.done
        return g

    def unit(self, g: Tensor, k: int) -> Tensor:
        """G with l2 norm 1 per row, in its memory; a random direction where g is 0 (saturated), drawn for step k."""
        size = vector_norm(g, 2)
        least, most = size.aminmax()
        if not bool((least > 0) & (most < math.inf)):
            usable = (size > 0) & (size < math.inf)
            g = torch.where(mask(usable, g), g, self.streams.child(k).normal(g))
            size = vector_norm(g, 2)
        return g.div_(rowwise(size, g))

    def compact(self, *state: Tensor) -> tuple[Tensor, ...] | None:
        """`state` without the rows that are done; None when none is left."""
        if not bool(self.done.any()):
            return state
        keep = (~self.done).nonzero().squeeze(1)
        self._seat(self.index[keep])
        return tuple(s[keep] for s in state) if len(keep) else None

    def blend(self, delta: Tensor, share: Tensor) -> Tensor:
        """The point a `share` (rows,) of the way from 0 to delta; in l_inf delta clipped to that share of its norm."""
        if order_of(self.ball) == math.inf:
            most = rowwise(share * self.ball.norm(delta), delta)
            return torch.minimum(torch.maximum(delta, -most), most)
        return delta * rowwise(share, delta)

    def refine(self, times: int) -> None:
        """Pull the closest points towards the clean inputs while they stay adversarial: `times` forward passes.

        The share of the way falls by 1/16 until a point is not adversarial, then by bisection.
        """
        open_ = self.distance.isfinite() & (self.distance > 0)
        if self.stop:
            open_ &= self.distance > self.radius
        rows = open_.nonzero().squeeze(1)
        if times < 1 or not len(rows):
            return
        self._seat(rows)
        delta = self.best[rows]
        low, high = torch.zeros_like(self.distance[rows]), torch.ones_like(self.distance[rows])
        for _ in range(times):
            share = torch.where(low > 0, 0.5 * (low + high), high * (15 / 16))
            _, hit, _ = self.look(self.blend(delta, share))
            left = self.compact(delta, torch.where(hit, low, share), torch.where(hit, share, high))
            if left is None:
                return
            delta, low, high = left

    def result(self) -> Maximum:
        """The closest point where it is in the ball; elsewhere it is projected (and evaluated), or the clean input."""
        f, Y = self._all
        inside = self.distance <= self.radius
        outside = self.distance.isfinite() & ~inside
        y = torch.where(mask(outside, self.best), Y.project(self.best), self.best)
        status = Status.DONE
        if self._flat is not None and bool(self._flat.any()):
            status = Status.ZERO_GRADIENT
        if self.stop and bool(inside.all()):
            status = Status.SETTLED
        if self.labels_only or self._logits is None:
            return Maximum(y, None, None, self._total(), status)
        rows = outside.nonzero().squeeze(1)
        if len(rows):
            self._seat(rows)
            logits, _, _ = self.look(y[rows], keep=False)
            self._logits[rows] = logits
        value, settled = f.goal.value(self._logits), f.goal.adversarial(self._logits)
        return Maximum(y, value.to(y.dtype), settled, self._total(), status)

    def _total(self) -> Cost:
        return replace(self.cost, seconds=time.perf_counter() - self._began)


@dataclass(frozen=True)
class ClosestAttack(Attack):
    """min over delta of norm(delta), subject to x + delta adversarial and in the box, per example.

    The ball says which norm is meant, and the largest perturbation that counts as a success: `CarliniWagner(L2(0.5))`
    asks whether an example can be broken within 0.5. Minimal norms come from a large ball:
    ``attack(model, x, y).delta`` with ``L2(10)``, say, holds the closest adversarial perturbation found where
    ``success``, and `ball.norm` measures it. Where the closest point is outside the ball, the outcome is that point
    projected on ball and box; where none was found, the clean input.

    Args:
        stop: leave an example as soon as an adversarial point inside the ball is found (what an evaluation
            needs); else go on to the closest.
    """

    template: ClassVar[Template] = Template("fixed", "input shift", "adversarial points of the box", "- norm")
    #: The p of the l_p balls whose norm the attack can measure.
    norms: ClassVar[tuple[float, ...]] = ()
    #: The smallest and largest value of hyperparameters.
    limits: ClassVar[dict[str, tuple[float, float]]] = {}
    #: Of the model only its decision is used.
    labels_only: ClassVar[bool] = False

    stop: bool = field(default=False, kw_only=True)

    def objection(self, x: Tensor) -> str:
        """A ball of another norm."""
        if order_of(self.ball) in self.norms:
            return super().objection(x)
        return f"{type(self).__name__} measures no distances but those of {balls_named(self.norms)}"

    @abstractmethod
    def search(self, closest: Closest) -> None:
        """Look at points; `closest` keeps the best."""

    def maximizer(self) -> Maximizer:
        """The search for the closest point.

        Raises:
            InputError: a norm this attack has not, a hyperparameter out of range, or several draws per look.
        """
        name = type(self).__name__
        if order_of(self.ball) not in self.norms:
            raise InputError(
                f"{name}.ball: expected {balls_named(self.norms)}, got {self.ball}; this attack measures no other norm"
            )
        if self.draws != 1:
            raise InputError(
                f"{name}.draws: expected 1, got {self.draws}; the closest point of a random model is not defined: "
                "use PGD or APGD"
            )
        for key, (least, most) in self.limits.items():
            value = getattr(self, key)
            if not least <= value <= most:
                wanted = f"at least {least:g}" if most == math.inf else f"a number from {least:g} to {most:g}"
                raise InputError(f"{name}.{key}: expected {wanted}, got {value}; leave it out for the default")
        return _Run(self)


@dataclass(frozen=True)
class _Run:
    """The maximiser of one attack."""

    attack: ClosestAttack

    def __call__(self, f: Payoff, y0: Tensor, Y: Set, generator: Streams | None = None) -> Maximum:
        """Find the closest adversarial points from the clean inputs."""
        attack, payoff = self.attack, cast(ShiftPayoff, f)
        closest = Closest(payoff, y0, Y, generator, stop=attack.stop, labels_only=attack.labels_only)
        attack.search(closest)
        return closest.result()
