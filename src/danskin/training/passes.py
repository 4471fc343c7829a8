"""One step of training under an optimiser that asks for the gradient more than once."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from danskin.errors import InputError
from danskin.optim import SAF, SAMPa
from danskin.optim.per_example import PerExample
from danskin.training.objective import Found, Memory, Model, Objective, Step, logits_at, outer_loss, trainable_loss
from danskin.training.objectives import AdversarialTraining, StandardTraining
from danskin.training.sharpness import WithAdversary


@dataclass
class Passes:
    """An objective on a batch, asked once or twice in a step.

    Args:
        objective: what is minimised.
        model: the module, or its DistributedDataParallel wrapper.
        settings: of the optimiser.
        around: the context of a forward pass (autocast).
        step: of the objective; its memory moves once a step, whatever is asked.
    """

    objective: Objective
    model: Model
    settings: WithAdversary
    around: Callable[[], AbstractContextManager[Any]]
    step: Step

    def __post_init__(self) -> None:
        self._spare = _copied(self.step.memory)
        self._found: Found | None = None

    def loss(self, x: Tensor, y: Tensor) -> Callable[[], Tensor]:
        """The closure: the objective at the weights, then at shifted ones, with the attack again or its points held."""

        def closure() -> Tensor:
            first = self._found is None
            step = self.step if first else replace(self.step, memory=_copied(self._spare))
            with self.around():
                found = self._points(x, y, step, first)
                loss = self.objective.losses(self.model, found, step).value.mean()
            loss.backward()
            return loss

        return closure

    def _points(self, x: Tensor, y: Tensor, step: Step, first: bool) -> Found:
        if self._found is None:
            self._found = self.objective.search(self.model, x, y, step)
            return self._found
        if self.settings.attack == "held":
            return replace(self._found, gradient=None)  # that was the one at the weights
        return self.objective.search(self.model, x, y, step)

    def forward(self, x: Tensor, y: Tensor) -> Callable[[Tensor | None], Tensor]:
        """Logits at the points that the attack found at the weights, for optimisers that look at examples."""

        def forward(rows: Tensor | None) -> Tensor:
            with self.around():
                if self._found is None:
                    self._found = self.objective.search(self.model, x, y, self.step)
                points = self._found.points
                return logits_at(self.model, points if rows is None else points[rows])

        return forward


def optimised(optimizer: Any, passes: Passes, x: Tensor, y: Tensor, index: Tensor) -> Tensor:
    """One step; the loss at the weights, detached."""
    if isinstance(optimizer, PerExample):
        optimizer.loss = per_example_loss(passes.objective)
        found: Tensor = optimizer.step(passes.forward(x, y), y, index)
        return found
    if isinstance(optimizer, SAMPa):
        fresh = passes.step

        def closure(batch: tuple[Tensor, Tensor, Tensor, Tensor]) -> Tensor:
            x, y, index, seed = batch
            now = int(seed) == fresh.seed
            step = Step(int(seed), fresh.memory if now else _copied(passes._spare), index, fresh.processes)
            one = Passes(passes.objective, passes.model, passes.settings, passes.around, step)
            return one.loss(x, y)()

        found = optimizer.step(closure, (x, y, index, torch.tensor(fresh.seed)))
        return found
    found = optimizer.step(passes.loss(x, y))
    return found


def per_example_loss(objective: Objective) -> Callable[[Tensor, Tensor], Tensor]:
    """The loss of one example from its logits.

    Raises:
        InputError: the objective is more than such a loss at the points found.
    """
    if type(objective) is StandardTraining:
        return trainable_loss(objective.loss)
    if type(objective) is AdversarialTraining:
        return trainable_loss(outer_loss(objective.attack, objective.loss))
    raise InputError(
        f"optimizer: expected the objective 'standard' or 'adversarial' with esam, bisam, saf and mesa, which look at "
        f"logits, got {type(objective).__name__}; use sam, asam, gsam, friendlysam, looksam, aesam or sampa"
    )


def check_goes_with(settings: WithAdversary, optimizer: Any, objective: Objective, world: int, per_batch: int) -> None:
    """Raise where an optimiser of several gradients cannot take an objective.

    Raises:
        InputError: with what to use instead.
    """
    name = type(settings).__name__
    if objective.replays > 1 or per_batch > 1:
        raise InputError(
            f"{name}: expected an objective with one step per batch, got {type(objective).__name__} with "
            f"{objective.replays * per_batch}; use SGD or AdamW, or AdversarialTraining"
        )
    if isinstance(optimizer, PerExample):
        per_example_loss(objective)
    if world > 1 and isinstance(optimizer, SAF):
        raise InputError(f"{name}: expected one process, got {world}; each would remember its own examples only")
    if world > 2 and isinstance(optimizer, SAMPa):
        raise InputError(
            f"{name}: expected one process or two, one for each gradient, got {world}; danskin.optim.SAMPa(group=) "
            "runs on several pairs in a loop of your own"
        )
    if world > 1 and isinstance(optimizer, SAMPa) and objective.begin():
        raise InputError(
            f"{name}: expected an objective that keeps nothing from step to step on two processes, got "
            f"{type(objective).__name__}; train it on one"
        )


def _copied(memory: Memory) -> Memory:
    return {name: kept.detach().clone() for name, kept in memory.items()}
