"""The book-keeping of a search: one look at f, which of two points is kept, and a run that drops settled rows.

f takes (batch, ...) and returns one value per row, or a pair (values, settled) where `settled` marks the
rows whose question is answered at this point (an attack: the example is misclassified). A settled point
beats one that is not, whatever their values. If f has a method ``rows(index)``, rows can be dropped from
the batch while the others go on; if it has ``with_gradient(y) -> (values, settled or None, gradient)``, that is
called where the gradient is wanted (a payoff may know a cheaper way than through its own call); the gradient it
returns may then be overwritten, and so may y once the next point is there.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor

from danskin.errors import InputError, ModelError
from danskin.minmax.gradients import finite, gradient_at, warn_of_bad_gradient
from danskin.minmax.result import Cost, Maximum, Status
from danskin.minmax.sets import Set, vector_norm

Payoff = Callable[[Tensor], Any]
Keep = Literal["best", "value", "last"]


def mask(rows: Tensor, like: Tensor) -> Tensor:
    """A (batch,) bool mask shaped to broadcast against `like`."""
    return rows.view(-1, *[1] * (like.ndim - 1))


def ordinary(tensor: Tensor) -> Tensor:
    """A tensor autograd can save: a copy where it was made under inference_mode."""
    if not tensor.is_inference():
        return tensor
    with torch.inference_mode(False):
        return tensor.clone()


def look(f: Payoff, y: Tensor, gradient: bool) -> tuple[Tensor, Tensor | None, Tensor]:
    """(value, settled or None, gradient) of f at y, detached; the gradient is empty unless asked for."""
    if torch.is_grad_enabled() != gradient:
        with torch.set_grad_enabled(gradient):
            return look(f, y, gradient)
    if gradient and hasattr(f, "with_gradient"):
        value, settled, slope = f.with_gradient(y)
    else:
        leaf = y.detach().requires_grad_(gradient)
        out = f(leaf)
        value, settled = out if isinstance(out, tuple) else (out, None)
        slope, bad = finite(gradient_at(value, leaf), value) if gradient else (y.new_empty(0), False)
        if bool(bad):
            warn_of_bad_gradient()
    if value.shape != y.shape[:1]:
        raise ModelError(
            f"payoff: expected one value per row, shape ({len(y)},), got {tuple(value.shape)}; use reduction='none'"
        )
    return value.detach(), settled, slope


def improves(
    value: Tensor, settled: Tensor | None, held: Tensor, known: Tensor | None, keep: Keep, stop: bool
) -> Tensor:
    """(rows,) bool: whether a point replaces the one held, of value `held` and settled where `known`."""
    better = ~(value <= held)  # NaN is recorded, and found by whoever looks at the value
    if settled is None or known is None:
        return better
    if keep == "best":
        better = torch.where(settled == known, better, settled)
    return better & ~known if stop else better


class Search:
    """The book-keeping of one run: evaluates f, counts, keeps the best point, drops settled rows.

    `keep="best"` ranks settled points first and by value within, "value" ranks by value alone.
    `drop=True` freezes a row at the first point that settles it and takes it out of the batch once a
    tenth of the batch has left; which rows share a batch never changes what is kept for a row.
    """

    def __init__(self, f: Payoff, y0: Tensor, Y: Set, *, keep: Keep, drop: bool = False) -> None:
        if keep not in ("best", "value", "last"):
            raise InputError(f"keep: expected 'best', 'value' or 'last', got {keep!r}; pick one")
        if drop and keep != "best":
            raise InputError(
                f"stop: expected keep='best', got {keep!r}; only the first settled point is kept by stopping"
            )
        self.f, self.Y, self.keep, self.drop = f, Y, keep, drop
        self.start = time.perf_counter()
        self.cost = Cost()
        self.index, self.whole = torch.arange(len(y0), device=y0.device), True
        self.y = y0.detach() if keep != "last" else y0.new_empty(0)  # the last point alone: hold no other in memory
        self.value: Tensor | None = None
        self.settled: Tensor | None = None
        self.alive: Tensor | None = None
        self.better: Tensor | None = None
        self.flat: Tensor | None = None

    def evaluate(self, y: Tensor, *, gradient: bool, hold: bool = True) -> tuple[Tensor, Tensor]:
        """(value, gradient) at y, recorded; the gradient is empty unless asked for.

        Without `hold` the caller says later where y may be kept (`hold`), before the next call.
        """
        value, settled, slope = look(self.f, y, gradient)
        rows = y.shape[0]
        self.cost += Cost(rows, rows * gradient, 1)
        if gradient and self.flat is None:
            self.flat = vector_norm(slope, math.inf) == 0
        value = value.to(y.dtype)
        if self.keep != "last":
            self._rank(value, settled)
            if hold:
                self.hold(y.detach())
        return value, slope

    def _record(self, y: Tensor, value: Tensor, settled: Tensor | None) -> None:
        self._rank(value, settled)
        self.hold(y)

    def _rank(self, value: Tensor, settled: Tensor | None) -> None:
        """Keep the better values, and which rows they come from."""
        if self.value is None:  # the first look
            self.value, self.settled, self.better = value, settled, None
            if self.drop and settled is not None:
                self.alive = ~settled
            return
        held, known = self._here(self.value), None if self.settled is None else self._here(self.settled)
        self.better = better = improves(value, settled, held, known, self.keep, self.drop)
        if self.drop and settled is not None and known is not None:
            self.alive = ~(settled | known)
        if settled is not None and known is not None:
            self._store("settled", torch.where(better, settled, known))
        self._store("value", torch.where(better, value, held))

    def hold(self, y: Tensor, *, spent: bool = False) -> None:
        """Keep the rows of y that were better; with `spent` in the memory of y, which nobody needs any more."""
        better = self.better
        if self.keep == "last":
            return
        if better is None:
            self.y = y
            return
        if y.device.type == "cpu":  # where looking is free: elsewhere it would wait for the device
            worse = (~better).nonzero().squeeze(1)
            kept, rows = worse.shape[0], y.shape[0]
            if kept == rows:
                return
            if not kept and self.whole:
                self.y = y  # no copy
                return
            if spent and self.whole and 2 * kept <= rows:
                y[worse] = self.y[worse]
                self.y = y
                return
        self._store("y", torch.where(mask(better, y), y, self._here(self.y)))

    def _here(self, held: Tensor) -> Tensor:
        return held if self.whole else held[self.index]

    def _store(self, name: str, new: Tensor) -> None:
        if self.whole:
            setattr(self, name, new)
        else:
            getattr(self, name)[self.index] = new

    def compact(self, *state: Tensor) -> tuple[Tensor, ...] | None:
        """`state` without the rows that are settled, or None when none is left."""
        if not self.drop or self.alive is None:
            return state
        left = int(self.alive.sum())
        if left == 0:
            return None
        if left <= 0.9 * len(self.alive) and hasattr(self.f, "rows"):
            keep = self.alive.nonzero().squeeze(1)
            self.index, self.f, self.Y = self.index[keep], self.f.rows(keep), self.Y.rows(keep)
            self.whole = False
            state = tuple(s[keep] if s.ndim and len(s) == len(self.alive) else s for s in state)
            self.alive = self.alive[keep]
        return state

    def result(self, status: Status, last: Tensor | None = None) -> Maximum:
        """The best point, or `last` without its value."""
        if status is Status.DONE and self.flat is not None and bool(self.flat.any()):
            status = Status.ZERO_GRADIENT
        cost = replace(self.cost, seconds=time.perf_counter() - self.start)
        if last is not None:
            return Maximum(last.detach(), None, None, cost, status)
        return Maximum(self.y, self.value, self.settled, cost, status)
