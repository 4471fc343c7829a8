"""The adversary's payoff as a function of the input shift."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor

from danskin.attacks import checks
from danskin.losses import Loss, check_labels, predict
from danskin.minmax.maximize import gradient_at

#: Precision of the passes that look for a perturbation. "model": as the model is. "bfloat16": autocast, each
#: success then confirmed without it.
Precision = Literal["model", "bfloat16"]


@dataclass(eq=False)
class ShiftPayoff:
    """delta -> (loss of the model at x + delta per example, whether it is adversarial there).

    Arithmetic on x and delta is float32 or float64; the model sees x + delta in the dtype of the inputs.

    Args:
        model: inputs to logits.
        x: (batch, ...) clean inputs, float32 or float64.
        y: (batch,) labels.
        targets: (batch,) wanted labels, or None for untargeted.
        loss: what the adversary raises (or lowers towards the targets).
        box: where x + delta stays, or None.
        dtype: dtype of the inputs as the user gave them.
        precision: see `Precision`.
    """

    model: Callable[[Tensor], Tensor]
    x: Tensor
    y: Tensor
    targets: Tensor | None
    loss: Loss
    box: checks.DataBox
    dtype: torch.dtype
    precision: Precision = "model"
    checked: bool = field(default=False, repr=False)

    def shifted(self, delta: Tensor) -> Tensor:
        """X + delta, kept in the box against rounding."""
        x = self.x + delta
        if self.box is None:
            return x
        return x.clamp(*self.box) if x.requires_grad else x.clamp_(*self.box)

    def logits(self, point: Tensor, precision: Precision | None = None) -> Tensor:
        """The model's logits in float32 or float64, checked on the first call."""
        low = (precision or self.precision) == "bfloat16"
        context: Any = torch.autocast(point.device.type, torch.bfloat16) if low else nullcontext()
        with context:
            logits = checks.check_logits(self.model(point.to(self.dtype)), len(point))
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        if not self.checked:
            self.checked = True
            check_labels(self.y, logits, self.loss)
            if self.targets is not None:
                check_labels(self.targets, logits, self.loss, "targets")
            checks.warn_if_probabilities(logits)
        return logits

    def value(self, logits: Tensor) -> Tensor:
        """What the adversary raises, per example."""
        if self.loss.targeted:
            return self.loss.function(logits, self.y, self.targets)
        if self.targets is not None:
            return -self.loss.function(logits, self.targets)
        return self.loss.function(logits, self.y)

    def adversarial(self, logits: Tensor) -> Tensor:
        """(batch,) bool: the prediction is wrong, or is the target."""
        guess = predict(logits.detach())
        return guess != self.y if self.targets is None else guess == self.targets

    def __call__(self, delta: Tensor) -> tuple[Tensor, Tensor]:
        """(value, adversarial) at x + delta."""
        logits = self.logits(self.shifted(delta))
        return self.value(logits), self.adversarial(logits)

    def with_gradient(self, delta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(value, adversarial, gradient) at x + delta, differentiated at the shifted point itself.

        There the clamp to the box is not part of the graph: it changes rounding only.
        """
        with torch.no_grad():
            point = self.shifted(delta)
        logits = self.logits(point.requires_grad_())
        value = self.value(logits)
        return value, self.adversarial(logits), gradient_at(value, point)

    def rows(self, index: Tensor) -> ShiftPayoff:
        """The payoff of some examples."""
        targets = None if self.targets is None else self.targets[index]
        return replace(self, x=self.x[index], y=self.y[index], targets=targets)
