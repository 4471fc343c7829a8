"""Maximise f over a set Y, for each row of a batch, knowing nothing about models.

What f is, and how a run keeps its books, is told in `danskin.minmax.search`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, Protocol

import torch
from torch import Tensor

from danskin.errors import InputError
from danskin.minmax.cube import Cube
from danskin.minmax.random import Streams, check_streams
from danskin.minmax.result import Maximum, Status
from danskin.minmax.rows import PerRow, rows_of
from danskin.minmax.search import Keep, Payoff, Search
from danskin.minmax.sets import Set, is_cube, rowwise, vector_norm

Schedule = Literal["constant", "inverse_sqrt", "inverse", "linear", "cosine"]
Direction = Literal["steepest", "gradient", "sparse"]

_SCHEDULES: dict[str, Callable[[int, int], float]] = {
    "constant": lambda k, steps: 1.0,
    "inverse_sqrt": lambda k, steps: (k + 1) ** -0.5,
    "inverse": lambda k, steps: 1 / (k + 1),
    "linear": lambda k, steps: 1 - k / steps,
    "cosine": lambda k, steps: 0.5 * (1 + math.cos(math.pi * k / steps)),
}


class Maximizer(Protocol):
    """Anything that maximises: values in the constructor, the problem in the call."""

    def __call__(self, f: Payoff, y0: Tensor, Y: Set, generator: Streams | None = None) -> Maximum:
        """Maximise f over Y from y0."""
        ...


@dataclass(frozen=True)
class Vertex:
    """One linear maximiser: y* = argmax over q in Y of <grad f(y0), q>.

    FGSM, SAM's ascent and "the worst class" are this call on three sets. Exact when f is linear.

    Args:
        keep: "last" returns the vertex, not evaluated; "best" and "value" evaluate it and return the
            better of it and y0 (settled first, or by value alone).
    """

    keep: Keep = "last"

    def __call__(self, f: Payoff, y0: Tensor, Y: Set, generator: Streams | None = None) -> Maximum:
        """Maximise f over Y from y0."""
        search = Search(f, y0, Y, keep=self.keep)
        _, g = search.evaluate(y0, gradient=True)
        y = Y.lmo(g)
        if self.keep == "last":
            return replace(search.result(Status.DONE, y), gradient=g)
        search.evaluate(y, gradient=False)
        return replace(search.result(Status.DONE), gradient=g)


@dataclass(frozen=True)
class Ascent(PerRow):
    r"""Projected ascent: y_{k+1} = project(y_k + a_k d_k), with a_k = step * schedule(k).

    Args:
        steps: gradients taken, >= 1.
        step: length of a step, in the units of y: a number, or one per row.
        direction: "steepest" (the set's own: sign, normalised, or one coordinate), "gradient" (the true
            gradient: the lecture's proximal gradient ascent), "sparse" (signs of the largest
            1 - quantile share of the coordinates that can still move, with l1 norm 1).
        schedule: "constant", "inverse_sqrt", "inverse", "linear" or "cosine".
        first: "step", or "vertex" to go to the linear maximiser of the first gradient (exact for linear
            f from any start, and never worse than one linear maximiser when keep is "best").
        random_start: begin at a random point of Y instead of y0 (needs a generator).
        start_noise: with random_start, begin at y0 + start_noise * N(0, 1), projected, instead of uniformly in Y.
        quantile: for "sparse", in [0, 1).
        keep: "best" of all points visited (settled first, then by value), the best by "value" alone, or
            the "last", which is then not evaluated.
        stop: leave a row as soon as it is settled.

    Lecture: rows B3 and B4.
    """

    steps: int
    step: float | Tensor
    direction: Direction = "steepest"
    schedule: Schedule = "constant"
    first: Literal["step", "vertex"] = "step"
    random_start: bool = False
    start_noise: float | None = None
    quantile: float = 0.99
    keep: Keep = "best"
    stop: bool = False

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise InputError(f"Ascent.steps: expected at least 1, got {self.steps}; use 1 for a single step")
        if not bool((torch.as_tensor(self.step) >= 0).all()):
            raise InputError(f"Ascent.step: expected a number >= 0, got {self.step}; ascent moves along +gradient")
        if self.schedule not in _SCHEDULES:
            raise InputError(f"Ascent.schedule: expected one of {list(_SCHEDULES)}, got {self.schedule!r}; pick one")
        if self.direction not in ("steepest", "gradient", "sparse"):
            raise InputError(
                f"Ascent.direction: expected 'steepest', 'gradient' or 'sparse', got {self.direction!r}; pick one"
            )
        if self.start_noise is not None and not (self.random_start and self.start_noise > 0):
            raise InputError(
                f"Ascent.start_noise: expected a number > 0 together with random_start, got {self.start_noise} and "
                f"{self.random_start}; leave it out for a uniform start"
            )
        if not 0 <= self.quantile < 1:
            raise InputError(f"Ascent.quantile: expected a number in [0, 1), got {self.quantile}; try 0.99")

    def __call__(self, f: Payoff, y0: Tensor, Y: Set, generator: Streams | None = None) -> Maximum:
        """Maximise f over Y from y0."""
        y = first_point("Ascent", self.random_start, y0, Y, generator, self.start_noise)
        search = Search(f, y, Y, keep=self.keep, drop=self.stop)
        length = torch.as_tensor(self.step, dtype=y.dtype, device=y.device)
        own = hasattr(f, "with_gradient")
        for k in range(self.steps):
            _, g = search.evaluate(y, gradient=True, hold=self.stop)
            left = search.compact(y, g, length)
            if left is None:
                return search.result(Status.SETTLED)
            before, g, length = left
            y = self._move(before, g, length, k, search.Y, own=own)
            if not self.stop:
                search.hold(before, spent=own and k > (self.first == "vertex"))
        if self.keep == "last":
            return search.result(Status.DONE, y)
        search.evaluate(y, gradient=False)
        return search.result(Status.DONE)

    def _move(self, y: Tensor, g: Tensor, length: Tensor, k: int, Y: Set, own: bool) -> Tensor:
        if k == 0 and self.first == "vertex":
            return Y.lmo(g)
        factor = _SCHEDULES[self.schedule](k, self.steps)
        if own and is_cube(Y) and self.direction == "steepest" and g.stride() == y.stride():
            # in the memory of the gradient: fresh tensors cost a small model more than the arithmetic on them
            if length.ndim == 0 and length.device.type == "cpu":
                ahead = torch.add(y, g.sign_(), alpha=float(length) * factor, out=g)
            else:
                ahead = g.sign_().mul_(rowwise(length * factor, y)).add_(y)
            return Y.project_(ahead) if isinstance(Y, Cube) else ahead.clamp_(*Y.bounds(y))  # type: ignore[attr-defined]
        if self.direction == "steepest":
            d = Y.steepest(g)
        elif self.direction == "gradient":
            d = g
        else:
            d = sparse_signs(g, y, Y, self.quantile)
        if length.ndim == 0 and length.device.type == "cpu":
            return Y.project(torch.add(y, d, alpha=float(length) * factor))
        return Y.project(torch.addcmul(y, d, rowwise(length * factor, y)))


def first_point(
    who: str, random: bool, y0: Tensor, Y: Set, generator: Streams | None, noise: float | None = None
) -> Tensor:
    """Where a run begins: a random point of Y (near y0 with `noise`), or y0 projected on Y."""
    if not random:
        return Y.project(y0)
    generator = check_streams(generator, f"{who}: for the random start")
    return Y.sample(y0, generator) if noise is None else Y.project(y0 + noise * generator.normal(y0))


def sparse_signs(g: Tensor, y: Tensor, Y: Set, quantile: float) -> Tensor:
    """Signs of g on its largest coordinates that are not at a bound already, with l1 norm 1."""
    size = g.abs()
    if hasattr(Y, "bounds"):
        low, high = Y.bounds(y)
        size = torch.where(((g > 0) & (y >= high)) | ((g < 0) & (y <= low)), 0.0, size)
    flat = size.reshape(len(size), -1)
    k = max(1, math.ceil((1 - quantile) * flat.shape[1] - 1e-9))
    top = flat.topk(k, dim=1)
    chosen = torch.zeros_like(flat).scatter_(1, top.indices, (top.values > 0).to(flat)).view(g.shape)
    return g.sign() * chosen / rowwise(vector_norm(chosen, 1).clamp_min(1), g)


@dataclass(frozen=True)
class BestOf(PerRow):
    """Run several maximisers and keep, for each row, the best point.

    Args:
        maximizers: each must keep its best point.
        stop: give later ones only the rows not settled yet.
        keep: "best" (settled first, then by value) or "value".
    """

    maximizers: tuple[Maximizer, ...]
    stop: bool = False
    keep: Keep = "best"

    def __call__(self, f: Payoff, y0: Tensor, Y: Set, generator: Streams | None = None) -> Maximum:
        """Maximise f over Y from y0 with each of them."""
        search = Search(f, y0, Y, keep=self.keep, drop=self.stop)
        status = Status.DONE
        for i, maximizer in enumerate(self.maximizers):
            left = search.compact(y0)
            if left is None:
                status = Status.SETTLED
                break
            (y0,) = left
            streams = generator.rows(search.index).child(i) if generator is not None else None
            found = rows_of(maximizer, search.index)(search.f, y0, search.Y, streams)
            if found.value is None:
                raise InputError("BestOf: expected maximisers with keep='best', got one with keep='last'; change it")
            search.cost += found.cost
            status = found.status
            search._record(found.y, found.value, found.settled)
        return search.result(status)


@dataclass(frozen=True)
class Restarts(PerRow):
    """Run a maximiser with random start several times and keep, for each row, the best point.

    Args:
        maximizer: must keep its best point.
        n: runs, >= 1.
        stop: give later runs only the rows not settled yet.
        keep: "best" (settled first, then by value) or "value".
    """

    maximizer: Maximizer
    n: int
    stop: bool = False
    keep: Keep = "best"

    def __call__(self, f: Payoff, y0: Tensor, Y: Set, generator: Streams | None = None) -> Maximum:
        """Maximise f over Y, n times."""
        if self.n < 1:
            raise InputError(f"Restarts.n: expected at least 1, got {self.n}; use 1 for a single run")
        if self.n == 1:  # the first of several, without comparing it with nothing
            return self.maximizer(f, y0, Y, generator.child(0) if generator is not None else None)
        return BestOf((self.maximizer,) * self.n, self.stop, self.keep)(f, y0, Y, generator)
