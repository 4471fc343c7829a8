"""Danskin's descent direction: many maximisers, and the shortest vector of the hull of their gradients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor

from danskin.attacks import Attack
from danskin.attacks.guard import BatchNormMode, mode_of
from danskin.attacks.parametrizations import fresh_cache
from danskin.errors import InputError
from danskin.losses import LossName
from danskin.minmax import Template, min_norm_weights
from danskin.training.awp import Shifted, module_of
from danskin.training.gram import layerwise_gram
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
    with_gradient,
)

_STATIONARY = 1e-7  # a shortest vector this short against the longest gradient is 0, as in `Subdifferential`


class Hull(NamedTuple):
    """The shortest vector of the hull of k gradients: weights (k,), its length, and the length of the longest one."""

    weights: Tensor
    length: Tensor
    longest: Tensor

    @property
    def factor(self) -> Tensor:
        """What makes the shortest vector one of length 1; 0 where it is 0."""
        zero = self.length <= _STATIONARY * self.longest
        return torch.where(zero, 0.0, 1 / torch.where(zero, 1.0, self.length))


def shortest(gram: Tensor, values: Tensor, active: float | None) -> Hull:
    """The shortest vector of the hull of the gradients whose value is within `active` of the best.

    Args:
        gram: (k, k) inner products, float64.
        values: (k,) what the maximisers reach.
        active: None for all of them.
    """
    kept = torch.ones_like(values, dtype=torch.bool) if active is None else values >= values.max() - active
    rows = kept.nonzero().squeeze(1)
    weights = torch.zeros_like(gram[0])
    weights[rows] = min_norm_weights(gram[rows][:, rows])
    longest = gram.diagonal()[rows].max().clamp_min(0).sqrt()
    return Hull(weights, (weights @ gram @ weights).clamp_min(0).sqrt(), longest)


@dataclass(frozen=True)
class DDi(Objective):
    r"""d = the shortest vector of conv{g_1, ..., g_k}, g_j the gradient of the mean loss at the finds of attack j.

    min over weights of max_j L_j, L_j = mean_i loss(model(x_i + delta_ij), y_i). Where several maximisers tie, minus
    the gradient at one of them may climb; minus d is the steepest descent direction, unless d = 0. backward() leaves
    d = sum_j lambda_j g_j, lambda = argmin over the simplex of |sum_j lambda_j g_j|^2.

    Args:
        attack: any attack with a random start: its k runs start independently.
        k: runs, >= 1; one is `AdversarialTraining`.
        normalize: d / |d|, and 0 where d is 0; the paper's steps.
        active: leaves out runs whose L_j is more than this below the best (the epsilon-active set: a run that ended
            lower is no maximiser, and its gradient does not belong into the hull); None takes all k, as published.
        gram: how the (k, k) inner products are found. "stored" keeps the k gradients: k times the parameters, one
            pass at a time, k (2T + 3) forward passes in all for T steps. "layerwise" holds those of one layer at a
            time, and the activations of k batches, for about 7 / 3 of the cost of the gradients; it cannot know
            what a layer that mixes examples or draws at random did, and refuses BatchNorm and dropout in training.
        batchnorm: what BatchNorm and dropout do during the attack. The k gradients take the model as it is, so that
            running statistics see all k batches.
        loss: what the weights minimise; default: the attack's own loss, cross-entropy where that is targeted.

    The value is sum_j lambda_j L_j. Losses cannot be reweighted by class or example: d belongs to the batch.

    Raises:
        InputError: k < 1, active < 0, or a model that "layerwise" cannot see through.

    Reference: Latorre, Krawczuk, Dadi, Pethick and Cevher, "Finding actual descent directions for adversarial
    training", ICLR 2023, Algorithm 1. Lecture: row C4. The released code never updates running statistics, and solves
    for lambda by 100 steps; here by Wolfe's finite algorithm.
    """

    template: ClassVar[Template] = Template("weights", "input shift", "ball and box", "loss of the model")
    moves: ClassVar[str] = "many attacks inside, the shortest vector of the hull of their gradients outside"
    reweightable = False

    attack: Attack
    k: int = 10
    normalize: bool = False
    active: float | None = None
    gram: Literal["stored", "layerwise"] = "stored"
    batchnorm: BatchNormMode = "eval"
    loss: LossName | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.k < 1:
            raise InputError(f"DDi.k: expected at least 1 run of the attack, got {self.k}; 10 as published")
        if self.active is not None and not self.active >= 0:
            raise InputError(
                f"DDi.active: expected a difference of losses >= 0, got {self.active}; None takes all runs"
            )
        if self.gram not in ("stored", "layerwise"):
            raise InputError(f"DDi.gram: expected 'stored' or 'layerwise', got {self.gram!r}; pick one")

    def search(self, model: Model, x: Tensor, y: Tensor, step: Step) -> Found:
        """(k, batch, ...) what k independent runs find."""
        children = [None] if self.k == 1 else range(self.k)
        runs = [attacked(self.attack, model, x, y, step.seed, self.batchnorm, child) for child in children]
        return Found(x, runs[0].y, torch.stack([run.points for run in runs]))

    def losses(self, model: Model, found: Found, step: Step) -> Losses:
        """The weighted losses there; their mean has the gradient d."""
        if self.gram == "stored":
            return self._stored(model, found, step)
        return self._layerwise(model, found, step)

    def _stored(self, model: Model, found: Found, step: Step) -> Losses:
        raw, loss = _bare(model), trainable_loss(outer_loss(self.attack, self.loss))
        parameters = [p for p in raw.parameters() if p.requires_grad]
        if not parameters:
            raise InputError("DDi: expected a model with weights to train, got none; check requires_grad")
        each, gradients = [], []
        for points in found.points:
            with torch.enable_grad(), fresh_cache():
                logits = logits_at(raw, points)
                losses = judged(logits, found.y, loss(logits, found.y))
                mine = torch.autograd.grad(losses.value.mean(), parameters, allow_unused=True, materialize_grads=True)
            gradients.append([step.processes.mean(g) for g in mine])
            each.append(Losses(losses.value.detach(), losses.wrong))
        value = torch.stack([losses.value for losses in each])
        products = [_products(torch.stack(same)) for same in zip(*gradients, strict=True)]
        gram = torch.stack(products).sum(0) if products else value.new_zeros(self.k, self.k, dtype=torch.float64)
        hull = shortest(gram, step.processes.mean(value.mean(1)), self.active)
        d = [sum(w.to(g) * g for w, g in zip(hull.weights, same, strict=True)) for same in zip(*gradients, strict=True)]
        del gradients
        if self.normalize:  # by its own length, more exact than that of the inner products where they cancel
            length = torch.stack([v.double().square().sum() for v in d]).sum().sqrt()
            d = [hull._replace(length=length).factor.to(v) * v for v in d]
        mixed = (hull.weights.to(value)[:, None] * value).sum(0)
        return Losses(with_gradient(mixed, parameters, d), torch.stack([e.wrong for e in each]).any(0))

    def _layerwise(self, model: Model, found: Found, step: Step) -> Losses:
        raw, loss = _bare(model), trainable_loss(outer_loss(self.attack, self.loss))
        k, n = found.points.shape[:2]
        with mode_of(raw, "as_is"), torch.enable_grad(), fresh_cache():
            logits, gram = layerwise_gram(raw, found.points, lambda out: loss(out, found.y.repeat(k)), step.processes)
            seen = judged(logits, found.y.repeat(k), loss(logits, found.y.repeat(k)))
        hull = shortest(gram, step.processes.mean(seen.value.detach().view(k, n).mean(1)), self.active)
        used = (hull.weights > 0).nonzero().squeeze(1)
        again = logits_at(model, found.points[used].flatten(0, 1))
        value = loss(again, found.y.repeat(len(used))).view(len(used), n)
        mixed = (hull.weights[used].to(value)[:, None] * value).sum(0)
        if self.normalize:
            mixed = mixed.detach() + hull.factor.to(mixed) * (mixed - mixed.detach())
        return Losses(mixed, seen.wrong.view(k, n).any(0))


def _bare(model: Model) -> Any:
    """The model without DistributedDataParallel: what is taken from it is averaged by hand."""
    return model.raw if isinstance(model, Shifted) else module_of("DDi", model)


def _products(rows: Tensor) -> Tensor:
    """(k, k) inner products of the rows of a (k, ...) tensor, in float64."""
    flat = rows.flatten(1)
    return (flat @ flat.T).double()
