"""What an evaluation wants written down as it goes. The journal on disk is `danskin.run.journal`."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

from danskin.evaluation.examples import Chunk
from danskin.minmax import Cost

#: Outcome codes per example beside the number of the stage that broke it: 1, 2, ...
ROBUST, WRONG = -1, 0


class Journal(Protocol):
    """A memory of outcomes that survives the process."""

    def open(self, question: dict[str, Any]) -> None:
        """Begin, or go on with the same question; raises when what is there is about another one."""
        ...

    def known(self, chunk: Chunk) -> tuple[Tensor, Tensor]:
        """For each example of the chunk, what broke it (ROBUST where nothing did), and the last stage it has passed."""
        ...

    def broken(self, index: Tensor, stage: int, points: Tensor | None) -> None:
        """These examples are wrong at stage `stage`; `points` are the inputs that show it."""
        ...

    def passed(self, chunk: Chunk, index: Tensor, stage: int, cost: Cost) -> None:
        """The stage is over for this chunk: these examples have survived it."""
        ...

    def spent(self) -> dict[int, Cost]:
        """What each stage has cost so far, earlier processes included."""
        ...


class Memory:
    """The journal of those who want none: outcomes of the chunk in work, and costs."""

    def __init__(self) -> None:
        self.costs: dict[int, Cost] = {}

    def open(self, question: dict[str, Any]) -> None:
        """Nothing to compare with."""

    def known(self, chunk: Chunk) -> tuple[Tensor, Tensor]:
        """Nothing is."""
        return torch.full((len(chunk.index),), ROBUST), torch.full((len(chunk.index),), -1)

    def broken(self, index: Tensor, stage: int, points: Tensor | None) -> None:
        """Forgotten: the verdict has it."""

    def passed(self, chunk: Chunk, index: Tensor, stage: int, cost: Cost) -> None:
        """Add up the cost."""
        self.costs[stage] = self.costs.get(stage, Cost()) + cost

    def spent(self) -> dict[int, Cost]:
        """The costs."""
        return self.costs
