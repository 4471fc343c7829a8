"""Who is diagnosed: a model with the examples, ball and box that it is asked about."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from danskin.attacks import PGD
from danskin.attacks.bounds import Ball
from danskin.attacks.checks import DataBox
from danskin.evaluation.counted import Counted
from danskin.losses import LossName
from danskin.minmax.measured import grown
from danskin.minmax.rows import rows_of


@dataclass(frozen=True)
class Subject:
    """A model and the examples that it is asked about; it is looked at in eval mode."""

    model: Any
    x: Tensor
    y: Tensor
    ball: Ball
    box: DataBox
    seed: int
    losses: tuple[LossName, LossName]  # the usual one, and one that does not saturate
    asked: Counted = field(default_factory=lambda: Counted(None))  # the model, counting

    def first(self, n: int) -> Subject:
        """The first n of its examples."""
        n = min(n, len(self.x))
        ball = rows_of(self.ball, torch.arange(n, device=self.x.device))
        return replace(self, x=self.x[:n], y=self.y[:n], ball=ball)

    def pgd(self, steps: int, radius: float | None = None, **options: Any) -> PGD:
        """PGD on the usual loss."""
        ball = self.ball if radius is None else grown(self.ball, radius)
        return PGD(ball, steps=steps, box=self.box, loss=self.losses[0], **options)
