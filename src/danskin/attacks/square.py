"""Square: random search with squares, for images, without gradients."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar, cast

import torch
from torch import Tensor

from danskin.attacks import square_patterns as patterns
from danskin.attacks.attack import Attack
from danskin.errors import InputError
from danskin.losses import LossName
from danskin.minmax import Intersection, Maximizer, Maximum, Restarts, Set, Streams
from danskin.minmax.conveyor import Belt, State, convey
from danskin.minmax.intersection import ball_of, order_of
from danskin.minmax.rows import numbers
from danskin.minmax.search import Keep, Payoff, mask
from danskin.minmax.sets import is_cube, rowwise

_L1_SLACK = 1e-6  # what rounding x + delta may add to an l1 norm over many pixels


@dataclass(frozen=True)
class SquareSearch:
    """One run of Square; see `Square`.

    A row's state is the number k of its next query, the shift y with the best value so far, and that value. Query 0
    is the clean image, query 1 the first pattern, from which the search goes on whatever its value.
    """

    queries: int
    p: float
    rescale: bool
    keep: Keep
    stop: bool
    width: int | None

    def __call__(self, f: Payoff, y0: Tensor, Y: Set, generator: Streams | None = None) -> Maximum:
        """Maximise f over Y."""
        return convey(self, f, y0, Y, generator, width=self.width, keep=self.keep, stop=self.stop)

    def begin(self, y0: Tensor, Y: Set, streams: Streams | None, rows: Tensor) -> State:
        """The state of rows that have just come."""
        if y0.ndim != 4:
            raise InputError(
                f"x: expected images (batch, channels, height, width), got shape {tuple(y0.shape)}; Square is for "
                "images only: leave it out, or reshape what has a height and a width"
            )
        if streams is None:
            raise InputError("Square: expected streams, got None; pass Streams")
        lowest = y0.new_full((len(y0),), -math.inf)
        return {"k": torch.zeros(len(y0), dtype=torch.int64, device=y0.device), "y": y0, "value": lowest}

    def advance(self, belt: Belt, state: State) -> tuple[State, Tensor]:
        """One query."""
        k, y = state["k"], state["y"]
        ahead = self._ahead(belt, y, k)
        value, _ = belt.evaluate(ahead, gradient=False)
        better = (value > state["value"]) | (k <= 1)
        new = {"k": k + 1, "y": torch.where(mask(better, y), ahead, y)}
        return new | {"value": torch.where(better, value, state["value"])}, k + 1 >= self.queries

    def _ahead(self, belt: Belt, y: Tensor, k: Tensor) -> Tensor:
        """The shift that each row's next query is spent on."""
        streams, early = cast(Streams, belt.streams).child(k), k <= 1
        some, most = torch.stack([early.any(), early.all()]).tolist()  # one look at the device
        ahead = y if most else self._proposal(belt.Y, y, (k - 2).clamp_min(0), streams)
        if some:
            first = torch.where(mask(k == 0, y), y, self._first(belt.Y, y, streams))
            ahead = torch.where(mask(early, y), first, ahead)
        return ahead

    def _first(self, Y: Any, y: Tensor, streams: Streams) -> Tensor:
        """Stripes, or an image laid with bumps."""
        if is_cube(Y):
            low, high = Y.bounds(y)
            return patterns.stripes(y, low, high, streams)
        order = order_of(Y)
        if order is None:  # the set's best point for stripes of signs
            one = torch.ones_like(y)
            return Y.lmo(patterns.stripes(y, -one, one, streams))
        norm = int(order)
        return _filled(Y, patterns.tiles(y, norm, streams), norm)

    def _proposal(self, Y: Any, y: Tensor, i: Tensor, streams: Streams) -> Tensor:
        """Y with a square changed."""
        cube, order = is_cube(Y), order_of(Y)
        many = patterns.sides(y.shape[2], y.shape[3], self.p, 1 if cube or order is None else 3)
        which = patterns.level(i, self.queries if self.rescale else None)
        if cube:
            low, high = Y.bounds(y)
            return patterns.square(y, low, high, many, which, streams)
        if order is None:  # a square of signs, a radius high, moved into the set
            radius = rowwise(numbers(ball_of(Y).value, y), y)
            return Y.project(patterns.square(y, -radius, radius, many, which, streams))
        norm, radius = int(order), numbers(ball_of(Y).value, y)
        return _filled(Y, patterns.swap(y, many, which, radius, norm, streams), norm)


def _filled(Y: Any, y: Tensor, norm: int) -> Tensor:
    """Y within the set with (nearly) all of the radius spent.

    In l2 scaled and clipped, twice, for clipping frees some of the radius (the exact maximum of <y, .> over the set
    costs more and found no more); in l1 scaled up where it is small, and projected.
    """
    ball = ball_of(Y)
    radius = numbers(ball.value, y)
    if norm == 1:
        up = (radius / ball.norm(y).clamp_min(1e-30)).clamp_min(1)
        return Y.project(y * mask(up, y)) * (1 - _L1_SLACK)
    for _ in range(2):
        y = y * mask(radius / ball.norm(y).clamp_min(1e-30), y)
        if isinstance(Y, Intersection):
            y = y.clamp(*Y.box.bounds(y))
    return y


@dataclass(frozen=True)
class Square(Attack):
    r"""Random search with squares that get smaller, for images; no gradient is ever asked for.

    In l_inf: vertical stripes at first; then a square at a random place in which each channel of delta is at its least
    or largest value. In l2 and l1: an image laid with bumps; then a window's share of the radius goes, with a bump, to
    another window. In another set: the best point of it for stripes of signs; then squares of signs a radius high, and
    the point of the set nearest to that. What raises the loss is kept. The sides of the squares are
    sqrt(p height width) at first, with p halved after 10, 50, 200, 500, 1000, 2000, 4000, 6000 and 8000 proposals.

    Places, signs and directions are drawn for each image by itself, and from its own stream: the outcome depends on
    no other image (the code of reference draws them once for the whole batch in l_inf, and never the last place).

    Args:
        ball: `Linf`, `L2` or `L1`.
        queries: forward passes per example, >= 1, and none beside them: the first of the clean image, the second
            of the first pattern.
        p: share of the image that a square covers at first, in (0, 1].
        rescale: stretch the schedule of p, made for 10,000 queries, to `queries`.
        restarts: runs from independent patterns; the best is kept per example.
        stop: leave an example as soon as it is adversarial: as many successes for fewer queries.
        keep: "best" (adversarial first, then by loss) or "value" (by loss alone).
        width: examples in the batch at a time; as some leave others come. Changes nothing but memory and time.

    Raises:
        InputError: inputs that are not (batch, channels, height, width); ask `applies_to` first.

    Reference: Andriushchenko, Croce, Flammarion and Hein, "Square attack", ECCV 2020, Algorithms 1 to 3; for l1 Croce
    and Hein, "Mind the box", ICML 2021, §5. Lecture: rows B4, C8.
    """

    moves: ClassVar[str] = "random squares, kept where they raise the loss"

    queries: int = 5000
    p: float = 0.8
    rescale: bool = False
    restarts: int = 1
    stop: bool = False
    keep: Keep = "best"
    width: int | None = None
    loss: LossName = field(default="margin", kw_only=True)

    @staticmethod
    def applies_to(x: Tensor) -> bool:
        """Whether these inputs are images, (batch, channels, height, width)."""
        return x.ndim == 4

    def maximizer(self) -> Maximizer:
        """Random search, from one first pattern or several."""
        if self.queries < 1 or self.restarts < 1:
            least = "queries" if self.queries < 1 else "restarts"
            raise InputError(f"Square.{least}: expected at least 1, got {getattr(self, least)}; leave it out")
        if not 0 < self.p <= 1:
            raise InputError(f"Square.p: expected a share in (0, 1], got {self.p}; the published one is 0.8")
        run = SquareSearch(self.queries, self.p, self.rescale, self.keep, self.stop, self.width)
        return Restarts(run, self.restarts, self.stop, self.keep)
