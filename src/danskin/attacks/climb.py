"""Random search, then ascent from where it ended: for models whose gradients mislead at the usual starts."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from torch import Tensor

from danskin.attacks.attack import Attack
from danskin.attacks.basin_hopping import BasinHopping
from danskin.attacks.square import Square
from danskin.errors import InputError
from danskin.losses import LossName
from danskin.minmax import Cost, Maximizer, Maximum, Set, Status, Streams
from danskin.minmax.adaptive import AdaptiveAscent
from danskin.minmax.conveyor import best_of_fan
from danskin.minmax.intersection import order_of
from danskin.minmax.rows import PerRow, rows_of
from danskin.minmax.search import Payoff, improves, look, mask


@dataclass(frozen=True)
class Chain(PerRow):
    """Maximisers one after the other, each from the best point of the one before; the best of all is kept."""

    links: tuple[Maximizer, ...]

    def __call__(self, f: Payoff, y0: Tensor, Y: Set, generator: Streams | None = None) -> Maximum:
        """Maximise f over Y."""
        found = self.links[0](f, y0, Y, generator)
        for link in self.links[1:]:
            found = _better(found, link, f, found.y, Y, generator, None)
        return found


def _better(
    best: Maximum, more: Maximizer, f: Payoff, y0: Tensor, Y: Set, streams: Streams | None, rows: Tensor | None
) -> Maximum:
    """The better of what is known and what `more` finds on `rows` (default: those not settled)."""
    if best.value is None or best.settled is None or not hasattr(f, "rows"):
        raise InputError("chain: expected maximisers that keep values, and a payoff with rows(index); use an attack's")
    at = (~best.settled if rows is None else rows & ~best.settled).nonzero().squeeze(1)
    if not len(at):
        return best
    found = rows_of(more, at)(f.rows(at), y0[at], Y.rows(at), None if streams is None else streams.rows(at))
    if found.value is None or found.settled is None:
        raise InputError("chain: expected maximisers that keep values, got one that does not; use keep='best'")
    wins = improves(found.value, found.settled, best.value[at], best.settled[at], "best", False)
    y = best.y.index_copy(0, at, torch.where(mask(wins, found.y), found.y, best.y[at]))
    value = best.value.index_copy(0, at, torch.where(wins, found.value, best.value[at]))
    settled = best.settled.index_copy(0, at, torch.where(wins, found.settled, best.settled[at]))
    return Maximum(y, value, settled, best.cost + found.cost, Status.DONE)


@dataclass(frozen=True)
class Abreast(PerRow):
    """Several independent runs of a maximiser, side by side as rows of one batch; the best one is kept for each row.

    Args:
        maximizer: one run; must keep values.
        n: runs.
        width: examples at a time; None for all at once. Each holds n rows of memory.
    """

    maximizer: Maximizer
    n: int
    width: int | None = None

    def __call__(self, f: Payoff, y0: Tensor, Y: Set, generator: Streams | None = None) -> Maximum:
        """Maximise f over Y, n times."""
        if generator is None or not hasattr(f, "rows"):
            raise InputError("Abreast: expected streams, and a payoff with rows(index); use an attack's")
        size = self.width or max(len(y0), 1)
        if len(y0) > size:
            pieces = torch.arange(len(y0), device=y0.device).split(size)
            return _joined([rows_of(self, at)(f.rows(at), y0[at], Y.rows(at), generator.rows(at)) for at in pieces])
        rows = torch.arange(len(y0), device=y0.device).repeat_interleave(self.n)
        copies = torch.arange(self.n, device=y0.device).repeat(len(y0))
        found = rows_of(self.maximizer, rows)(f.rows(rows), y0[rows], Y.rows(rows), generator.rows(rows).child(copies))
        if found.value is None or found.settled is None:
            raise InputError("Abreast: expected a maximiser that keeps values, got one that does not; use keep='best'")
        best = best_of_fan(found.value, found.settled, self.n)
        return replace(found, y=found.y[best], value=found.value[best], settled=found.settled[best])


def _joined(parts: list[Maximum]) -> Maximum:
    """One outcome of several groups of rows."""

    def together(name: str) -> Tensor:
        return torch.cat([getattr(part, name) for part in parts])

    cost = sum((part.cost for part in parts), Cost())
    return replace(parts[0], y=together("y"), value=together("value"), settled=together("settled"), cost=cost)


@dataclass(frozen=True)
class Wary(PerRow):
    """A usual run, a probe of another kind, and much more of it for the rows that this may still settle.

    With v0, v1 and v2 the values at the start, after the usual run and after the probe, a row that is settled where its
    value passes 0 gets more when what it lacks, -v2, is less than slack (v1 - v0) + (v2 - v1): a tenth, say, of
    what the usual run has gained, and as much again as the probe found beyond it. Where gradients tell the truth the
    last term is about 0, and only rows close to being settled get more.

    Args:
        usual: what should do if gradients tell the truth.
        probe: what does nearly as well if they do, and better if they do not.
        longer: the further work; None for none.
        slack: >= 0.
        onward: the further work begins at the best point so far, not where the others began.
    """

    usual: Maximizer
    probe: Maximizer
    longer: Maximizer | None
    slack: float
    onward: bool = False

    def __call__(self, f: Payoff, y0: Tensor, Y: Set, generator: Streams | None = None) -> Maximum:
        """Maximise f over Y."""
        if generator is None:
            raise InputError("Wary: expected streams, got None; pass Streams")
        first = self.usual(f, y0, Y, generator.child(0))
        both = _better(first, self.probe, f, y0, Y, generator.child(1), None)
        if self.longer is None or first.value is None or both.value is None:
            return both
        start, _, _ = look(f, y0, False)
        hopeful = -both.value < self.slack * (first.value - start) + (both.value - first.value)
        more = _better(both, self.longer, f, both.y if self.onward else y0, Y, generator.child(2), hopeful)
        return replace(more, cost=more.cost + Cost(len(y0), 0, 1))


@dataclass(frozen=True)
class SquareClimb(Attack):
    """A few queries of Square, then Auto-PGD on the margin from the best of them.

    Where gradients mislead (a step's width from the data, say, as in networks trained with large perturbations),
    ascent from the clean image or from random corners stays in the wrong basin; random search comes to another one in
    a few hundred queries, and gradients lead on from there. Each example is also attacked the usual way. An example
    that is close to the boundary after both, or that the climb has brought much closer than the usual way, gets more
    (`Wary` has the rule): `more` independent searches with their climbs, or `hops` of basin hopping by four chains, the
    first of which goes on from the best point so far. For images only: see `applies_to`.

    Args:
        ball: the perturbation ball.
        queries: of Square before the climb.
        steps: of Auto-PGD, from the usual start and from Square's.
        more: further searches for such examples; 0 for none.
        slack: how close is close: the share of the usual run's gain that is lacking.
        stop: leave an example as soon as it is adversarial.
        width: examples in the batch at a time.
        hops: hops for such examples in place of further searches (`danskin.attacks.BasinHopping`); 0 for none.

    Lecture: rows C6 and C8. Our own; measured in bench/results/evaluation.md.
    """

    moves: ClassVar[str] = "random squares, then projected ascent from the best"

    queries: int = 300
    steps: int = 50
    more: int = 8
    slack: float = 0.1
    stop: bool = False
    width: int | None = None
    hops: int = 0
    loss: LossName = field(default="margin", kw_only=True)

    @staticmethod
    def applies_to(x: Tensor) -> bool:
        """Whether these inputs are images, (batch, channels, height, width)."""
        return Square.applies_to(x)

    def maximizer(self) -> Maximizer:
        """The usual run, the climb, the longer climb."""
        value = self.radius
        usual = AdaptiveAscent(
            self.steps, value if order_of(self.ball) == 1 else 2 * value, stop=self.stop, width=self.width
        )
        near = replace(usual, start="given", step=value / 2)
        square = Square(self.ball, self.queries, stop=self.stop, width=self.width)
        climb = Chain((square.maximizer(), near))
        longer: Maximizer | None = Abreast(climb, self.more, self.width) if self.more else None
        if self.hops:
            hops = BasinHopping(self.ball, self.hops, chains=4, slack=math.inf, stop=self.stop, width=self.width)
            longer = hops.maximizer()
        return Wary(usual, climb, longer, self.slack, onward=self.hops > 0)
