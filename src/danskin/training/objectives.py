"""Standard and adversarial training, and the exact robust risk of linear models. LECTURE rows A2, B7, C1, C7."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from danskin.attacks import BETA, Attack, robust_margin
from danskin.attacks.bounds import Ball
from danskin.attacks.guard import BatchNormMode
from danskin.attacks.towards import TOGETHER
from danskin.errors import InputError
from danskin.losses import LossName, check_labels, get_loss
from danskin.minmax import Template
from danskin.training.objective import (
    Found,
    Losses,
    Model,
    Objective,
    Step,
    attacked,
    judged,
    logits_at,
    outer_loss,
    trainable_loss,
)


@dataclass(frozen=True)
class StandardTraining(Objective):
    """mean_i loss(model(x_i), y_i): empirical risk.

    Args:
        loss: by name (`danskin.losses.LOSSES`).
    """

    template: ClassVar[Template] = Template("weights", "-", "-", "loss of the model")
    moves: ClassVar[str] = "gradient descent"

    loss: LossName = "cross_entropy"

    def search(self, model: Model, x: Tensor, y: Tensor, step: Step) -> Found:
        """The clean inputs."""
        return Found(x, y, x)

    def losses(self, model: Model, found: Found, step: Step) -> Losses:
        """The losses there."""
        logits = logits_at(model, found.points)
        return judged(logits, found.y, trainable_loss(self.loss)(logits, found.y))


@dataclass(frozen=True)
class AdversarialTraining(Objective):
    """mean_i loss(model(x_i + delta_i), y_i), with delta_i found by an attack on the current weights.

    The gradient is Danskin's: taken at delta held fixed. With `FGSM`, `RSFGSM`, `NFGSM` or `PGD` inside this is
    FGSM training, fast adversarial training, N-FGSM and Madry's training.

    Args:
        attack: any attack; keep="last" is what Madry et al. do and saves a forward pass.
        loss: what the weights minimise; default: the attack's own loss, cross-entropy where that is targeted.
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

    def search(self, model: Model, x: Tensor, y: Tensor, step: Step) -> Found:
        """The attacked inputs."""
        return attacked(self.attack, model, x, y, step.seed, self.batchnorm)

    def losses(self, model: Model, found: Found, step: Step) -> Losses:
        """The losses there."""
        loss, logits = trainable_loss(outer_loss(self.attack, self.loss)), logits_at(model, found.points)
        return judged(logits, found.y, loss(logits, found.y))


@dataclass(frozen=True)
class BETATraining(Objective):
    r"""mean_i CE(model(x_i + delta_ij*), y_i), delta_ij for the largest margin of class j, j* the best class.

    Attacker and defender play different games: the attacker maximises the margin, an exact surrogate of its 0-1
    payoff, the defender minimises cross-entropy, an upper bound of it. The smooth variant trains on the points of all
    wrong classes, weighted by softmax_j(mu * margin_ij), held constant; mu to infinity is the hard variant, mu = 0 the
    mean.

    Args:
        attack: `BETA`, whose `classes` limits the wrong classes tried; keep="value" trains on the largest margin.
        mu: None for the hard variant.
        batchnorm: what BatchNorm does during the attack.

    Reference: Robey, Latorre, Pappas, Hassani and Cevher, ICLR 2024, Algorithms 2 and 3; the weights of the smooth
    variant are our reading. Lecture: row C7.

    The smooth variant passes the points of 16 classes at a time and, with more classes, computes their activations
    again in the backward pass, so that memory does not grow with the number of classes; BatchNorm in training mode
    then sees these groups, and updates its buffers twice for each. `BETA.classes` keeps to the leading ones.
    """

    template: ClassVar[Template] = Template("weights", "input shift", "ball and box", "CE below, margin above")
    moves: ClassVar[str] = "the best targeted attack inside, gradient descent outside"

    attack: BETA
    mu: float | None = None
    batchnorm: BatchNormMode = "eval"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.attack, BETA):
            raise InputError(
                f"BETATraining.attack: expected BETA, got {type(self.attack).__name__}; use AdversarialTraining for it"
            )
        if self.mu is not None and not self.mu >= 0:
            raise InputError(f"BETATraining.mu: expected a number >= 0, got {self.mu}; None is the hard variant")

    def search(self, model: Model, x: Tensor, y: Tensor, step: Step) -> Found:
        """The best point of each example, or those of all its wrong classes."""
        if self.mu is None:
            return attacked(self.attack, model, x, y, step.seed, self.batchnorm)
        batch = self.attack.batch(x, y)
        each = self.attack.per_class(model, x, y, seed=step.seed, batchnorm=self.batchnorm)
        points = torch.stack([self.attack.points(batch, delta) for delta in each.delta.unbind(1)])
        return Found(x, batch.y, points, weights=each.weights(self.mu).T)

    def losses(self, model: Model, found: Found, step: Step) -> Losses:
        """Cross-entropy there; for several points the weighted sum."""
        loss = trainable_loss("cross_entropy")
        if found.weights is None:
            logits = logits_at(model, found.points)
            return judged(logits, found.y, loss(logits, found.y))
        value, wrong = 0.0, torch.zeros_like(found.y, dtype=torch.bool)
        many = len(found.points) > TOGETHER
        for points, weights in zip(found.points.split(TOGETHER), found.weights.split(TOGETHER), strict=True):
            m, n = weights.shape
            flat = points.flatten(0, 1)
            logits = checkpoint(logits_at, model, flat, use_reentrant=False) if many else logits_at(model, flat)
            each = judged(logits, found.y.repeat(m), loss(logits, found.y.repeat(m)))
            value, wrong = value + (weights * each.value.view(m, n)).sum(0), wrong | each.wrong.view(m, n).any(0)
        return Losses(torch.as_tensor(value), wrong)


@dataclass(frozen=True)
class LinearRobustTraining(Objective):
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

    def search(self, model: Model, x: Tensor, y: Tensor, step: Step) -> Found:
        """The clean inputs: the worst case needs no search."""
        return Found(x, y, x)

    def losses(self, model: Model, found: Found, step: Step) -> Losses:
        """The exact robust losses."""
        loss = get_loss(self.loss)
        if not loss.binary:
            raise InputError(
                f"LinearRobustTraining.loss: expected 'logistic', 'hinge' or 'squared', got {self.loss!r}; "
                "classes have no closed form"
            )
        inputs, y = found.x.detach().requires_grad_(), found.y
        h = model(inputs)
        check_labels(y, h, loss)
        (weight,) = torch.autograd.grad(h.sum(), inputs, create_graph=True)
        margin = robust_margin(y * h.reshape(-1), weight, self.ball)
        return Losses(loss.function(margin, torch.ones_like(y)), margin.detach() < 0)
