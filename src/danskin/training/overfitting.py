"""Catastrophic overfitting, seen while it happens. LECTURE row C10.

A model trained against one-step attacks can learn to resist just these: FGSM stops finding errors that PGD
finds at once. Reference: Wong, Rice and Kolter, ICLR 2020.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from danskin.attacks import FGSM, PGD, Attack
from danskin.attacks.outcomes import outcomes
from danskin.errors import InputError
from danskin.losses import labelled_loss
from danskin.metrics import Average, Share, gradient_misalignment

_ROWS = 256  # at a time


@dataclass(frozen=True)
class OverfittingWatch:
    """Compares accuracy under FGSM with accuracy under PGD on a few held-out examples.

    Overfitting is catastrophic when FGSM leaves `gap` more accuracy than PGD does, and PGD leaves less than
    half of what FGSM leaves. PGD training stays within a few points.

    Args:
        every: steps between looks; 0 for only at the end of each epoch.
        examples: how many held-out examples to look at.
        steps: of PGD, each a quarter of the radius, with a random start.
        gap: accuracy (a share) between the two.
    """

    every: int = 50
    examples: int = 200
    steps: int = 20
    gap: float = 0.2

    def __post_init__(self) -> None:
        for name, least in (("every", 0), ("examples", 1), ("steps", 1)):
            value = getattr(self, name)
            if value < least:
                raise InputError(f"OverfittingWatch.{name}: expected at least {least}, got {value}; correct it")

    def look(
        self,
        model: Callable[[Tensor], Tensor],
        x: Tensor,
        y: Tensor,
        attack: Attack,
        prepare: Callable[[Tensor], Tensor],
    ) -> tuple[Share, Share, Average]:
        """What the ball, box and loss of `attack` give on the first examples.

        Returns:
            Accuracy at the points that FGSM finds, at those that PGD finds, and the misalignment of the gradients at
            the examples and at random points of the ball (row C11; the term GradAlign lowers).
        """
        n = min(self.examples, len(y))
        loss = labelled_loss(attack.loss)
        fgsm = FGSM(attack.ball, loss=loss, box=attack.box)
        pgd = PGD(attack.ball, self.steps, "radius/4", stop=True, loss=loss, box=attack.box)
        shares = []
        for a in (fgsm, pgd):
            shares.append(Share.of(outcomes(model, x[:n], y[:n], a, prepare=prepare).correct))
        turned = [
            gradient_misalignment(model, prepare(part), labels, attack.ball, loss=loss)
            for part, labels in zip(x[:n].split(_ROWS), y[:n].split(_ROWS), strict=True)
        ]
        return shares[0], shares[1], Average.of(torch.cat(turned))

    def catastrophic(self, fgsm: Share, pgd: Share) -> bool:
        """Whether these two accuracies are those of catastrophic overfitting."""
        return fgsm.value - pgd.value >= self.gap and pgd.value < 0.5 * fgsm.value
