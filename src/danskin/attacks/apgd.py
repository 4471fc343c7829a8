"""Auto-PGD, plain and towards several targets."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from danskin.attacks.attack import Attack
from danskin.attacks.towards import Towards, check_classes
from danskin.errors import InputError
from danskin.losses import LossName
from danskin.minmax import Maximizer, Restarts
from danskin.minmax.adaptive import AdaptiveAscent, Quirks, ShrinkingBalls, Start
from danskin.minmax.intersection import order_of
from danskin.minmax.search import Keep


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
        l1 = order_of(self.ball) == 1
        shrinking = l1 if self.shrinking is None else self.shrinking
        if shrinking and not l1:
            raise InputError("shrinking: expected an L1 ball, got another; leave it out")
        run = AdaptiveAscent(
            self.steps,
            self.radius if l1 else 2 * self.radius,
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
        towards = Towards(self.ascent(), self.loss, self.classes, self.width, self.stop, self.keep)
        return Restarts(towards, self.restarts, self.stop, self.keep)
