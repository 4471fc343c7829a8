"""Focused online learning: an adversary over examples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from danskin.attacks.checks import check_integer_labels
from danskin.errors import InputError
from danskin.minmax import Number, Template, number
from danskin.training.exp3 import chances, check_draws_alone, check_exp3, drawn, uniforms
from danskin.training.objective import Found, Losses, Memory, Model, Step, Wrapper, check_reweightable

_WEIGHTS = "fol.log_weights"


@dataclass(frozen=True)
class FOL(Wrapper):
    r"""min over weights of max_i L_i, L_i another objective's loss of example i: a bandit plays the examples.

    As `CFOL`, with examples in place of classes: p = gamma / n + (1 - gamma) softmax(w), the batch is drawn by p, and
    after it w_i grows by eta [wrong_i] / p_i for every example i in it.

    Args:
        objective: any whose losses may be weighted, such as `AdversarialTraining`.
        examples: n, of the whole data set, >= 2.
        gamma: share of plain uniform examples, in [0, 1].
        eta: learning rate of the bandit, > 0. p starts at 1 / n: the first mistake adds eta n.

    Raises:
        InputError: fewer than 2 examples, gamma outside [0, 1], eta <= 0, no `index=`, or one outside the data set.

    Reference: Shalev-Shwartz and Wexler, "Minimizing the maximal loss: how and why", ICML 2016, Algorithm 1. Lecture:
    row C15. A loop of one's own must ask `draw`, and pass the places it got as index=.
    """

    template: ClassVar[Template] = Template(
        "weights", "an example", "simplex with exploration", "0-1 loss, and any below"
    )
    moves: ClassVar[str] = "an objective's adversary, Exp3 over examples, gradient descent outside"

    examples: int
    gamma: float = 0.5
    eta: Number = 1e-5

    def __post_init__(self) -> None:
        super().__post_init__()
        check_reweightable("FOL", self.objective)
        check_exp3("FOL", "examples", self.examples, self.gamma, float(number(self.eta)))

    def begin(self) -> Memory:
        """The logarithms of the weights of the examples, and what the objective inside keeps."""
        return super().begin() | {_WEIGHTS: torch.zeros(self.examples, dtype=torch.float64)}

    def probabilities(self, memory: Memory) -> Tensor:
        """(examples,) float64: p."""
        return chances(memory[_WEIGHTS], self.gamma)

    def draw(self, memory: Memory, labels: Tensor, n: int, seed: int) -> Tensor | None:
        """Examples by p, with replacement."""
        if len(labels) != self.examples:
            raise InputError(f"FOL.examples: expected {self.examples}, got {len(labels)}; count those of the data set")
        check_draws_alone("FOL", super().draw(memory, labels, n, seed))
        p = self.probabilities(memory)
        return drawn(p, uniforms(seed, n, 1, p.device)[:, 0]).cpu()

    def losses(self, model: Model, found: Found, step: Step) -> Losses:
        """The losses inside; the bandit sees which of them are wrong."""
        index = step.index
        if index is None:
            raise InputError("FOL: expected index=, the places of the examples in the data set, got none; pass it")
        index = check_integer_labels(index, found.x, "index")
        if len(index) and not 0 <= int(index.min()) <= int(index.max()) < self.examples:
            raise InputError(
                f"FOL.index: expected places from 0 to {self.examples - 1}, got values from {int(index.min())} to "
                f"{int(index.max())}; set examples= to the size of the data set"
            )
        losses = self.objective.losses(model, found, step)
        p = self.probabilities(step.memory).to(index.device)
        grown = torch.zeros_like(p).index_add_(0, index, losses.wrong.to(p))
        held = step.memory[_WEIGHTS]
        errors = step.processes.sum(grown)
        held += (float(number(self.eta)) * torch.where(errors > 0, errors / p.clamp_min(1e-30), 0)).to(held)
        return losses
