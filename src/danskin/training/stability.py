"""Stability of the weights: the loss at the worst weights near by, for each example or for the batch."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from danskin.attacks.parametrizations import fresh_cache
from danskin.callables import Found as Kept
from danskin.callables import said, surely
from danskin.errors import DanskinWarning, InputError, ModelError
from danskin.losses import check_labels, get_loss, predict
from danskin.minmax import L2, Number, Template
from danskin.training.awp import Shifted, ascent, module_of
from danskin.training.gram import check_alone
from danskin.training.objective import (
    Found,
    Losses,
    Model,
    Objective,
    Step,
    Wrapper,
    logits_at,
    outer_loss,
    trainable_loss,
    with_gradient,
)
from danskin.training.objectives import AdversarialTraining, StandardTraining

Weights = dict[str, Tensor]


@dataclass(frozen=True)
class WeightStability(Wrapper):
    r"""mean_i max over |v_i| <= radius of L_i(w + v_i): epsilon-stability, with the max inside the sum.

    v_i is one linear maximiser: radius g_i / |g_i|, g_i the gradient of the loss of example i to all weights, held
    constant in the outer step. With per_sample=False one v serves the batch: max_v mean_i L_i(w + v), which is SAM and
    never larger (to first order: mean_i |g_i| against |mean_i g_i|); in between lies m-SAM, here m = 1. The weights
    themselves never move.

    Args:
        radius: of the l2 ball over all trainable weights, a number or a text.
        objective: whose losses; per example `StandardTraining` or `AdversarialTraining`, whose points are found at w.
        per_sample: a v for each example, or one for the batch (of all processes, and of any objective).
        chunk: examples at a time, >= 1: memory is chunk times that of the weights and their gradients.

    Where torch.vmap does not know an operation of the model (recurrent layers, spectral_norm in training mode) the
    examples are gone through one by one, with a warning; every example then sees the buffers of before.

    Raises:
        InputError: a negative radius, chunk < 1, or, per example, another objective, a model under another weight
            perturbation, or one that mixes examples or draws at random (BatchNorm or dropout in training mode).

    Reference: Foret et al., "Sharpness-aware minimization", ICLR 2021, eq. (2) and section 4.1 (m-sharpness);
    Bogunovic et al., NeurIPS 2018, for epsilon-stability. Lecture: rows C16, C15.
    """

    template: ClassVar[Template] = Template("weights", "weight shift", "l2 ball, one per example", "any")
    moves: ClassVar[str] = "one linear maximiser on the weights per example, gradient descent outside"

    objective: Objective = field(default_factory=StandardTraining, kw_only=True)
    radius: Number
    per_sample: bool = True
    chunk: int = 16

    def __post_init__(self) -> None:
        super().__post_init__()
        L2(self.radius)
        if self.chunk < 1:
            raise InputError(f"WeightStability.chunk: expected at least 1 example, got {self.chunk}; 16 is a start")
        if self.per_sample and not isinstance(self.objective, StandardTraining | AdversarialTraining):
            raise InputError(
                "WeightStability.objective: expected StandardTraining or AdversarialTraining for one maximiser per "
                f"example, got {type(self.objective).__name__}; use per_sample=False, or AWP"
            )

    @property
    def reweightable(self) -> bool:  # type: ignore[override]
        """Not where the gradient is put together from the examples' own."""
        return not self.per_sample and self.objective.reweightable

    def losses(self, model: Model, found: Found, step: Step) -> Losses:
        """The losses at the shifted weights."""
        if self.per_sample:
            return self._apart(model, found, step)
        weights = _trainable(module_of("WeightStability", model))
        gradients = ascent(self.objective, model, list(weights.values()), found, step)
        ball = {n: g[None] for n, g in zip(weights, gradients, strict=True)}
        shifts = linear_maximisers(ball, self.radius)
        return self.objective.losses(Shifted(model, {n: w + shifts[n][0] for n, w in weights.items()}), found, step)

    def _apart(self, model: Model, found: Found, step: Step) -> Losses:
        raw, inside = module_of("WeightStability", model), self.objective
        name = inside.loss if isinstance(inside, StandardTraining) else outer_loss(inside.attack, inside.loss)  # type: ignore[attr-defined]
        trainable_loss(name)
        loss, weights = get_loss(name), _trainable(raw)
        _check(raw)
        with torch.no_grad():
            one = logits_at(raw, found.points[:1])
        check_labels(found.y, one.expand(len(found.y), *one.shape[1:]), loss)

        def value(at: Weights, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
            with fresh_cache():
                at = {n: b.clone() for n, b in raw.named_buffers()} | at  # a pass may write into buffers
                logits = logits_at(lambda inputs: torch.func.functional_call(raw, at, (inputs,)), x[None])
            return loss.function(logits, y[None])[0], logits[0]

        here = {n: w.detach() for n, w in weights.items()}
        total = {n: torch.zeros_like(w) for n, w in here.items()}
        values, logits, passes = [], [], _Passes(value)
        with _kept(raw):
            for x, y in _chunks(found, self.chunk):
                pulls, each, out = self._moved(passes, here, x, y)
                for n, pull in pulls.items():
                    total[n] += pull.sum(0) / len(found.y)
                values.append(each)
                logits.append(out)
        mean = [step.processes.mean(g) for g in total.values()]
        wrong = predict(torch.cat(logits)) != found.y
        return Losses(with_gradient(torch.cat(values), weights.values(), mean), wrong)

    def _moved(self, passes: _Passes, here: Weights, x: Tensor, y: Tensor) -> tuple[Weights, Tensor, Tensor]:
        """(gradients, losses, logits) of examples, each at its own shifted weights."""
        try:
            shifts = linear_maximisers(passes(here, False, x, y)[0], self.radius)
            return passes({n: w + shifts[n] for n, w in here.items()}, True, x, y)
        except RuntimeError as error:
            passes.slow_down(error)
        return self._moved(passes, here, x, y)


class _Passes:
    """Forward and backward passes of examples with weights of their own: all at once, or one after the other."""

    def __init__(self, value: Callable[[Weights, Tensor, Tensor], tuple[Tensor, Tensor]]) -> None:
        self.value, self.slow = value, False

    def slow_down(self, error: RuntimeError) -> None:
        """Go on one by one, with a warning, where torch.vmap cannot do what the model does; raise what is no such."""
        if self.slow or isinstance(error, torch.OutOfMemoryError):
            raise error
        if "random" in str(error):
            raise ModelError(
                f"WeightStability: expected a model that draws nothing at random, got {said(error)}; use "
                "per_sample=False"
            ) from error
        warnings.warn(
            f"WeightStability: expected a model that torch.vmap takes, got {said(error)}; going through the examples "
            "one by one, which is slow. per_sample=False takes one shift for the batch",
            DanskinWarning,
            stacklevel=2,
        )
        self.slow = True

    def __call__(self, at: Weights, own: bool, x: Tensor, y: Tensor) -> tuple[Weights, Tensor, Tensor]:
        """(gradients (n, ...) to the weights, losses (n,), logits (n, ...)); `own`: weights have a row per example."""
        if not self.slow:
            both = torch.func.grad_and_value(self.value, has_aux=True)
            slopes, (values, logits) = torch.func.vmap(both, (0 if own else None, 0, 0))(at, x, y)
            return slopes, values, logits
        rows = [self._one({n: w[i] for n, w in at.items()} if own else at, x[i], y[i]) for i in range(len(x))]
        slopes, values, logits = zip(*rows, strict=True)
        return {n: torch.stack([s[n] for s in slopes]) for n in at}, torch.stack(values), torch.stack(logits)

    def _one(self, at: Weights, x: Tensor, y: Tensor) -> tuple[Weights, Tensor, Tensor]:
        leaves = {n: w.detach().requires_grad_() for n, w in at.items()}
        with torch.enable_grad():
            value, logits = self.value(leaves, x, y)
            slopes = torch.autograd.grad(value, list(leaves.values()), allow_unused=True, materialize_grads=True)
        return dict(zip(leaves, slopes, strict=True)), value.detach(), logits.detach()


@contextmanager
def _kept(model: nn.Module) -> Iterator[None]:
    """What these passes leave in attributes is of no use to anyone: it is put back."""
    found = Kept(list(model.modules()))
    try:
        yield
    finally:
        surely(found.restore)


def linear_maximisers(slopes: Weights, radius: Number) -> Weights:
    """Argmax over |v_i| <= radius of <g_i, v_i>, for n examples with the gradients (n, ...) of each weight."""
    shapes = [g.shape for g in slopes.values()]
    flat = L2(radius).lmo(torch.cat([g.flatten(1) for g in slopes.values()], 1))
    parts = flat.split([shape[1:].numel() for shape in shapes], 1)
    return {n: part.view(shape) for n, part, shape in zip(slopes, parts, shapes, strict=True)}


def _trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    weights = {n: p for n, p in model.named_parameters() if p.requires_grad}
    if not weights:
        raise InputError("WeightStability: expected a model with weights to train, got none; check requires_grad")
    return weights


def _chunks(found: Found, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    yield from zip(found.points.detach().split(size), found.y.split(size), strict=True)


def _check(model: Any) -> None:
    if isinstance(model, Shifted):
        raise InputError("WeightStability: expected the model itself, got shifted weights; leave AWP around it out")
    check_alone("WeightStability", model, "per_sample=False")
