"""Adversarial weight perturbation: a second adversary moves the weights, layer by layer."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from danskin.attacks.guard import mode_of, raw_module
from danskin.attacks.parametrizations import fresh_cache
from danskin.errors import InputError, ModelError
from danskin.minmax import Template
from danskin.minmax.weight_balls import EachLayer
from danskin.training.objective import Found, Losses, Memory, Model, Objective, Step, Wrapper

_STEPS = "awp.steps"


class Shifted(nn.Module):
    """A model at other weights; gradients flow to its own.

    Args:
        model: the module, or its DistributedDataParallel wrapper.
        weights: by their names in the raw module, to be used in place of its own.
    """

    def __init__(self, model: Any, weights: dict[str, Tensor]) -> None:
        super().__init__()
        self.model = model
        prefix = "" if raw_module(model) is model else "module."
        self._weights = {prefix + name: weight for name, weight in weights.items()}

    @property
    def raw(self) -> Shifted:
        """The same around the raw module."""
        module = raw_module(self.model)
        cut = 0 if module is self.model else len("module.")
        return Shifted(module, {name[cut:]: weight for name, weight in self._weights.items()})

    def forward(self, x: Tensor) -> Any:
        """The model's output at these weights."""
        with fresh_cache():
            return torch.func.functional_call(self.model, self._weights, (x,))


def layers(model: nn.Module) -> dict[str, nn.Parameter]:
    """The weight matrices and kernels of a model by name: no biases, no normalisation."""
    return {
        name: p
        for name, p in model.named_parameters()
        if p.requires_grad and p.ndim > 1 and name.rpartition(".")[2] == "weight"
    }


def module_of(name: str, model: Any) -> Any:
    """The raw module whose weights an objective called `name` moves.

    Raises:
        InputError: it is something else than a module.
        ModelError: its weights were made under inference_mode.
    """
    raw = raw_module(model)
    if not isinstance(raw, nn.Module):
        raise InputError(
            f"{name}: expected an nn.Module, whose weights it shifts, got {type(raw).__name__}; pass the network itself"
        )
    if any(p.is_inference() for p in raw.parameters()):
        raise ModelError(
            f"{name}: expected weights that autograd follows, got inference tensors; make or load the model outside of "
            "torch.inference_mode"
        )
    return raw


def ascent(objective: Objective, model: Model, weights: list[Any], found: Found, step: Step) -> list[Tensor]:
    """The gradient of an objective's mean loss over all processes; nothing is remembered of this look."""
    raw = raw_module(model)
    aside = replace(step, memory={name: kept.clone() for name, kept in step.memory.items()})
    with mode_of(raw, "batch_frozen" if raw.training else "eval"), torch.enable_grad(), fresh_cache():
        value = objective.losses(raw, found, aside).value.mean()
        gradients = torch.autograd.grad(value, weights, allow_unused=True, materialize_grads=True)
    return [step.processes.mean(g) for g in gradients]


@dataclass(frozen=True)
class AWP(Wrapper):
    r"""The losses of another objective at w + v, v the layer-wise ascent step |v_l| <= gamma * |w_l| on their mean.

    The points are found at w, then v by one linear maximiser on the mean loss there, then the losses at w + v. The
    weights themselves never move, so that the optimiser steps from w with the gradient taken at w + v.

    Args:
        objective: any, such as `AdversarialTraining` (AT-AWP) or `TRADES` (TRADES-AWP).
        gamma: relative size, >= 0; 0.01 for AT, 0.005 for TRADES as published.
        decay: the optimiser's weight decay, to reproduce released code, where it acts on w + v; 0 for decay of w.
        warmup: steps without perturbation.

    On a compiled model the losses are those of the eager module inside it, with the same weights.

    Reference: Wu, Xia and Wang, "Adversarial weight perturbation helps robust generalization", NeurIPS 2020, eqs. (7)
    to (10). Lecture: rows C8, C16. It is SAM with layer-wise radii on the adversarial batch.
    """

    template: ClassVar[Template] = Template("weights", "weight shift after input shift", "l2 ball per layer", "any")
    moves: ClassVar[str] = "an objective's adversary, one linear maximiser on the weights, gradient descent outside"

    gamma: float = 0.01
    decay: float = 0.0
    warmup: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("gamma", "decay", "warmup"):
            if not getattr(self, name) >= 0:
                raise InputError(f"AWP.{name}: expected a number >= 0, got {getattr(self, name)}; 0 is none")

    @property
    def horizon(self) -> int:
        """The warm-up."""
        return max(self.warmup, self.objective.horizon)

    def begin(self) -> Memory:
        """What the objective inside keeps, and the steps made while warming up."""
        return super().begin() | ({_STEPS: torch.zeros((), dtype=torch.int64)} if self.warmup else {})

    def losses(self, model: Model, found: Found, step: Step) -> Losses:
        """The losses at the shifted weights."""
        if self.warmup and int(step.memory[_STEPS]) < self.warmup:
            step.memory[_STEPS] += 1
            return self.objective.losses(model, found, step)
        model = getattr(model, "_orig_mod", model)  # a compiled module would be compiled anew for every shift
        weights = layers(module_of("AWP", model))
        if not weights:
            raise InputError("AWP: expected a model with weight matrices or kernels, got none; leave AWP out")
        shifts = self._shifts(model, weights, found, step)
        moved = {name: w + v for (name, w), v in zip(weights.items(), shifts, strict=True)}
        losses = self.objective.losses(Shifted(model, moved), found, step)
        if self.decay:
            drag = sum((w * v).sum() for w, v in zip(weights.values(), shifts, strict=True))
            losses = losses._replace(value=losses.value + self.decay * (drag - drag.detach()))  # type: ignore[union-attr]
        return losses

    def _shifts(self, model: Model, weights: dict[str, nn.Parameter], found: Found, step: Step) -> list[Tensor]:
        own = list(weights.values())
        return EachLayer(self.gamma).lmo(ascent(self.objective, model, own, found, step), own)
