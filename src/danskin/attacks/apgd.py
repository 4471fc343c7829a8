"""Auto-PGD, plain and towards several targets."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from danskin.attacks.attack import Attack
from danskin.attacks.payoff import ShiftPayoff
from danskin.errors import InputError
from danskin.losses import LossName, get_loss, other_classes
from danskin.minmax import L1, Cost, Maximizer, Maximum, Restarts, Set, Streams
from danskin.minmax.adaptive import AdaptiveAscent, Quirks, ShrinkingBalls, Start
from danskin.minmax.maximize import Keep, Payoff
from danskin.minmax.rows import PerRow


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


@dataclass(frozen=True)
class APGD(Attack):
    """Auto-PGD: ascent that halves its own step, example by example; no step size to choose.

    Args:
        ball: `Linf`, `L2` or `L1`.
        steps: steps; one more gradient at the start.
        loss: "cross_entropy", "dlr", "margin", "targeted_dlr" (with targets), ...
        start: "sphere" (the ball's surface), "uniform", or "given" (the clean input).
        restarts: runs from independent starts; the best is kept per example.
        stop: leave an example as soon as it is adversarial: as many successes for less work.
        keep: "best" (adversarial first, then by loss) or "value" (by loss alone).
        shrinking: for `L1`, runs in balls 3, 2 and 1 times as large one after the other; None: yes for `L1`.
        width: examples in the batch at a time; as some leave others come. Changes nothing but memory and time.
        quirks: "reference" for what the released code does step by step (`AdaptiveAscent`).

    Reference: Croce and Hein, ICML 2020 (l_inf, l2) and ICML 2021 (l1). Lecture: rows B4, C8.
    """

    moves: ClassVar[str] = "projected ascent with momentum, step halved on a plateau"

    steps: int = 100
    start: Start = "sphere"
    restarts: int = 1
    stop: bool = False
    keep: Keep = "best"
    shrinking: bool | None = None
    width: int | None = None
    quirks: Quirks = "none"

    def ascent(self) -> AdaptiveAscent | ShrinkingBalls:
        """One run."""
        l1 = isinstance(self.ball, L1)
        shrinking = l1 if self.shrinking is None else self.shrinking
        if shrinking and not l1:
            raise InputError("shrinking: expected an L1 ball, got another; leave it out")
        run = AdaptiveAscent(
            self.steps,
            self.ball.value if l1 else 2 * self.ball.value,
            start=self.start,
            keep=self.keep,
            stop=self.stop,
            width=self.width,
            quirks=self.quirks,
        )
        return ShrinkingBalls(run) if shrinking else run

    def maximizer(self) -> Maximizer:
        """Ascent with its own step, from one start or several."""
        if self.restarts > 1 and self.start == "given":
            raise InputError("restarts: expected 1 with start='given', got more; runs from one start are all the same")
        return Restarts(self.ascent(), self.restarts, self.stop, self.keep)


@dataclass(frozen=True)
class Towards(PerRow):
    """A run for each of the leading wrong classes of each example, all in step; the best is kept.

    Args:
        run: a maximiser with `fanned(rows per example)`.
        loss: the targeted loss.
        classes: how many wrong classes, None for all.
        width: examples ranked at a time.
    """

    run: Any
    loss: LossName
    classes: int | None
    width: int | None

    def __call__(self, f: Payoff, y0: Tensor, Y: Set, generator: Streams | None = None) -> Maximum:
        """Maximise over Y and the classes."""
        if not isinstance(f, ShiftPayoff):
            raise InputError("Towards: expected the payoff of an attack, got another function; call the attack")
        f = f.with_loss(get_loss(self.loss))
        toward = wrong_classes(f, self.classes, self.width)
        found = self.run.fanned(toward.shape[1])(f.fanned(toward), y0, Y, generator)
        return replace(found, cost=found.cost + Cost(len(y0), 0, 1))


def check_classes(classes: int | None, loss: LossName) -> None:
    """A number of wrong classes, and a loss that has targets."""
    if classes is not None and classes < 1:
        raise InputError(f"classes: expected at least 1 wrong class, got {classes}; None takes all")
    if not get_loss(loss).targeted:
        raise InputError(f"loss: expected a targeted loss, got {loss!r}; use 'targeted_dlr' or 'targeted_margin'")


@dataclass(frozen=True)
class MultiTargeted(APGD):
    """Auto-PGD towards each of the `classes` leading wrong classes; any wrong prediction counts.

    The runs of an example move in step as rows of one batch, and all leave at its first success. With the targeted
    DLR loss this is the APGD-T of AutoAttack; with the targeted margin, MultiTargeted of Gowal et al.

    Args:
        classes: how many wrong classes, by clean logits; None for all. A model with fewer has fewer.

    Reference: Croce and Hein, ICML 2020, §4; Gowal et al., arXiv:1910.09338.
    """

    moves: ClassVar[str] = "projected ascent for each wrong class, step halved on a plateau"
    aims: ClassVar[bool] = True

    classes: int | None = 9
    loss: LossName = field(default="targeted_dlr", kw_only=True)

    def maximizer(self) -> Maximizer:
        """All targets in step."""
        check_classes(self.classes, self.loss)
        towards = Towards(self.ascent(), self.loss, self.classes, self.width)
        return Restarts(towards, self.restarts, self.stop, self.keep)
