"""Clean and robust accuracy on held-out examples, over all processes: after each epoch of training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from danskin.attacks import Attack
from danskin.attacks.outcomes import outcomes
from danskin.metrics import PerClass, Share
from danskin.training.objective import Objective, inner_attack
from danskin.training.process import Process, part_of

#: Which accuracy decides which epoch is best.
Select = Literal["auto", "robust", "clean"]
Prepare = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Validation:
    """Judges weights on held-out examples.

    Args:
        objective: what was minimised.
        data: (x, y) of all processes.
        monitor: attack for the robust accuracy, or None.
        select: see `Trainer`.
        process: this process among others.
    """

    objective: Objective
    data: tuple[Tensor, Tensor]
    monitor: Attack | None
    select: Select
    process: Process

    def __call__(self, weights: nn.Module, prepare: Prepare) -> tuple[dict[str, Any], float]:
        """What an epoch came to, and the accuracy that decides which epoch is best.

        Args:
            weights: the module to judge.
            prepare: from examples to what the module takes.
        """
        right, survived = self._outcomes(weights, prepare)
        clean, robust = self._total(right), None if survived is None else self._total(survived)
        row: dict[str, Any] = {
            "clean": clean.value,
            "robust": None if robust is None else robust.value,
            "validation_examples": clean.n,
        }
        if survived is not None:
            row |= self._by_class(right, survived)
        return row, self._selected(clean, robust).value

    def _outcomes(self, weights: nn.Module, prepare: Prepare) -> tuple[Tensor, Tensor | None]:
        """Which of this process's validation examples are right, clean and under the monitor."""
        x, y = (t[part_of(self.process)] for t in self.data)
        clean = outcomes(weights, x, y, prepare=prepare).correct
        if self.monitor is None:
            return clean, None
        return clean, outcomes(weights, x, y, self.monitor, prepare=prepare, among=clean).correct

    def _by_class(self, clean: Tensor, robust: Tensor) -> dict[str, Any]:
        """Per class of the validation set: examples, right, right under attack; and the worst one (LECTURE row C15)."""
        y = self.data[1]
        low, classes = int(y.min()), int(y.max()) + 1
        if low < 0:  # -1/+1 labels: one output, two classes that nobody numbers
            return {}
        each = PerClass.of(y[part_of(self.process)], clean, robust, classes)
        mine = torch.tensor([[s.n, s.hits, r.hits] for s, r in zip(each.clean, each.robust, strict=True)])
        counts = self.process.sum(mine.to(y.device)).tolist()
        shares = [r / n for n, _, r in counts if n]
        return {
            "classes": counts,
            "worst_class": min(shares),
            "worst_class_clean": min(c / n for n, c, _ in counts if n),
        }

    def _selected(self, clean: Share, robust: Share | None) -> Share:
        """The accuracy that decides which epoch is best."""
        by_robust = self.select == "robust" or (self.select == "auto" and inner_attack(self.objective) is not None)
        return robust if by_robust and robust is not None else clean

    def _total(self, correct: Tensor) -> Share:
        device = self.data[1].device
        hits, n = self.process.sum(torch.tensor([int(correct.sum()), len(correct)], device=device)).tolist()
        return Share(hits, n)
