"""Linear models: the worst case in closed form. LECTURE row B7.

For a linear score h(a) = <w, a> + b0 and labels b = -1/+1, the least margin over the ball is
b h(a) - radius * dual_norm(w): 'infinity' budgets are paid in l1, l1 budgets in l_inf, which is why sparse
(l1-light) models resist l_inf perturbations. With a data box the linear maximiser over ball and box takes
the place of the dual norm.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from danskin.attacks.attack import Attack
from danskin.attacks.bounds import Ball
from danskin.attacks.payoff import ShiftPayoff
from danskin.errors import InputError, ModelError
from danskin.losses import logistic
from danskin.minmax import Cost, Maximizer, Maximum, Set, Status, Streams
from danskin.minmax.measured import radius_of


def robust_margin(margin: Tensor, weight: Tensor, ball: Ball) -> Tensor:
    """Least margin of a linear model over the ball (no box): margin - radius * dual_norm(weight).

    Args:
        margin: (batch,) b * h(a).
        weight: (batch, ...) or (1, ...) the gradient of h: the weights.
        ball: the perturbation ball.
    """
    return margin - radius_of(ball) * ball.dual_norm(weight)


@dataclass(frozen=True)
class LinearWorstCase(Attack):
    """The exact worst case of an affine model: for each wrong class the linear maximiser of its lead.

    Raises `ModelError` when the model is not affine on the points it looks at. Costs two forward passes (the
    second checks the promise) and a backward pass per class. With one output and labels -1/+1 use
    loss="logistic", "hinge" or "squared"; with classes the margin decides which vertex is worst. Targets
    need two classes: with more, the worst case for a target is not a linear maximiser.
    """

    moves: ClassVar[str] = "every vertex that can be worst"

    def maximizer(self) -> Maximizer:
        """All targets' linear maximisers, the best by its lead."""
        return _worst_vertex


def _leads(payoff: ShiftPayoff, logits: Tensor) -> Tensor:
    """(batch, k): what must become positive for an error, one column per way to err."""
    if logits.ndim == 1 or logits.shape[1] == 1:
        return -(logits.reshape(-1) * payoff.goal.y).unsqueeze(1)
    if payoff.goal.targets is not None:
        if logits.shape[1] > 2:
            raise InputError(
                f"LinearWorstCase: expected no targets with more than two classes, got targets and {logits.shape[1]} "
                "classes; leave targets out, or use PGD"
            )
        goal = logits.gather(1, payoff.goal.targets[:, None])
        return (goal - logits.scatter(1, payoff.goal.targets[:, None], -torch.inf).amax(1, True)).expand(-1, 1)
    own = torch.nn.functional.one_hot(payoff.goal.y, logits.shape[1]).bool()
    return (logits - logits.gather(1, payoff.goal.y[:, None])).masked_fill(own, -torch.inf)


def _worst_vertex(f: Any, y0: Tensor, Y: Set, generator: Streams | None = None) -> Maximum:
    delta = y0.detach().requires_grad_()
    device = y0.device.type
    with torch.autocast(device, enabled=False):  # cheap passes save nothing here and blur what is exact
        leads = _leads(f, f.logits(f.shifted(delta), plain=True))
    if not leads.requires_grad:
        raise ModelError(
            "model: expected outputs that depend differentiably on the input, got outputs without a gradient; remove "
            "no_grad, detach, argmax or numpy from the model"
        )
    best, promised = y0.detach().clone(), leads.new_full((len(y0),), -torch.inf)
    for k in range(leads.shape[1]):
        real = leads[:, k].isfinite()
        (g,) = torch.autograd.grad(leads[:, k][real].sum(), delta, retain_graph=True, materialize_grads=True)
        vertex = Y.lmo(g)
        lead = leads[:, k].detach() + (g * vertex).reshape(len(g), -1).sum(1)
        better = real & (lead > promised)
        promised = torch.where(better, lead, promised)
        best = torch.where(better.view(-1, *[1] * (best.ndim - 1)), vertex, best)
    with torch.no_grad(), torch.autocast(device, enabled=False):
        logits = f.logits(f.shifted(best), plain=True)
    found = _leads(f, logits).amax(1)
    scale = 1 + logits.abs().reshape(len(logits), -1).amax(1) + promised.abs()
    rounding = max(1e-3, 16 * torch.finfo(f.asking.dtype).eps)  # of a model in half precision
    if bool(((found - promised).abs() > rounding * scale).any()):
        raise ModelError(
            "LinearWorstCase: expected an affine model, got one whose outputs are not linear in the input; use PGD"
        )
    n = len(y0)
    cost = Cost(2 * n, leads.shape[1] * n, 2)
    return Maximum(best, f.goal.value(logits), f.goal.adversarial(logits), cost, Status.DONE)


def robust_logistic_risk(model: torch.nn.Linear, x: Tensor, y: Tensor, ball: Ball) -> Tensor:
    """(batch,): log(1 + exp(-(b h(a) - radius * dual_norm(w)))), the exact adversarial logistic loss.

    Differentiable in the weights: averaged, it is robust training of a linear model in closed form.

    Args:
        model: one output.
        x: (batch, d).
        y: (batch,) -1/+1.
        ball: the perturbation ball.
    """
    margin = robust_margin(y * model(x).reshape(-1), model.weight, ball)
    return logistic(margin, torch.ones_like(y))
