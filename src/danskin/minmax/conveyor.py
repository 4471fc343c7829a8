"""Keep a batch full: rows leave when their question is answered or their steps are made, others take their place.

An iteration whose whole state is one row of tensors per example (a `Stepper`) can be interrupted, cut and mixed
with rows at other steps. So a batch of fixed width works through any number of examples, and what is found for
one does not depend on which others stand beside it. On a fragile model almost all work is saved; on a GPU the
tail of half-empty batches is.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol

import torch
from torch import Tensor

from danskin.errors import InputError
from danskin.minmax.random import Streams
from danskin.minmax.result import Cost, Maximum, Status
from danskin.minmax.search import Keep, Payoff, improves, look, mask
from danskin.minmax.sets import Set

State = dict[str, Tensor]


class Stepper(Protocol):
    """One iteration of an algorithm on many rows at once, each at its own step."""

    def begin(self, y0: Tensor, Y: Set, streams: Streams | None, rows: Tensor) -> State:
        """The state of rows that have just come. `rows` are their places in the problem (for numbers per row)."""
        ...

    def advance(self, belt: Belt, state: State) -> tuple[State, Tensor]:
        """The next state, and which rows (rows,) bool have made all their steps.

        The payoff is asked through `belt.evaluate`, the set is `belt.Y`, the random numbers are `belt.streams`.
        """
        ...


def best_of_fan(value: Tensor, settled: Tensor | None, fan: int) -> Tensor:
    """(rows / fan,) the best row of every `fan` neighbours: settled first, then by value, then the first."""
    rank = value.view(-1, fan)
    if settled is not None:
        hit = settled.view(-1, fan)
        rank = torch.where(hit | ~hit.any(1, keepdim=True), rank, -math.inf)
    return rank.argmax(1) + fan * torch.arange(len(rank), device=rank.device)


class Belt:
    """The rows now in work, and what has been found for all of them.

    With `fan` > 1 every example stands in the batch `fan` times in a row (once for each target, say): the payoff
    is then over the fanned rows, the copies move in lockstep, and the best of them is kept.

    Args:
        f: payoff over examples * fan rows, with a method ``rows(index)``; without one, all rows stay to the end.
        y0: (examples, ...) first points.
        Y: the set, a row per example.
        streams: random numbers, a row per example, or None.
        width: rows in work at a time; None for all. At least one example is.
        keep: "best" (settled first, then by value) or "value".
        stop: an example leaves at the first point that settles it.
        fan: rows per example.
    """

    def __init__(
        self,
        f: Payoff,
        y0: Tensor,
        Y: Set,
        streams: Streams | None,
        width: int | None,
        keep: Keep,
        stop: bool,
        fan: int,
    ) -> None:
        if keep not in ("best", "value") or (stop and keep != "best"):
            raise InputError(f"keep: expected 'best', or 'value' without stop, got {keep!r} with stop={stop}; pick one")
        if width is not None and width < 1:
            raise InputError(f"width: expected at least 1 row at a time, got {width}; use None for all at once")
        self._f, self._y0, self._Y, self._streams = f, y0.detach(), Y, streams
        self.keep, self.stop, self.fan = keep, stop, fan
        self.cuttable = hasattr(f, "rows")
        self.width = len(y0) if width is None or not self.cuttable else max(1, width // fan)
        self.began, self.cost = time.perf_counter(), Cost()
        self.y = self._y0.clone()
        self.value = torch.full((len(y0),), -math.inf, dtype=y0.dtype, device=y0.device)
        self.settled = torch.zeros(len(y0), dtype=torch.bool, device=y0.device)
        self.says_settled = False
        self.flat = torch.zeros_like(self.settled)
        self.examples = torch.arange(0, device=y0.device)
        self.fresh = self.examples
        self.admitted = 0
        self.f, self.Y, self.streams = f, Y, streams

    def admit(self, stepper: Stepper, state: State | None) -> State | None:
        """Fill free places with examples that wait; None when nobody is left."""
        room = min(self.width - len(self.examples), len(self._y0) - self.admitted)
        if room <= 0 or (len(self.examples) and room < 0.1 * self.width):
            return state if len(self.examples) else None
        new = torch.arange(self.admitted, self.admitted + room, device=self.y.device)
        self.admitted += room
        self.fresh = new
        self._seat(torch.cat([self.examples, new]))
        rows = new.repeat_interleave(self.fan)
        streams = None if self._streams is None else self._fanned(self._streams.rows(rows), new)
        begun = stepper.begin(self._y0[rows], self._Y.rows(rows), streams, rows)
        return begun if state is None else {key: torch.cat([value, begun[key]]) for key, value in state.items()}

    def _seat(self, examples: Tensor) -> None:
        """Restrict payoff, set and random numbers to these examples."""
        self.examples = examples
        if self.cuttable:
            rows = examples.repeat_interleave(self.fan)
            copies = torch.arange(self.fan, device=rows.device).repeat(len(examples))
            self.f, self.Y = self._f.rows(rows * self.fan + copies), self._Y.rows(rows)  # type: ignore[attr-defined]
            self.streams = None if self._streams is None else self._fanned(self._streams.rows(rows), examples)
        elif self.fan > 1:
            raise InputError("fan: expected a payoff with rows(index), got a plain function; give it one")

    def _fanned(self, streams: Streams, examples: Tensor) -> Streams:
        if self.fan == 1:
            return streams
        return streams.child(torch.arange(self.fan, device=streams.key.device).repeat(len(examples)))

    def evaluate(self, y: Tensor, *, gradient: bool, f: Callable[..., Any] | None = None) -> tuple[Tensor, Tensor]:
        """(value, gradient) at y for the rows in work, recorded; the gradient is empty unless asked for."""
        value, settled, slope = self.look(y, gradient=gradient, f=f)
        self.record(y.detach(), value, settled)
        return value, slope

    def look(
        self, y: Tensor, *, gradient: bool, f: Callable[..., Any] | None = None
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        """(value, settled or None, gradient) at y for the rows in work, counted but left to the caller to `record`."""
        value, settled, slope = look(f or self.f, y, gradient)
        self.cost += Cost(len(y), len(y) * gradient, 1)
        if gradient and len(self.fresh):
            zero = ~slope.reshape(len(slope), math.prod(slope.shape[1:])).any(1)
            self.flat[self.fresh] = zero.view(-1, self.fan)[-len(self.fresh) :].all(1)
            self.fresh = self.fresh[:0]
        return value.to(self.value.dtype), settled, slope

    def record(self, y: Tensor, value: Tensor, settled: Tensor | None) -> None:
        """Keep these points where they are better than what is known."""
        if self.fan > 1:
            best = best_of_fan(value, settled, self.fan)
            y, value = y[best], value[best]
            settled = None if settled is None else settled[best]
        known = None if settled is None else self.settled[self.examples]
        held = self.value[self.examples]
        better = improves(value, settled, held, known, self.keep, self.stop)
        self.value[self.examples] = torch.where(better, value, held)
        if settled is not None and known is not None:
            self.says_settled = True
            self.settled[self.examples] = torch.where(better, settled, known)
        if y.device.type == "cpu":
            at = better.nonzero().squeeze(1)
            self.y[self.examples[at]] = y[at]
        else:  # without waiting for the device
            self.y[self.examples] = torch.where(mask(better, y), y, self.y[self.examples])

    def turn(self, stepper: Stepper, state: State, finished: Tensor) -> State | None:
        """Let rows go and others come; None when all is done."""
        over = finished.view(-1, self.fan).all(1)
        settled = self.settled[self.examples] if self.stop else torch.zeros_like(over)
        gone = over | settled
        ended, leaving = torch.stack([over.any().long(), gone.sum()]).tolist()  # one look at the device
        if leaving == len(gone):
            self.examples = self.examples[:0]
            return self.admit(stepper, None)
        if ended or leaving >= 0.1 * len(gone):
            stay = (~gone).nonzero().squeeze(1)
            rows = (~gone).repeat_interleave(self.fan).nonzero().squeeze(1)
            if self.cuttable:
                self._seat(self.examples[stay])
                state = {key: value[rows] for key, value in state.items()}
                return self.admit(stepper, state)
        return state

    def result(self) -> Maximum:
        """The best points."""
        if not len(self.y):
            status = Status.EMPTY
        elif self.stop and bool(self.settled.all()):
            status = Status.SETTLED
        else:
            status = Status.ZERO_GRADIENT if bool(self.flat.any()) else Status.DONE
        cost = replace(self.cost, seconds=time.perf_counter() - self.began)
        return Maximum(self.y, self.value, self.settled if self.says_settled else None, cost, status)


def convey(
    stepper: Stepper,
    f: Payoff,
    y0: Tensor,
    Y: Set,
    streams: Streams | None = None,
    *,
    width: int | None = None,
    keep: Keep = "best",
    stop: bool = False,
    fan: int = 1,
) -> Maximum:
    """Run a stepper on all rows, `width` at a time. See `Belt` for the arguments."""
    belt = Belt(f, y0, Y, streams, width, keep, stop, fan)
    state = belt.admit(stepper, None)
    while state is not None:
        state, finished = stepper.advance(belt, state)
        state = belt.turn(stepper, state, finished)
    return belt.result()
