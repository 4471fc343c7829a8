"""Any objective with terms against catastrophic overfitting."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, ClassVar

from danskin.attacks.guard import BatchNormMode, mode_of, raw_module
from danskin.errors import DanskinWarning, InputError
from danskin.minmax import Template
from danskin.regularizers import Regularizer
from danskin.training.objective import Found, Losses, Memory, Model, Step, Wrapper


@dataclass(frozen=True)
class Regularized(Wrapper):
    """The losses of another objective, plus terms at the clean inputs.

    Args:
        objective: any.
        terms: one or more of `danskin.regularizers`; each sees the model as the objective's adversary does, in its
            BatchNorm mode, and takes the gradient at the clean input from it where both want the same one.
        batchnorm: overrides that mode: "eval", "batch_frozen", or "train_update" as in released code.

    Lecture: rows C11 to C14.
    """

    template: ClassVar[Template] = Template("weights", "that of the objective", "its set", "its loss + terms")
    moves: ClassVar[str] = "an objective's adversary, gradient descent outside"

    terms: tuple[Regularizer, ...]
    batchnorm: BatchNormMode | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.terms or not all(isinstance(term, Regularizer) for term in self.terms):
            raise InputError(f"Regularized.terms: expected one regulariser or more, got {self.terms!r}; pass (term,)")
        other = [term for term in self.terms if self.attack is not None and repr(term.ball) != repr(self.attack.ball)]
        if other:
            warnings.warn(
                f"Regularized: expected terms on the ball of the attack, {self.attack.ball!r}, got "  # type: ignore[union-attr]
                f"{type(other[0]).__name__} on {other[0].ball!r}; if that is meant, ignore this",
                DanskinWarning,
                stacklevel=2,
            )

    @property
    def horizon(self) -> int:
        """The longest warm-up of the objective and the terms."""
        return max(self.objective.horizon, *(term.horizon for term in self.terms))

    def begin(self) -> Memory:
        """What the objective and the terms keep."""
        memory = super().begin()
        for i, term in enumerate(self.terms):
            memory |= {f"terms.{i}.{name}": kept for name, kept in term.begin().items()}
        return memory

    def gauges(self, memory: Memory) -> dict[str, float]:
        """Those of the objective inside, and the weights that are switched on and off."""
        switched = {
            f"weight of {type(term).__name__}": term.schedule.weight(_part(memory, f"terms.{i}."), term.weight)
            for i, term in enumerate(self.terms)
            if term.schedule is not None
        }
        return super().gauges(memory) | switched

    def losses(self, model: Model, found: Found, step: Step) -> Losses:
        """The losses there and the terms."""
        losses, raw = self.objective.losses(model, found, step), raw_module(model)
        value, attack = losses.value, self.attack
        with mode_of(raw, self.batchnorm or _mode_inside(self.objective)):
            for i, term in enumerate(self.terms):
                same = self.batchnorm is None and attack is not None and attack.loss == term.loss
                value = value + term(
                    raw,
                    found.x,
                    found.y,
                    seed=step.seed,
                    gradient=found.gradient if same else None,
                    memory=_part(step.memory, f"terms.{i}."),
                    mean=step.processes.mean,
                )
        return losses._replace(value=value)


def _mode_inside(objective: Any) -> BatchNormMode:
    """The BatchNorm mode of the adversary inside an objective; running statistics where there is none."""
    mode = getattr(objective, "batchnorm", None)
    return mode or (_mode_inside(objective.objective) if isinstance(objective, Wrapper) else "eval")


def _part(memory: Memory, prefix: str) -> Memory:
    """The tensors whose names begin with a prefix; a term changes them in place."""
    return {name.removeprefix(prefix): kept for name, kept in memory.items() if name.startswith(prefix)}
