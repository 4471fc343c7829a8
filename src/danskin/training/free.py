"""Free adversarial training: one backward pass moves weights and perturbation. LECTURE row C10."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from danskin.attacks.bounds import Ball, perturbations
from danskin.attacks.checks import DataBox, check_box, check_inputs, check_integer_labels, check_radius
from danskin.errors import InputError
from danskin.losses import LossName
from danskin.minmax import Number, Template, number
from danskin.minmax.gradients import finite, warn_of_bad_gradient
from danskin.minmax.measured import radius_of
from danskin.minmax.precision import at_least_float32
from danskin.minmax.sets import rowwise
from danskin.training.objective import Found, Losses, Memory, Model, Objective, Step, judged, logits_at, trainable_loss

_DELTA = "free.delta"


@dataclass(frozen=True)
class FreeTraining(Objective):
    r"""mean_i loss(model(x_i + delta_i), y_i), where backward() also gives the gradient to delta.

    The next call moves delta by it: delta <- project(delta + step * d). Every batch is trained on `replays` times, and
    delta is carried over to the next batch, place by place: it belongs to places in the batch, not to examples.

    Args:
        ball: the perturbation ball.
        replays: optimiser steps on each batch, >= 1 (m; the published 8).
        step: length of a step of delta, a number or a text.
        loss: what both players are paid.
        box: (low, high) of valid data, or None.

    Reference: Shafahi et al., "Adversarial training for free!", NeurIPS 2019, Algorithm 1; as there delta starts at 0
    once. Lecture: row C10. A schedule of the learning rate counts every replay as a step.
    """

    template: ClassVar[Template] = Template("weights", "input shift", "ball and box", "loss of the model")
    moves: ClassVar[str] = "weights and shift in turn, by the same backward pass"
    places: ClassVar[tuple[str, ...]] = (_DELTA,)  # type: ignore[misc]

    ball: Ball
    replays: int = 8
    step: Number = "radius"
    loss: LossName = "cross_entropy"
    box: DataBox = (0, 1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.replays < 1:
            raise InputError(f"FreeTraining.replays: expected at least 1, got {self.replays}; 8 as published")

    def begin(self) -> Memory:
        """The perturbation of the last batch; empty before the first."""
        return {_DELTA: torch.empty(0)}

    def search(self, model: Model, x: Tensor, y: Tensor, step: Step) -> Found:
        """The perturbation of before, moved by the gradient that the last backward() gave it."""
        check_box(self.box)
        check_inputs(x, self.box)
        check_radius(self.ball, x, self.box)
        held = step.memory[_DELTA]
        work = at_least_float32(x)
        delta = torch.zeros_like(work)
        Y = perturbations(work, self.ball, self.box)
        if held.shape[1:] == x.shape[1:]:
            n = min(len(held), len(x))  # a shorter batch leaves the places behind it for good
            delta[:n] = held[:n].detach().to(delta)
            if held.grad is not None:
                length = number(self.step, radius=radius_of(self.ball), steps=1)
                slope, bad = finite(held.grad[:n].to(delta), delta.new_zeros(n))
                if bool(bad):
                    warn_of_bad_gradient()
                delta[:n] += rowwise(length, delta[:n]) * self.ball.steepest(slope)
        delta = Y.project(delta).detach().requires_grad_()
        step.memory[_DELTA] = delta
        return Found(x, check_integer_labels(y, x), (x + delta).to(x.dtype))

    def losses(self, model: Model, found: Found, step: Step) -> Losses:
        """The losses there, with a gradient to weights and perturbation."""
        logits = logits_at(model, found.points)
        return judged(logits, found.y, trainable_loss(self.loss)(logits, found.y))
