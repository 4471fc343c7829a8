"""CURE: the loss gradient should not change along the direction in which the loss curves most."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from torch import Tensor

from danskin.errors import InputError
from danskin.minmax import Template
from danskin.minmax.precision import at_least_float32
from danskin.minmax.search import mask
from danskin.minmax.sets import vector_norm
from danskin.regularizers.llr import Quirks, check_quirks
from danskin.regularizers.regularizer import (
    Memory,
    Model,
    Regularizer,
    checked,
    eager,
    gradients_on,
    known_gradient,
)

_STEPS = "rise"


def gradient_change(a: Tensor, b: Tensor) -> Tensor:
    r"""(batch,): \|a - b\|_2, differentiable, with gradient 0 where a = b; h \|H z\| on a quadratic.

    >>> gradient_change(torch.tensor([[3.0, 1.0]]), torch.tensor([[0.0, 5.0]]))
    tensor([5.])
    """
    return vector_norm(a - b, 2)


@dataclass(frozen=True)
class CURE(Regularizer):
    r"""weight * \|grad L(x + h z) - grad L(x)\|_2^2, with z = sign(grad L(x)) / \|sign(grad L(x))\|_2.

    z is held fixed, both gradients are differentiated. For `L2` and `L1` balls z is their steepest direction of l2
    length 1. It goes with `StandardTraining`, best from trained weights. 0 where the gradient is 0.

    Args:
        ball: gives the direction, and the distance where h is None.
        weight: 4 as released, for inputs of unit variance; for the same images in [0, 1] gradients are several times
            larger, and 0.2 is the like of it.
        h: l2 length of the shift in the data's own units. Published: raised to 1.5 (released code: 3) during training
            on inputs of unit variance. None goes to the ball's linear maximiser, the FGSM point, which is what the
            authors of ELLE compare with.
        rise: lengths before h, each for `rise_steps` steps of training; released code: 0.1, 0.4, 0.8, 1.8 for an epoch
            each. `values` knows h only.
        rise_steps: see there.
        detach: hold the gradient at x fixed, as ELLE's authors do; only then a given `gradient` saves work.
        quirks: "released" does not square the norm, and takes gradients of the batch's mean loss: values are smaller
            by the factor batch size and depend on it.

    A module compiled by torch.compile cannot be differentiated twice: the eager module inside it is used, which has
    the same weights.

    Reference: Moosavi-Dezfooli et al., "Robustness via curvature regularization, and vice versa", CVPR 2019, eqs. (7)
    and (8) (numbers as recalled). Lecture: row C13.
    """

    template: ClassVar[Template] = Template("weights", "input shift", "ball", "change of the loss gradient, squared")
    moves: ClassVar[str] = "one steepest step inside, double backpropagation outside"
    double_backward: ClassVar[bool] = True
    reuses_gradient: ClassVar[bool] = True

    weight: float = 4.0
    h: float | None = None
    rise: tuple[float, ...] = ()
    rise_steps: int = 0
    detach: bool = field(default=False, kw_only=True)
    quirks: Quirks = field(default="none", kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.h is not None and not 0 < self.h < torch.inf:
            raise InputError(f"CURE.h: expected a finite number > 0 or None, got {self.h}; None goes to the FGSM point")
        if self.rise and not (self.h is not None and min(self.rise) > 0 and self.rise_steps >= 1):
            raise InputError(
                f"CURE.rise: expected lengths > 0 before a number h, for rise_steps >= 1 each, got {self.rise}, "
                f"h={self.h} and rise_steps={self.rise_steps}; leave it out for h from the start"
            )
        check_quirks(type(self).__name__, self.quirks)

    @property
    def horizon(self) -> int:
        """The steps before h."""
        return len(self.rise) * self.rise_steps

    def begin(self) -> Memory:
        """The steps made while the shift grows, and those of a schedule."""
        return super().begin() | ({_STEPS: torch.zeros((), dtype=torch.int64)} if self.rise else {})

    def now(self, memory: Memory | None) -> CURE:
        """The term with the shift of the coming step."""
        if not self.rise:
            return self
        steps = self._held(memory)[_STEPS]
        place = int(steps) // self.rise_steps
        if place >= len(self.rise):
            return self
        steps += 1
        return replace(self, h=self.rise[place], rise=())

    def values(self, model: Model, x: Tensor, y: Tensor, *, seed: int = 0, gradient: Tensor | None = None) -> Tensor:
        """The squared change of the gradient, (batch,); see `Regularizer.values`."""
        x, y = checked(x, y, self.ball)
        model, clean = eager(model), at_least_float32(x)
        with gradients_on() as wanted:
            if gradient is not None and (self.detach or not wanted):
                slope = known_gradient(gradient, clean)
            else:
                slope = self.slope(model, clean, y, x.dtype, twice=wanted and not self.detach)[1]
            point = self.clamp(clean + self._shift(slope.detach()))
            moved = self.slope(model, point, y, x.dtype, twice=wanted)[1]
            change = gradient_change(moved, slope)
            value = change / len(x) if self.quirks == "released" else change**2
        return value if wanted else value.detach()

    def _shift(self, slope: Tensor) -> Tensor:
        """H z: along the ball's steepest direction, of l2 length h, or to the end of the ball."""
        if self.h is None:
            return self.ball.lmo(slope)
        z = self.ball.steepest(slope)
        return self.h * z / mask(vector_norm(z, 2), z).clamp_min(1e-30)
