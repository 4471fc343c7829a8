"""Our own suite: the same verdict for a fraction of the work."""

from __future__ import annotations

from danskin.attacks.apgd import APGD
from danskin.attacks.attack import Attack
from danskin.attacks.beta import BETA
from danskin.attacks.bounds import Ball
from danskin.attacks.checks import DataBox
from danskin.attacks.climb import SquareClimb


def fast(ball: Ball, *, box: DataBox = (0, 1)) -> dict[str, Attack]:
    """APGD on cross-entropy, BETA with root-mean-square steps, and a random search that gradients go on from.

    For a surviving example of ten classes about 1,600 passes (a backward pass counted as two) where AutoAttack takes
    11,600. It may miss what only thousands of queries, or steps to the decision boundary, find; docs/results/fast
    says how often it did. An example near the boundary, or on which the random search beats the usual gradients, gets
    fifteen hops of four chains (`BasinHopping`).
    """
    return {
        "apgd-ce": APGD(ball, steps=50, stop=True, box=box),
        "beta": BETA(ball, steps=30, rule="rmsprop", classes=9, stop=True, box=box),
        "square-climb": SquareClimb(ball, hops=15, stop=True, box=box),
    }
