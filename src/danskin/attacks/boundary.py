"""The boundary attack, and what decision-based attacks share: where they begin, and how they get to the boundary."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from danskin.attacks.closest import Closest, ClosestAttack
from danskin.errors import InputError
from danskin.minmax import Streams
from danskin.minmax.search import mask
from danskin.minmax.sets import rowwise, vector_norm


@dataclass(frozen=True)
class DecisionAttack(ClosestAttack):
    """A search that asks the model for nothing but its decision, so many times for each example and no more.

    It begins at the first of these that is adversarial: the examples in `starts` (nearest first), then uniform noise
    in the box blended with the clean input at 1, 3/4, 1/2 and 1/4, `tries` times; without a box, uniform noise
    in the cube in which the ball's radius is met on average. An example for which none is comes back clean.

    Args:
        queries: decisions asked for per example, >= 1; the one that judges the outcome is on top.
        tries: noises tried per example.
        starts: (m, ...) inputs tried first, such as images of other classes; what a targeted attack needs, as
            noise is rarely taken for the target.
    """

    labels_only: ClassVar[bool] = True
    limits: ClassVar[dict[str, tuple[float, float]]] = {"queries": (1, math.inf), "tries": (0, math.inf)}

    queries: int = 10_000
    tries: int = field(default=50, kw_only=True)
    starts: Tensor | None = field(default=None, kw_only=True, repr=False, compare=False)

    def first(self, closest: Closest) -> Tensor | None:
        """An adversarial shift for each row that stays in work; rows without one are dropped."""
        closest.look(closest.start)
        if closest.compact() is None:
            return None
        delta, found = closest.start, torch.zeros_like(closest.done)
        ranked = self._ranked(closest.f.x)
        pool = 0 if ranked is None else ranked.shape[1]
        for k in range(pool + self.tries):
            rows = (~found & ~closest.done & self.affords(closest, 1)).nonzero().squeeze(1)
            if not len(rows):
                break
            if ranked is not None and self.starts is not None and k < pool:
                x = closest.f.x[rows]
                shift = self.starts.to(x)[ranked[rows, k]] - x
            else:
                shift = self._noise(closest, rows, k - pool)
            shift = _boxed(closest, shift, rows)
            hit = closest.look(shift, rows=rows)[1]
            delta[rows[hit]] = shift[hit]
            found[rows[hit]] = True
        closest.done |= ~found
        left = closest.compact(delta)
        return None if left is None else left[0]

    def affords(self, closest: Closest, n: int) -> Tensor:
        """(rows,) bool: whether n more queries are within the budget."""
        return closest.spent[closest.index] + n <= self.queries

    def _ranked(self, x: Tensor) -> Tensor | None:
        """(rows, m) the numbers of `starts`, nearest first."""
        if self.starts is None or not len(self.starts):
            return None
        if self.starts.shape[1:] != x.shape[1:]:
            raise InputError(
                f"{type(self).__name__}.starts: expected inputs of shape {tuple(x.shape[1:])}, got "
                f"{tuple(self.starts.shape[1:])}; pass examples like x"
            )
        far = [vector_norm(self.starts.to(x) - row, 2) for row in x]
        return torch.stack(far).argsort(dim=1, stable=True)

    def _noise(self, closest: Closest, rows: Tensor, k: int) -> Tensor:
        """A blended noise for some rows."""
        f, streams = closest.f, closest.streams.child(0).rows(rows)
        x = f.x[rows]
        unit = streams.child(k).uniform(x)
        if f.box is not None:
            return (1 - (k % 4) / 4) * (f.box[0] + (f.box[1] - f.box[0]) * unit - x)
        noise = 2 * unit - 1
        size = closest.ball.norm(torch.full_like(noise, 3**-0.5))
        return noise * rowwise((1 - (k % 4) / 4) * closest.radius[closest.index[rows]] / size, noise)


def normals(streams: Streams, like: Tensor) -> Tensor:
    """Standard normal, in the shape of `like` (rows, an even number, ...), from as many uniforms (Box and Muller)."""
    first, second = streams.uniform(like).chunk(2, dim=1)
    size, angle = (-2 * first.log()).sqrt_(), 2 * math.pi * second
    return torch.cat([size * angle.cos(), size * angle.sin()], 1)


def to_boundary(closest: Closest, delta: Tensor, rows: Tensor, halvings: int) -> Tensor:
    """The adversarial end of a bisection from 0 to the adversarial `delta` of these rows."""
    low, high = torch.zeros_like(closest.radius[rows]), torch.ones_like(closest.radius[rows])
    for _ in range(halvings if len(rows) else 0):
        middle = 0.5 * (low + high)
        hit = closest.look(closest.blend(delta, middle), rows=rows)[1]
        low, high = torch.where(hit, low, middle), torch.where(hit, middle, high)
    return closest.blend(delta, high)


def _boxed(closest: Closest, delta: Tensor, rows: Tensor) -> Tensor:
    """`delta` of some rows, clipped to the box."""
    if closest.low is None or closest.high is None:
        return delta
    return delta.clamp(closest.low[rows], closest.high[rows])


@dataclass(frozen=True)
class Boundary(DecisionAttack):
    r"""A random walk along the decision boundary towards the clean input, judged by the decision alone.

    From an adversarial x + delta at distance n = \|delta\|_2, each query goes to a random point at about the same
    distance, and from there a little towards the clean input:

        s = n (delta / n + a e) / sqrt(1 + a^2),   e normal, orthogonal to delta, l2 norm 1
        delta' = clip(s (1 - b))

    and the walk moves there if it is adversarial and nearer. Every `every`-th step s is asked about too. Where
    more than half of the last `window` of these were adversarial, a and b grow by `adapt`, under a fifth they
    shrink; where more than a quarter of the last `window` moves succeeded b grows, under a tenth it shrinks. A row
    whose b falls under 1e-7 has converged.

    Args:
        ball: `L2`.
        queries: decisions asked for per example.
        around: a at the start, > 0.
        toward: b at the start, > 0.
        adapt: > 1.
        window: outcomes over which success is measured.
        every: steps from one question about s to the next.
        stop: leave an example at the first adversarial point inside the ball.

    Prefer `HopSkipJump`: it needs far fewer queries.

    Reference: Brendel, Rauber and Bethge, ICLR 2018; a and b as in their code.
    """

    moves: ClassVar[str] = "random walk along the boundary, decisions only"
    norms: ClassVar[tuple[float, ...]] = (2,)
    limits: ClassVar[dict[str, tuple[float, float]]] = DecisionAttack.limits | {
        "around": (1e-12, math.inf), "toward": (1e-12, 1), "adapt": (1 + 1e-6, math.inf), "window": (1, math.inf),
        "every": (1, math.inf),
    }  # fmt: skip

    around: float = 1e-2
    toward: float = 1e-2
    adapt: float = 1.5
    window: int = 30
    every: int = 10

    def search(self, closest: Closest) -> None:
        """Walk."""
        delta = self.first(closest)
        if delta is None:
            return
        halvings = min(10, self.queries)
        closest.done |= ~self.affords(closest, halvings)
        left = closest.compact(delta)
        if left is None:
            return
        (delta,) = left
        delta = to_boundary(closest, delta, torch.arange(len(delta), device=delta.device), halvings)
        a = torch.full_like(closest.radius[closest.index], self.around)
        b = torch.full_like(a, self.toward)
        around, moved = torch.zeros_like(a), torch.zeros_like(a)  # how many of the last were adversarial
        e, k = delta[:, :0], 0
        while True:
            ask = k % self.every == 0
            closest.done |= ~self.affords(closest, 1 + ask) | (b < 1e-7)
            left = closest.compact(delta, a, b, around, moved, e)
            if left is None:
                return
            delta, a, b, around, moved, e = left
            if k % 2 == 0:
                e = normals(closest.streams.child(1).child(k), delta.new_empty(len(delta), 2, *delta.shape[1:]))
            size = vector_norm(delta, 2)
            s, move = self._proposal(closest, delta, size, a, b, e[:, k % 2])
            if ask:
                around += closest.look(s)[1]
            hit = closest.look(move)[1] & (vector_norm(move, 2) < size)
            delta = torch.where(mask(hit, delta), move, delta)
            moved += hit
            k += 1
            if k % (self.every * self.window) == 0:
                factor = self._factor(around, 0.5, 0.2)
                a, b, around = a * factor, b * factor, torch.zeros_like(a)
            if k % self.window == 0:
                b, moved = b * self._factor(moved, 0.25, 0.1), torch.zeros_like(a)

    def _proposal(
        self, closest: Closest, delta: Tensor, size: Tensor, a: Tensor, b: Tensor, e: Tensor
    ) -> tuple[Tensor, Tensor]:
        """s, and the point a little nearer, from the random direction e."""
        flat = delta.reshape(len(delta), -1)
        toward = flat / size[:, None]
        e = e.reshape(flat.shape)
        e = e - (e * toward).sum(1, keepdim=True) * toward
        e = e * (a / vector_norm(e, 2).clamp_min(1e-30))[:, None]
        s = ((toward + e) * (size / (1 + a * a).sqrt())[:, None]).view(delta.shape)
        s = closest.boxed(s)
        # the way that is left after s, cut at the box, is shortened to (1 - b) of the distance before
        shorter = size * (1 - b) / vector_norm(s, 2).clamp_min(1e-30)
        return s, s * rowwise(shorter.clamp_max(1), s)

    def _factor(self, hits: Tensor, many: float, few: float) -> Tensor:
        """By what a length is multiplied after so many hits in a window."""
        rate = hits / self.window
        return torch.where(rate > many, self.adapt, torch.where(rate < few, 1 / self.adapt, 1.0))
