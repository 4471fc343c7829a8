"""BETA with the first step of all classes from one forward pass."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from danskin.attacks.payoff import FannedPayoff, ShiftPayoff
from danskin.errors import InputError
from danskin.minmax import Cost, Maximum, Set, Streams
from danskin.minmax.maximize import first_point
from danskin.minmax.rows import PerRow
from danskin.minmax.search import Payoff
from danskin.minmax.sets import rowwise
from danskin.minmax.steps import SteppedAscent


@dataclass(frozen=True)
class SharedFirst(PerRow):
    """A run for each of some wrong classes from a common start, whose first gradients are rows of one Jacobian.

    From a common start all classes see the same logits: one forward pass and m backward passes take the place of m of
    each. The start itself is not a candidate. Per example m - 1 forward passes are saved.

    Args:
        run: fixed steps by the sign rule, without early stopping.
    """

    run: SteppedAscent

    def __post_init__(self) -> None:
        if self.run.stop or self.run.rule != "sign" or self.run.steps < 2:
            raise InputError("shared_first: expected 2 sign steps or more without stop, got others; leave it out")

    def fanned(self, fan: int) -> SharedFirst:
        """The same: how many runs an example has is in the payoff."""
        return self

    def __call__(self, f: Payoff, y0: Tensor, Y: Set, generator: Streams | None = None) -> Maximum:
        """Maximise over Y and the classes of the payoff."""
        if not isinstance(f, FannedPayoff):
            raise InputError("shared_first: expected the payoff of an attack, got another function; call the attack")
        start = first_point("BETA", self.run.random_start, y0, Y, generator)
        n, m = f.toward.shape
        rows = torch.arange(n, device=y0.device).repeat_interleave(m)
        balls, run = Y.rows(rows), self.run.rows(rows)
        length = torch.as_tensor(run.step, dtype=start.dtype, device=start.device)
        ahead = start[rows] + rowwise(length, start[rows]) * balls.steepest(self._slopes(f.base, start, f.toward))
        found = replace(run, steps=run.steps - 1, random_start=False)(f, balls.project(ahead), balls)
        if found.value is None:
            raise InputError("shared_first: expected keep='best' or 'value', got 'last'; the best class must be chosen")
        pick = found.value.view(n, m).argmax(1) + m * torch.arange(n, device=y0.device)
        settled = None if found.settled is None else found.settled[pick]
        cost = found.cost + Cost(n, n * m, m)
        return Maximum(found.y[pick], found.value[pick], settled, cost, found.status)

    @staticmethod
    def _slopes(f: ShiftPayoff, start: Tensor, toward: Tensor) -> Tensor:
        """(n * m, ...) the gradients of all targeted losses at a common point, an example's classes in a row."""
        with torch.no_grad():
            point = f.shifted(start)
        point.requires_grad_()
        logits = f.logits(point)
        slopes = [
            f.asking.gradient(replace(f.goal, toward=c).value(logits), point, retain=j + 1 < toward.shape[1])
            for j, c in enumerate(toward.unbind(1))
        ]
        return torch.stack(slopes, 1).flatten(0, 1)
