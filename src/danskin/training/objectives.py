"""Objectives over weights: ``objective(model, x, y, seed=0) -> scalar loss``, ready for backward().

They work in anyone's loop. The mean over the batch is taken here and nowhere before. LECTURE row C1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from danskin.attacks import Attack, robust_margin
from danskin.attacks.attack import Ball
from danskin.attacks.guard import BatchNormMode
from danskin.errors import InputError
from danskin.losses import LossName, check_labels, get_loss
from danskin.minmax import Streams, Template, danskin


class Objective(Protocol):
    """What a trainer minimises."""

    def __call__(self, model: Callable[[Tensor], Tensor], x: Tensor, y: Tensor, *, seed: int = 0) -> Tensor:
        """The loss of a batch: a scalar with a gradient to the weights."""
        ...


@dataclass(frozen=True)
class StandardTraining:
    """mean_i loss(model(x_i), y_i): empirical risk.

    Args:
        loss: by name (`danskin.losses.LOSSES`).
    """

    template: ClassVar[Template] = Template("weights", "-", "-", "loss of the model")
    moves: ClassVar[str] = "gradient descent"

    loss: LossName = "cross_entropy"

    def __call__(self, model: Callable[[Tensor], Tensor], x: Tensor, y: Tensor, *, seed: int = 0) -> Tensor:
        """The mean loss on clean inputs."""
        logits = model(x)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        return _checked(self.loss)(logits, y).mean()


@dataclass(frozen=True)
class AdversarialTraining:
    """mean_i loss(model(x_i + delta_i), y_i), with delta_i found by an attack on the current weights.

    The gradient is Danskin's: taken at delta held fixed. The attack sees the raw module, also under
    DistributedDataParallel.

    Args:
        attack: any attack; keep="last" is what Madry et al. do and saves a forward pass.
        loss: what the weights minimise; default: the attack's own loss.
        batchnorm: what BatchNorm and dropout do during the attack: "eval" (running statistics),
            "batch_frozen" (batch statistics, buffers untouched) or "train_update" (batch statistics, and each
            attack step updates the buffers, as in Madry's, Wong's and Rice's code).

    Reference: Madry et al., ICLR 2018, eq. (2.1). Lecture: row C1.
    """

    template: ClassVar[Template] = Template("weights", "input shift", "ball and box", "loss of the model")
    moves: ClassVar[str] = "an attack inside, gradient descent outside"

    attack: Attack
    loss: LossName | None = None
    batchnorm: BatchNormMode = "eval"

    def __call__(self, model: Callable[[Tensor], Tensor], x: Tensor, y: Tensor, *, seed: int = 0) -> Tensor:
        """The mean loss at the attacked inputs."""
        if len(x) == 0:
            raise InputError("AdversarialTraining: expected at least one example, got an empty batch; skip it")
        batch = self.attack.batch(x, y)
        outer = _checked(self.loss) if self.loss else None
        problem = self.attack.problem(model, outer, self.batchnorm, x.device)
        streams = Streams.of_content(seed, batch.x)
        loss, _ = danskin(problem, batch, self.attack.maximizer(), streams)
        return loss


@dataclass(frozen=True)
class LinearRobustTraining:
    """mean_i loss(b_i h(x_i) - radius * dual_norm(grad h)): the exact robust risk of a linear model.

    No attack is needed: for an affine model with one output the worst case is in closed form (no data box).
    The gradient of h is taken by automatic differentiation, so any affine module works.

    Args:
        ball: the perturbation ball.
        loss: "logistic", "hinge" or "squared" of the margin.

    Lecture: row B7.
    """

    template: ClassVar[Template] = Template("weights", "input shift", "ball", "margin loss of a linear model")
    moves: ClassVar[str] = "closed form inside, gradient descent outside"

    ball: Ball
    loss: LossName = "logistic"

    def __call__(self, model: Callable[[Tensor], Tensor], x: Tensor, y: Tensor, *, seed: int = 0) -> Tensor:
        """The mean exact robust loss."""
        loss = get_loss(self.loss)
        if not loss.binary:
            raise InputError(
                f"LinearRobustTraining.loss: expected 'logistic', 'hinge' or 'squared', got {self.loss!r}; "
                "classes have no closed form"
            )
        inputs = x.detach().requires_grad_()
        h = model(inputs)
        check_labels(y, h, loss)
        (weight,) = torch.autograd.grad(h.sum(), inputs, create_graph=True)
        margin = robust_margin(y * h.reshape(-1), weight, self.ball)
        return loss.function(margin, torch.ones_like(y)).mean()


def _checked(name: LossName) -> Callable[[Tensor, Tensor], Tensor]:
    """The loss called `name`, which refuses labels that do not fit."""
    loss = get_loss(name)
    if loss.targeted or name == "zero_one":
        raise InputError(
            f"loss: expected one that weights can minimise, with a gradient and without targets, got {name!r}; use "
            "cross_entropy"
        )

    def function(logits: Tensor, labels: Tensor) -> Tensor:
        check_labels(labels, logits, loss)
        return loss.function(logits, labels)

    return function


def inner_attack(objective: Any) -> Attack | None:
    """The attack inside an objective, or None."""
    found = getattr(objective, "attack", None)
    return found if isinstance(found, Attack) else None
