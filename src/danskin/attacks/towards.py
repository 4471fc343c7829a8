"""Runs towards the wrong classes of each example, the leading ones first."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from danskin.attacks.payoff import ShiftPayoff
from danskin.errors import InputError
from danskin.losses import LossName, get_loss, other_classes
from danskin.minmax import BestOf, Cost, Maximum, Set, Streams
from danskin.minmax.rows import PerRow, rows_of
from danskin.minmax.search import Keep, Payoff

#: Targets of one example that move in step; those behind them come when these are done, so that memory does not grow
#: with the number of classes.
TOGETHER = 16


def wrong_classes(f: ShiftPayoff, most: int | None, width: int | None = None) -> Tensor:
    """(batch, m) the m wrong classes with the largest clean logits, largest first; one forward pass per example.

    Raises:
        InputError: the model has one output: there are no classes to choose among.
    """
    ranked = []
    for rows in torch.arange(len(f.x), device=f.x.device).split(width or max(len(f.x), 1)):
        part = f.rows(rows)
        with torch.no_grad():
            logits = part.logits(part.shifted(torch.zeros_like(part.x)))
        if logits.ndim != 2 or logits.shape[1] < 2:
            raise InputError("targets: expected a model with at least 2 classes, got one output; give it more")
        others = other_classes(logits, part.goal.y)
        order = logits.gather(1, others).sort(dim=1, descending=True, stable=True).indices
        ranked.append(others.gather(1, order))
    out = torch.cat(ranked)
    return out if most is None else out[:, :most]


@dataclass(frozen=True, eq=False)
class _Group(PerRow):
    """The runs towards some of the wrong classes.

    Args:
        run: a maximiser with `fanned(rows per example)`.
        toward: (batch, m) classes.
    """

    run: Any
    toward: Tensor

    def rows(self, index: Tensor) -> _Group:
        """The same for some rows."""
        return _Group(rows_of(self.run, index), self.toward[index])

    def __call__(self, f: Payoff, y0: Tensor, Y: Set, generator: Streams | None = None) -> Maximum:
        """Maximise over Y and these classes."""
        fan: Maximum = self.run.fanned(self.toward.shape[1])(f.fanned(self.toward), y0, Y, generator)  # type: ignore[attr-defined]
        return fan


@dataclass(frozen=True)
class Towards(PerRow):
    """A run for each of the leading wrong classes of each example, `TOGETHER` of them in step; the best is kept.

    Args:
        run: a maximiser with `fanned(rows per example)`.
        loss: the targeted loss.
        classes: how many wrong classes, None for all.
        width: examples ranked at a time.
        stop: the classes behind are left out for examples that are settled.
        keep: "best" (settled first, then by value) or "value".
    """

    run: Any
    loss: LossName
    classes: int | None
    width: int | None
    stop: bool = False
    keep: Keep = "best"

    def __call__(self, f: Payoff, y0: Tensor, Y: Set, generator: Streams | None = None) -> Maximum:
        """Maximise over Y and the classes."""
        if not isinstance(f, ShiftPayoff):
            raise InputError("Towards: expected the payoff of an attack, got another function; call the attack")
        f = f.with_loss(get_loss(self.loss))
        groups = tuple(_Group(self.run, part) for part in wrong_classes(f, self.classes, self.width).split(TOGETHER, 1))
        whole = groups[0] if len(groups) == 1 else BestOf(groups, self.stop, self.keep)
        found = whole(f, y0, Y, generator)
        return replace(found, cost=found.cost + Cost(len(y0), 0, 1))


def check_classes(classes: int | None, loss: LossName) -> None:
    """A number of wrong classes, and a loss that has targets."""
    if classes is not None and classes < 1:
        raise InputError(f"classes: expected at least 1 wrong class, got {classes}; None takes all")
    if not get_loss(loss).targeted:
        raise InputError(f"loss: expected a targeted loss, got {loss!r}; use 'targeted_dlr' or 'targeted_margin'")
