"""Local linearisation: the loss should be what its first-order expansion says. As a worst case, and at random."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from torch import Tensor

from danskin.attacks.bounds import perturbations
from danskin.attacks.guard import as_found
from danskin.errors import InputError
from danskin.minmax import Ascent, Number, Streams, Template, number
from danskin.minmax.measured import radius_of
from danskin.minmax.precision import at_least_float32
from danskin.regularizers.regularizer import Model, Regularizer, checked, eager, gradients_on, inner_product

#: "none": as written. "released": as published code has it, faults included.
Quirks = Literal["none", "released"]


def linearization_error(moved: Tensor, at: Tensor, slope: Tensor, shift: Tensor) -> Tensor:
    """L(x + shift) - L(x) - <shift, grad L(x)>, signed, (batch,); shift' H shift / 2 on a quadratic.

    Args:
        moved: (batch,) L(x + shift).
        at: (batch,) L(x).
        slope: (batch, ...) grad L(x).
        shift: (batch, ...).

    >>> linearization_error(torch.tensor([5.0]), torch.tensor([1.0]), torch.tensor([[2.0]]), torch.tensor([[1.5]]))
    tensor([1.])
    """
    return moved - at - inner_product(slope, shift).to(moved)


def check_quirks(name: str, quirks: str) -> None:
    """The quirks are some there are."""
    if quirks not in ("none", "released"):
        raise InputError(f"{name}.quirks: expected 'none' or 'released', got {quirks!r}; pick one")


@dataclass(frozen=True)
class LLR(Regularizer):
    r"""weight * gamma + mu * |<delta*, grad L(x)>|, gamma = max over the ball of |L(x + d) - L(x) - <d, grad L(x)>|.

    delta* attains gamma. It is sought by projected steepest ascent from a random point, with grad L(x) held constant,
    and is then fixed; gamma and the inner product are differentiated through the gradient. Both bound the worst
    loss: max over the ball of L(x + d) <= L(x) + gamma + max |<d, grad L(x)>|. It goes with `StandardTraining`: no
    adversarial loss is added. `values` is gamma + (mu / weight) |<delta*, grad L(x)>|.

    Args:
        ball: of delta; with a box, delta stays in it.
        weight: lambda > 0.
        mu: weight of the inner product, >= 0.
        steps: gradients taken by the search.
        step: its step: a number, or a text with `radius` and `steps`.

    The search leaves BatchNorm's buffers and the random state alone. A module compiled by torch.compile cannot be
    differentiated twice: the eager module inside it is used, which has the same weights. Costs 2 steps + 1 passes for
    the search and about 9 for the term.

    Reference: Qin et al., "Adversarial robustness through local linearization", NeurIPS 2019, eqs. (5) to (9) (numbers
    and defaults as recalled). Lecture: row C13.
    """

    template: ClassVar[Template] = Template("weights", "input shift", "ball", "linearisation error of the loss")
    moves: ClassVar[str] = "projected ascent inside, double backpropagation outside"
    double_backward: ClassVar[bool] = True

    weight: float = 4.0
    mu: float = 3.0
    steps: int = 10
    step: Number = "2.5*radius/steps"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.mu < torch.inf:
            raise InputError(f"LLR.mu: expected a finite number >= 0, got {self.mu}; 0 leaves the inner product out")
        if self.weight == 0 and self.mu > 0:
            raise InputError(
                f"LLR.weight: expected a number > 0 beside mu={self.mu}, got 0; mu stands inside the weighted term: "
                "set both to 0, or make the weight small"
            )
        if self.steps < 1:
            raise InputError(f"LLR.steps: expected at least 1, got {self.steps}; use 1 for a single step")

    def values(self, model: Model, x: Tensor, y: Tensor, *, seed: int = 0, gradient: Tensor | None = None) -> Tensor:
        """Gamma + (mu / weight) |<delta*, grad L(x)>|, (batch,); see `Regularizer.values`."""
        x, y = checked(x, y, self.ball)
        model, clean = eager(model), at_least_float32(x)
        with gradients_on() as wanted:
            at, slope = self.slope(model, clean, y, x.dtype, twice=wanted)
            held, fixed = at.detach(), slope.detach()

            def gap(delta: Tensor) -> Tensor:
                moved = self.losses(model, clean + delta, y, x.dtype)
                return linearization_error(moved, held, fixed, delta).abs()

            with as_found(model, "as_is", x.device, warn=False):
                delta = self._search(gap, clean, Streams.of_content(seed, x).child(1))
            gamma = linearization_error(self.losses(model, clean + delta, y, x.dtype), at, slope, delta).abs()
            lead = inner_product(slope, delta).abs().to(gamma)
            value = gamma + self.mu / self.weight * lead if self.mu else gamma
        return value if wanted else value.detach()

    def _search(self, gap: Callable[[Tensor], Tensor], x: Tensor, streams: Streams) -> Tensor:
        """A delta in ball and box where the gap is large, detached."""
        within = perturbations(x, self.ball, self.box)
        step = number(self.step, radius=radius_of(self.ball), steps=self.steps)
        return Ascent(self.steps, step, random_start=True, keep="value")(gap, torch.zeros_like(x), within, streams).y


@dataclass(frozen=True)
class LLRRandom(Regularizer):
    """weight * (L(b) - L(a) - <b - a, grad L(a)>)^2, with a, b uniform in the ball around x.

    What the authors of ELLE compare with under the name LLR: no search, no second term.

    Args:
        ball: of both points; the training ball.
        weight: 200 to 5000 in the released code, whose term is another (see quirks).
        quirks: "released" takes the gradient of the batch's mean loss, as the released code does: the linear term is
            too small by the factor batch size, and what is penalised is nearly (L(b) - L(a))^2. Values then depend on
            the size of the batch.

    A module compiled by torch.compile cannot be differentiated twice: the eager module inside it is used, which has
    the same weights.

    Reference: Abad Rocamora et al., ICLR 2024, released code. Lecture: rows C13 and C14.
    """

    template: ClassVar[Template] = Template(
        "weights", "random input shifts", "ball", "linearisation error of the loss, squared"
    )
    moves: ClassVar[str] = "double backpropagation"
    double_backward: ClassVar[bool] = True

    weight: float = 200.0
    quirks: Quirks = field(default="none", kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_quirks(type(self).__name__, self.quirks)

    def values(self, model: Model, x: Tensor, y: Tensor, *, seed: int = 0, gradient: Tensor | None = None) -> Tensor:
        """The squared first-order error between two random points, (batch,); see `Regularizer.values`."""
        x, y = checked(x, y, self.ball)
        model, clean, streams = eager(model), at_least_float32(x), Streams.of_content(seed, x)
        with gradients_on() as wanted:
            first, second = self.sample(clean, streams.child(0)), self.sample(clean, streams.child(1))
            at, slope = self.slope(model, first, y, x.dtype, twice=wanted)
            moved = self.losses(model, second, y, x.dtype)
            if self.quirks == "released":
                slope = slope / len(x)
            value = linearization_error(moved, at, slope, second - first) ** 2
        return value if wanted else value.detach()
