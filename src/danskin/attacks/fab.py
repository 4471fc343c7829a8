"""FAB: the fast adaptive boundary attack, for the nearest class or towards several."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from torch import Tensor

from danskin.attacks.attack import Attack
from danskin.attacks.fab_steps import BoundarySteps, Nearest, PullBack
from danskin.attacks.payoff import ShiftPayoff
from danskin.attacks.towards import Towards, check_classes
from danskin.errors import InputError
from danskin.losses import LossName
from danskin.minmax import BestOf, Maximizer, Maximum, Set, Streams, Template
from danskin.minmax.balls import balls_named
from danskin.minmax.intersection import ball_of, order_of
from danskin.minmax.measured import grown
from danskin.minmax.rows import PerRow
from danskin.minmax.search import Payoff, mask

#: Norms of the balls that it knows the way to a boundary in.
ORDERS = (math.inf, 2, 1)
_REACH = 1.1  # radii within which a decision in doubt is asked of the plain model

_RANGES: dict[str, tuple[float, float]] = {
    "steps": (1, math.inf), "alpha_max": (0, 1), "eta": (1, math.inf), "beta": (0, 1), "restarts": (1, math.inf),
    "refine": (0, math.inf),
}  # fmt: skip


@dataclass(frozen=True)
class _ToNearest(PerRow):
    """A run towards whatever boundary is nearest."""

    run: BoundarySteps

    def __call__(self, f: Payoff, y0: Tensor, Y: Set, generator: Streams | None = None) -> Maximum:
        """The closest adversarial points."""
        if not isinstance(f, ShiftPayoff):
            raise InputError("FAB: expected the payoff of an attack, got another function; call the attack")
        return self.run(Nearest(f, ball_of(Y)), y0, Y, generator)


@dataclass(frozen=True)
class _Inside(PerRow):
    """The closest points found by runs, pulled back, projected where they lie outside, and left to be judged.

    Whether the closest points are adversarial is asked of the plain model in full precision: they are where a cheaper
    form of it errs most.
    """

    runs: Maximizer
    pull: PullBack

    def __call__(self, f: Payoff, y0: Tensor, Y: Set, generator: Streams | None = None) -> Maximum:
        """The closest points of the set; not evaluated."""
        if not isinstance(f, ShiftPayoff):
            raise InputError("FAB: expected the payoff of an attack, got another function; call the attack")
        ball = ball_of(Y)
        reach = grown(ball, _REACH * torch.as_tensor(ball.value))
        f = replace(f, asking=replace(f.asking, confirm=True, reach=reach))
        found = self.runs(f, y0, Y, generator)
        y, cost, inside = found.y, found.cost, ball.violation(found.y) == 0
        norm = ball.norm(y)
        open_ = (norm > 0) & norm.isfinite()
        if self.pull.stop:  # only what may come inside
            open_ &= ~inside & (norm * self.pull.beta <= ball.value)
        rows = open_.nonzero().squeeze(1)
        if len(rows) and self.pull.looks > 1:
            pulled = self.pull(Nearest(f.rows(rows), ball.rows(rows)), y[rows], Y.rows(rows))
            y, cost = y.index_copy(0, rows, pulled.y), cost + pulled.cost
        outside = ball.violation(y) > 0
        return Maximum(torch.where(mask(outside, y), Y.project(y), y), None, None, cost, found.status)


@dataclass(frozen=True)
class FAB(Attack):
    r"""Fast adaptive boundary attack: the closest adversarial point by ways to the linearised boundary.

        minimise norm(delta) subject to x + delta misclassified and in the box

    With F the lead of the wrong class whose linearised boundary is nearest at y, H that boundary cut with the box,
    d1 and d2 the least steps (in the ball's norm) from y and from 0 to H, and a = min(|d1| / (|d1| + |d2|), alpha_max):

        y <- clip((1 - a) (y + eta d1) + a eta d2),   and y <- beta y where that is adversarial.

    The ball says which norm is meant, and how close an adversarial point must be to count. The outcome is the closest
    one where it lies inside; elsewhere it is projected on ball and box, and where there is none the input comes back.
    A step costs two forward passes and, with K classes, K - 1 backward passes. With targets, the boundary is that of
    the target. Prefer `FABT` for more than about ten classes.

    Args:
        ball: `Linf`, `L2` or `L1`.
        steps: linearisations, >= 1.
        alpha_max: the largest share of the way that starts at the clean input, in [0, 1].
        eta: how far over the boundary a step goes, >= 1.
        beta: the share of the shift that is left after a step back, in (0, 1).
        restarts: runs; the first starts at the clean input, others half a radius from it in random directions.
        refine: forward passes at the end that pull the closest point back along its way; 0 for none. With `stop` only
            points are pulled that may come into the ball.
        patience: a run that has come no closer by a thousandth for so many steps goes on half a radius (or the least
            distance so far, halved) from the clean input in a random direction; None: never, as published.
        stop: leave an example at its first adversarial point inside the ball.
        width: rows in the batch at a time; as some leave others come. Changes nothing but memory and time.

    Reference: Croce and Hein, "Minimally distorted adversarial examples with a fast adaptive boundary attack",
    ICML 2020, Algorithm 1; the final search is `PullBack`. Lecture: rows B4, C8.
    """

    template: ClassVar[Template] = Template("fixed", "input shift", "adversarial points of the box", "- norm")
    moves: ClassVar[str] = "steps to the linearised boundary, pulled to the clean input"

    steps: int = 100
    alpha_max: float = 0.1
    eta: float = 1.05
    beta: float = 0.9
    restarts: int = 1
    refine: int = 4
    patience: int | None = 20
    stop: bool = False
    width: int | None = None
    loss: LossName = field(default="margin", kw_only=True)

    def _run(self, random: bool) -> BoundarySteps:
        return BoundarySteps(
            self.steps, self.alpha_max, self.eta, self.beta, self.stop, self.width, self.patience, random
        )

    def _one(self, random: bool) -> Maximizer:
        return _ToNearest(self._run(random))

    def objection(self, x: Tensor) -> str:
        """Another set than an l_p ball: the way to a boundary is measured in its norm."""
        return (
            "" if order_of(self.ball) is not None else f"FAB measures no distances but those of {balls_named(ORDERS)}"
        )

    def maximizer(self) -> Maximizer:
        """Runs from the clean input and around it.

        Raises:
            InputError: a hyperparameter out of range, or several draws per look.
        """
        for name, (least, most) in _RANGES.items():
            value = getattr(self, name)
            if not least <= value <= most:
                wanted = f"at least {least}" if most == math.inf else f"a number from {least} to {most}"
                raise InputError(f"FAB.{name}: expected {wanted}, got {value}; leave it out for the default")
        if self.patience is not None and self.patience < 1:
            raise InputError(f"FAB.patience: expected at least 1 step, got {self.patience}; None never starts anew")
        if self.objection(torch.empty(0)):
            raise InputError(
                f"FAB.ball: expected {balls_named(ORDERS)}, got {self.ball}; use APGD or PGD, which take any set"
            )
        if self.draws != 1:
            raise InputError(
                f"FAB.draws: expected 1, got {self.draws}; the closest point of a random model is not defined: use APGD"
            )
        pull = PullBack(self.refine, self.beta, self.stop, self.width)
        return _Inside(BestOf(tuple(self._one(r > 0) for r in range(self.restarts)), self.stop), pull)


@dataclass(frozen=True)
class FABT(FAB):
    """FAB towards each of the `classes` leading wrong classes; any wrong prediction counts.

    The runs of an example move in step as rows of one batch, and all leave at its first success inside the ball if
    `stop`. A step costs two forward passes and one backward pass for each class.

    Args:
        classes: how many wrong classes, by clean logits; None for all. A model with fewer has fewer.

    Reference: Croce and Hein, "Reliable evaluation of adversarial robustness with an ensemble of diverse
    parameter-free attacks", ICML 2020, §4. Lecture: row C8.
    """

    moves: ClassVar[str] = "steps to the linearised boundary of each wrong class, pulled to the clean input"
    aims: ClassVar[bool] = True

    classes: int | None = 9

    def _one(self, random: bool) -> Maximizer:
        check_classes(self.classes, "targeted_margin")
        return Towards(self._run(random), "targeted_margin", self.classes, self.width, self.stop)
