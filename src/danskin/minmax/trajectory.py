"""Run a solver: the path of every start, its average, how it ended, what it cost."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from danskin.errors import InputError
from danskin.minmax.dynamics import Solver
from danskin.minmax.gap import residual
from danskin.minmax.random import Streams
from danskin.minmax.result import Cost
from danskin.minmax.saddle import Saddle

_LOOKS = 250  # at the residual in the tail


@dataclass(frozen=True, eq=False)
class Tail:
    """The last quarter of a run, row by row: what tells a cycle from a point.

    Args:
        distance: (batch, 2) least and largest distance from the center.
        halves: (batch, 2, 2) least and largest distance in its first and in its second half: equal on a cycle.
        residual: (batch, 2) least and largest natural residual (`danskin.minmax.gap.residual`).
        fading: (batch,) the largest residual of the second half over that of the first: 1 on a cycle.
        path: (batch,) length of the path.
        extent: (batch,) diagonal of the box around it.
    """

    distance: Tensor
    halves: Tensor
    residual: Tensor
    fading: Tensor
    path: Tensor
    extent: Tensor


@dataclass(frozen=True, eq=False)
class Trajectory:
    """What a solver did.

    Args:
        points: (kept, batch, d) iterates, the start first and the last one last.
        times: (kept,) int64 steps made at each of them.
        last: (batch, d) the last iterate.
        average: (batch, d) the mean of the iterates after the start, or of the points ahead where these are averaged.
        diverged: (batch,) bool: left the ball of radius `far`, or the finite numbers; such a row stays where it was.
        tail: the last quarter.
        noisy: F was seen through noise, or the solver added some.
        cost: evaluations of F as forwards, and seconds.
    """

    points: Tensor
    times: Tensor
    last: Tensor
    average: Tensor
    diverged: Tensor
    tail: Tail
    noisy: bool
    cost: Cost


def run_solver(
    saddle: Saddle,
    solver: Solver,
    z: Tensor,
    steps: int,
    *,
    keep: int = 400,
    center: Tensor | None = None,
    far: float = 1e6,
    seed: int | None = None,
    listen: Callable[[int], None] | None = None,
) -> Trajectory:
    """Run a solver from many starts at once.

    Args:
        saddle: the problem.
        solver: what moves.
        z: (batch, d) starts, float64 where small distances matter; projected on Z.
        steps: to make.
        keep: about as many iterates are kept, evenly in time.
        center: (d,) or (batch, d) from where the distances of the tail are taken; default: the origin.
        far: a row whose norm is larger has diverged.
        seed: of the noise of F and of the solver, one stream per row; None: F without noise.
        listen: is told the steps made, about a hundred times.

    Raises:
        InputError: a start that is not a finite (batch, d) tensor, steps below 1, or no seed for a solver with noise.

    >>> import torch
    >>> from danskin.minmax import Extragradient, Saddle
    >>> hyperbola = Saddle.of(lambda x, y: (x * y).sum(1), split=1, lipschitz=1.0)
    >>> found = run_solver(hyperbola, Extragradient(0.5), torch.tensor([[1.0, 1.0], [3.0, 0.0]]), steps=200)
    >>> bool((found.last.norm(dim=1) < 1e-4).all())
    True
    """
    check_starts(saddle, z)
    if steps < 1:
        raise InputError(f"steps: expected at least 1, got {steps}; 1000 is usual")
    restless = getattr(solver, "noisy", False)
    if restless and seed is None:
        raise InputError(f"seed: expected a number for the noise of {solver!r}, got None; give seed=0")
    started = time.perf_counter()
    streams = None if seed is None else Streams.of(seed, torch.arange(len(z), device=z.device))
    with torch.no_grad():
        state = solver.begin(saddle, z.detach(), streams)
        watch = _Watch(saddle, steps, state.z, max(1, steps // max(keep, 1)), far, center)
        for t in range(1, steps + 1):
            state = solver.step(saddle, state)
            watch.see(t, state.z, state.z if state.ahead is None else state.ahead)
            if listen is not None and (t == steps or t % max(1, steps // 100) == 0):
                listen(t)
    calls = round(solver.calls * steps)
    cost = Cost(calls * len(z), 0, calls, time.perf_counter() - started)
    return watch.result(cost, restless or (seed is not None and saddle.noisy is not None))


def check_starts(saddle: Saddle, z: Tensor) -> None:
    """Refuse what is no batch of starts.

    Raises:
        InputError: another shape or dtype, NaN or infinity, or no coordinate for one of the players.
    """
    if z.ndim != 2 or not z.is_floating_point() or not bool(z.isfinite().all()):
        raise InputError(
            f"z: expected finite starts of shape (batch, d), got {z.dtype} of shape {tuple(z.shape)}"
            "(NaN or infinity?); give one row per start, x and y side by side"
        )
    if not 0 < saddle.split < z.shape[1]:
        raise InputError(f"z: expected more than {saddle.split} coordinates, got {z.shape[1]}; x and y side by side")


class _Watch:
    """What is kept of a run while it goes on."""

    def __init__(self, saddle: Saddle, steps: int, z: Tensor, every: int, far: float, center: Tensor | None) -> None:
        self.saddle, self.steps, self.every, self.far = saddle, steps, every, far
        self.center = torch.zeros_like(z[:1]) if center is None else center.to(z)
        length = max(steps // 4, 1)
        self.tail, self.half = steps - length, steps - length // 2
        self.look = max(1, length // _LOOKS)
        self.points, self.times = [z], [0]
        self.last, self.sum = z, torch.zeros_like(z)
        self.diverged = torch.zeros(len(z), dtype=torch.bool, device=z.device)
        self.path = z.new_zeros(len(z))
        self.low, self.high = torch.full_like(z, torch.inf), torch.full_like(z, -torch.inf)
        nothing = torch.stack([z.new_full((len(z),), torch.inf), z.new_full((len(z),), -torch.inf)], 1)
        self.halves, self.residuals = [nothing, nothing], [nothing, nothing]

    def see(self, t: int, z: Tensor, averaged: Tensor) -> None:
        """The iterate after t steps, and what is averaged then."""
        self.diverged = self.diverged | ~(z.norm(dim=1) <= self.far)  # NaN is far, too
        stays = self.diverged[:, None]
        now = torch.where(stays, self.last, z)
        self.sum = self.sum + torch.where(stays, self.last, averaged)
        if t > self.tail:
            self._see_tail(t, now)
        self.last = now
        if t % self.every == 0 or t == self.steps:
            self.points.append(now)
            self.times.append(t)

    def _see_tail(self, t: int, now: Tensor) -> None:
        self.low, self.high = torch.minimum(self.low, now), torch.maximum(self.high, now)
        self.path = self.path + (now - self.last).norm(dim=1)
        half = int(t > self.half)
        self.halves[half] = _widened(self.halves[half], (now - self.center).norm(dim=1))
        if (t - self.tail - 1) % self.look == 0 or t == self.steps:
            self.residuals[half] = _widened(self.residuals[half], residual(self.saddle, now))

    def result(self, cost: Cost, noisy: bool) -> Trajectory:
        """All of it."""
        average = torch.where(self.diverged[:, None], self.last, self.sum / self.steps)
        first, second = _both(self.halves)
        early, late = _both(self.residuals)
        fading = late[:, 1] / early[:, 1].clamp_min(1e-300)
        extent = (self.high - self.low).norm(dim=1)
        tail = Tail(
            _joined(first, second), torch.stack([first, second], 1), _joined(early, late), fading, self.path, extent
        )
        times = torch.tensor(self.times)
        return Trajectory(torch.stack(self.points), times, self.last, average, self.diverged, tail, noisy, cost)


def _widened(interval: Tensor, value: Tensor) -> Tensor:
    return torch.stack([torch.minimum(interval[:, 0], value), torch.maximum(interval[:, 1], value)], 1)


def _both(halves: list[Tensor]) -> tuple[Tensor, Tensor]:
    """The intervals of the two halves; of a tail of one step, that of the second for both."""
    first, second = halves
    return torch.where(first.isfinite(), first, second), second


def _joined(first: Tensor, second: Tensor) -> Tensor:
    return torch.stack([torch.minimum(first, second)[:, 0], torch.maximum(first, second)[:, 1]], 1)
