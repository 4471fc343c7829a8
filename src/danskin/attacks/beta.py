"""BETA: the best targeted attack, by margins towards every wrong class."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from torch import Tensor

from danskin.attacks.attack import Attack
from danskin.attacks.guard import BatchNormMode
from danskin.attacks.payoff import ShiftPayoff
from danskin.attacks.shared_first import SharedFirst
from danskin.attacks.towards import TOGETHER, Towards, check_classes, wrong_classes
from danskin.errors import InputError
from danskin.inputs import check_model
from danskin.losses import LossName, get_loss
from danskin.minmax import Maximizer, Number, Restarts, Streams, number
from danskin.minmax.search import Keep
from danskin.minmax.steps import Rule, SteppedAscent


@dataclass(frozen=True, eq=False)
class ClassPerturbations:
    """What BETA finds for each wrong class.

    Args:
        delta: (batch, m, ...) perturbations.
        margin: (batch, m) z_j - z_y at them.
        classes: (batch, m) the classes j.
    """

    delta: Tensor
    margin: Tensor
    classes: Tensor

    def weights(self, mu: float) -> Tensor:
        r"""(batch, m) softmax(mu * margin): the maximiser of mu * sum_j w_j margin_j + entropy(w) over the simplex.

        As mu grows all weight goes to the largest margin, which is BETA; mu = 0 is the mean. A class that is not there
        (margin -inf) has weight 0; where none is, all weigh the same.
        """
        if mu < 0:
            raise InputError(f"mu: expected a number >= 0, got {mu}; BETA itself is the limit of large ones")
        there = self.margin > -torch.inf
        there |= ~there.any(1, keepdim=True)
        return torch.where(there, mu * self.margin.clamp(-1e30, 1e30), -torch.inf).softmax(1)


@dataclass(frozen=True)
class BETA(Attack):
    r"""max over j != y and delta of z_j(x + delta) - z_y(x + delta): a run for every wrong class, the best one kept.

    The margin is above 0 exactly where the model errs, so that maximising it solves the attack on the 0-1 loss,
    which maximising cross-entropy does not. All classes move in step as rows of one batch.

    Args:
        ball: the perturbation ball.
        steps: gradients taken for every class.
        step: a number or a text; default "radius/4" with "sign" steps, "radius/10" with "rmsprop".
        rule: "sign" (the ball's steepest direction) or "rmsprop" (as in the paper's comparison with AutoAttack).
        classes: look only at this many wrong classes, the leading ones by clean logits; None is exact.
        restarts: runs from independent random starts.
        keep: "best" (adversarial first, then by margin) or "value" (by margin alone: for training).
        stop: leave an example as soon as it is adversarial.
        width: examples times classes in the batch at a time; an example has at most `towards.TOGETHER` there.
        shared_first: start all classes of an example at one point and take their first gradients from one forward pass
            (`SharedFirst`): K - 2 forward passes fewer; for training, with "sign" steps and without stop.

    Reference: Robey, Latorre, Pappas, Hassani and Cevher, "Adversarial training should be cast as a non-zero-sum
    game", ICLR 2024, Algorithm 1. Lecture: rows C6, C7. `per_class` has what the smooth variant needs.
    """

    moves: ClassVar[str] = "projected ascent for each wrong class"
    aims: ClassVar[bool] = True

    steps: int = 20
    step: Number | None = None
    rule: Rule = "sign"
    classes: int | None = None
    random_start: bool = True
    restarts: int = 1
    keep: Keep = "best"
    stop: bool = False
    width: int | None = None
    shared_first: bool = False
    loss: LossName = field(default="targeted_margin", kw_only=True)

    def _ascent(self) -> SteppedAscent:
        default = "radius/10" if self.rule == "rmsprop" else "radius/4"
        step = number(default if self.step is None else self.step, radius=self.radius, steps=self.steps)
        return SteppedAscent(self.steps, step, self.rule, self.random_start, self.keep, self.stop, self.width)

    def maximizer(self) -> Maximizer:
        """All classes in step."""
        check_classes(self.classes, self.loss)
        if self.restarts > 1 and not self.random_start:
            raise InputError("restarts: expected 1 without a random start, got more; runs from one start are the same")
        run = SharedFirst(self._ascent()) if self.shared_first else self._ascent()
        towards = Towards(run, self.loss, self.classes, self.width, self.stop, self.keep)
        return Restarts(towards, self.restarts, self.stop, self.keep)

    def per_class(
        self,
        model: Callable[[Tensor], Tensor],
        x: Tensor,
        y: Tensor,
        *,
        seed: int = 0,
        batchnorm: BatchNormMode | None = None,
    ) -> ClassPerturbations:
        """The best perturbation for each wrong class by itself, for the smooth variant and for figures.

        The smooth variant replaces the best class by weights (`ClassPerturbations.weights`); its outer loss is
        sum_j w_j CE(f(x + delta_j), y) with w constant.
        """
        check_model(model)
        batch, problem = self.batch(x, y), self.problem(model, batchnorm=batchnorm, device=x.device)
        with problem.guard():
            payoff, Y = problem.adversary_payoff(batch), problem.feasible(batch)
            if not isinstance(payoff, ShiftPayoff) or not len(x):
                raise InputError("BETA.per_class: expected at least one example, got none; pass some")
            classes, streams = wrong_classes(payoff, self.classes, self.width), Streams.of_content(seed, batch.x)
            payoff, parts = payoff.with_loss(get_loss(self.loss)), []
            for first, some in enumerate(classes.split(TOGETHER, 1)):
                m = some.shape[1]
                rows = torch.arange(len(x), device=x.device).repeat_interleave(m)
                copies = first * TOGETHER + torch.arange(m, device=x.device).repeat(len(x))
                run = replace(self._ascent().rows(rows), keep="value", stop=False)
                dice = streams.rows(rows).child(copies)
                found = run(payoff.fanned(some), torch.zeros_like(batch.x)[rows], Y.rows(rows), dice)
                value = found.y.new_empty(0) if found.value is None else found.value
                parts.append((found.y.view(len(x), m, *x.shape[1:]), value.view(len(x), m)))
        delta, margin = (torch.cat(each, 1) for each in zip(*parts, strict=True))
        return ClassPerturbations(delta, margin, classes)
