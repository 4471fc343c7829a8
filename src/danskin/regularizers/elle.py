"""ELLE: the loss between two points of the ball should lie on the line between its values there."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor

from danskin.attacks.guard import raw_module
from danskin.errors import InputError
from danskin.minmax import Streams, Template
from danskin.minmax.precision import at_least_float32
from danskin.minmax.sets import rowwise
from danskin.regularizers.on_off import OnOff
from danskin.regularizers.regularizer import Model, Regularizer, checked

#: The two ends of the line. "both_random": two points of the ball (as published and released); "clean_random": x
#: itself and one point of the ball (eq. (21) as the lecture prints it).
Endpoints = Literal["both_random", "clean_random"]
_SCHEDULE = OnOff()


def interpolation_error(first: Tensor, second: Tensor, middle: Tensor, t: Tensor) -> Tensor:
    """L(c) - (1 - t) L(a) - t L(b) with c = (1 - t) a + t b, signed, (batch,).

    On a quadratic with Hessian H it is -t (1 - t) (a - b)' H (a - b) / 2.

    Args:
        first: (batch,) L(a).
        second: (batch,) L(b).
        middle: (batch,) L(c).
        t: (batch,) in [0, 1].

    >>> one = torch.tensor([1.0])
    >>> interpolation_error(0 * one, one, one / 2, one / 2)
    tensor([0.])
    """
    return middle - (1 - t) * first - t * second


@dataclass(frozen=True)
class _Interpolation(Regularizer):
    """What ELLE and ELLE-A share: the value."""

    template: ClassVar[Template] = Template(
        "weights", "random input shifts", "ball", "interpolation error of the loss, squared"
    )
    double_backward: ClassVar[bool] = False

    endpoints: Endpoints = "both_random"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.endpoints not in get_args(Endpoints):
            raise InputError(
                f"{type(self).__name__}.endpoints: expected 'both_random' or 'clean_random', got {self.endpoints!r}; "
                "pick one"
            )

    def values(self, model: Model, x: Tensor, y: Tensor, *, seed: int = 0, gradient: Tensor | None = None) -> Tensor:
        """The squared interpolation error, (batch,), by one forward pass of three points per example."""
        x, y = checked(x, y, self.ball)
        model, at, streams = raw_module(model), at_least_float32(x), Streams.of_content(seed, x)
        first = self.sample(at, streams.child(0)) if self.endpoints == "both_random" else at
        second = self.sample(at, streams.child(1))
        t = streams.child(2).uniform(at.new_empty(len(at), 1)).view(-1)
        s = rowwise(t, at)
        points = torch.cat((first, second, (1 - s) * first + s * second))
        a, b, c = self.losses(model, points, y.repeat(3), x.dtype).chunk(3)
        return interpolation_error(a, b, c, t.to(c)) ** 2


@dataclass(frozen=True)
class ELLE(_Interpolation):
    """weight * (L(c) - (1 - t) L(a) - t L(b))^2, with a, b uniform in the ball around x, c = (1 - t) a + t b.

    t is uniform in [0, 1]. No gradient is differentiated, so it runs on compiled modules. It costs 9 forward passes:
    three points, forward and backward, in one batch of three times the size (whose statistics BatchNorm sees).

    Args:
        ball: where the end points lie; the training ball.
        weight: published for CIFAR-10 as 1000 up to 8/255, 5000 from 10/255 to 20/255, 10000 above.
        endpoints: "both_random", or "clean_random" for a = x.

    Reference: Abad Rocamora et al., "Efficient local linearity regularization to overcome catastrophic overfitting",
    ICLR 2024. Lecture: row C12, eq. (21).
    """

    moves: ClassVar[str] = "one forward pass of three points"

    weight: float = 1000.0


@dataclass(frozen=True)
class ELLE_A(_Interpolation):
    """ELLE with a weight that is switched on when the error jumps: `OnOff`.

    While the weight is 0 the error is still looked at, by three forward passes without a backward pass. The memory
    of the schedule (`begin`) is passed to every call, and belongs into checkpoints.

    Args:
        ball: where the end points lie; the training ball.
        weight: lambda_max; 4000 for all radii on CIFAR-10.
        endpoints: "both_random", or "clean_random" for a = x.
        schedule: when the weight is on.

    Reference: Abad Rocamora et al., ICLR 2024. Lecture: rows C12 and C14.
    """

    moves: ClassVar[str] = "one forward pass of three points, weight on and off"

    weight: float = 4000.0
    schedule: OnOff | None = field(default=_SCHEDULE, kw_only=True)
