"""Ascent by fixed or root-mean-square steps as rows on a conveyor."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from danskin.errors import InputError
from danskin.minmax.conveyor import Belt, State, convey
from danskin.minmax.maximize import first_point
from danskin.minmax.random import Streams
from danskin.minmax.result import Maximum
from danskin.minmax.rows import PerRow
from danskin.minmax.search import Keep, Payoff
from danskin.minmax.sets import Set, rowwise

Rule = Literal["sign", "rmsprop"]


@dataclass(frozen=True)
class SteppedAscent(PerRow):
    r"""Projected ascent with a fixed step, for rows that come and go.

    "sign": y <- P(y + step d), d the set's steepest direction. "rmsprop": v <- 0.99 v + 0.01 g^2,
    y <- P(y + step g / (sqrt(v) + tiny)), from v = 0, so that the first step is ten times as long.

    Args:
        steps: gradients taken, >= 1.
        step: a number, or one per row.
        rule: "sign" or "rmsprop".
        random_start: begin at a random point of the set.
        keep: "best" (settled first, then by value), or best by "value".
        stop: leave a row as soon as it is settled.
        width: rows in work at a time, None for all.
        fan: rows per example (`Belt`).
    """

    steps: int
    step: float | Tensor
    rule: Rule = "sign"
    random_start: bool = True
    keep: Keep = "best"
    stop: bool = False
    width: int | None = None
    fan: int = 1

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise InputError(f"steps: expected at least 1, got {self.steps}; use 1 for a single step")
        if self.rule not in ("sign", "rmsprop"):
            raise InputError(f"rule: expected 'sign' or 'rmsprop', got {self.rule!r}; pick one")

    def __call__(self, f: Payoff, y0: Tensor, Y: Set, generator: Streams | None = None) -> Maximum:
        """Maximise f over Y."""
        return convey(self, f, y0, Y, generator, width=self.width, keep=self.keep, stop=self.stop, fan=self.fan)

    def fanned(self, fan: int) -> SteppedAscent:
        """The same ascent with `fan` rows per example."""
        return replace(self, fan=fan)

    def begin(self, y0: Tensor, Y: Set, streams: Streams | None, rows: Tensor) -> State:
        """The state of rows that have just come."""
        y = first_point("SteppedAscent", self.random_start, y0, Y, streams)
        step = torch.as_tensor(self.step, dtype=y.dtype, device=y.device)
        length = (step[rows] if step.numel() > 1 else step.reshape(1)).expand(len(y))
        state = {"k": torch.zeros(len(y), dtype=torch.int64, device=y.device), "y": y, "length": length}
        return state | {"square": torch.zeros_like(y)} if self.rule == "rmsprop" else state

    def advance(self, belt: Belt, state: State) -> tuple[State, Tensor]:
        """One evaluation, and the step it leads to."""
        y, over = state["y"], state["k"] == self.steps
        gradient = not bool(over.all())
        _, g = belt.evaluate(y, gradient=gradient)
        if not gradient:
            return state, over
        if self.rule == "rmsprop":
            square = 0.99 * state["square"] + 0.01 * g * g
            state = state | {"square": square}
            d = g / (square.sqrt() + torch.finfo(g.dtype).tiny ** 0.5)  # scale-free, and 0 where g is 0
        else:
            d = belt.Y.steepest(g)
        ahead = belt.Y.project(torch.addcmul(y, d, rowwise(state["length"], y)))
        return state | {"y": ahead, "k": state["k"] + 1}, over
