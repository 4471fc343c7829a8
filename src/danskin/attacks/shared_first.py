"""BETA with the first step of all classes from one forward pass."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from danskin.attacks.apgd import wrong_classes
from danskin.attacks.payoff import ShiftPayoff
from danskin.errors import InputError
from danskin.losses import LossName, get_loss
from danskin.minmax import Cost, Maximum, Set, Streams
from danskin.minmax.maximize import Payoff, first_point
from danskin.minmax.rows import PerRow
from danskin.minmax.sets import rowwise
from danskin.minmax.steps import SteppedAscent


@dataclass(frozen=True)
class SharedFirst(PerRow):
    """A run for each wrong class from a common start, whose first gradients are rows of one Jacobian.

    From a common start all classes see the same logits: one forward pass and m backward passes take the place of m of
    each. The start itself is not a candidate. Per example m - 1 forward passes are saved.

    Args:
        run: fixed steps by the sign rule, without early stopping.
        loss: the targeted loss.
        classes: how many wrong classes, None for all.
        width: examples ranked at a time.
    """

    run: SteppedAscent
    loss: LossName
    classes: int | None
    width: int | None

    def __post_init__(self) -> None:
        if self.run.stop or self.run.rule != "sign" or self.run.steps < 2:
            raise InputError("shared_first: expected 2 sign steps or more without stop, got others; leave it out")

    def __call__(self, f: Payoff, y0: Tensor, Y: Set, generator: Streams | None = None) -> Maximum:
        """Maximise over Y and the classes."""
        if not isinstance(f, ShiftPayoff):
            raise InputError("shared_first: expected the payoff of an attack, got another function; call the attack")
        f = f.with_loss(get_loss(self.loss))
        start = first_point("BETA", self.run.random_start, y0, Y, generator)
        toward = wrong_classes(f, self.classes, self.width)
        n, m = toward.shape
        rows = torch.arange(n, device=y0.device).repeat_interleave(m)
        fan, balls = f.fanned(toward), Y.rows(rows)
        step = self.run.rows(rows).step
        length = torch.as_tensor(step, dtype=start.dtype, device=start.device)
        ahead = start[rows] + rowwise(length, start[rows]) * balls.steepest(self._slopes(f, start, toward))
        rest = replace(self.run.rows(rows), steps=self.run.steps - 1, random_start=False)
        found = rest(fan, balls.project(ahead), balls)
        if found.value is None:
            raise InputError("shared_first: expected keep='best' or 'value', got 'last'; the best class must be chosen")
        pick = found.value.view(n, m).argmax(1) + m * torch.arange(n, device=y0.device)
        settled = None if found.settled is None else found.settled[pick]
        cost = found.cost + Cost(2 * n, n * m, 1 + m)
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
