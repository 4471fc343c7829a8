"""GradAlign: the loss gradient should not turn within the ball."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from danskin.minmax import Streams, Template
from danskin.minmax.precision import at_least_float32
from danskin.minmax.search import mask
from danskin.minmax.sets import vector_norm
from danskin.regularizers.regularizer import (
    Model,
    Regularizer,
    checked,
    eager,
    gradients_on,
    inner_product,
    known_gradient,
)


def misalignment(a: Tensor, b: Tensor) -> Tensor:
    r"""(batch,): 1 - <a, b> / (\|a\|_2 \|b\|_2), differentiable; 0, with gradient 0, where a or b is 0.

    >>> misalignment(torch.tensor([[1.0, 0.0], [0.0, 0.0]]), torch.tensor([[0.0, 2.0], [1.0, 1.0]]))
    tensor([1., 0.])
    """
    usable = torch.ones(len(a), dtype=torch.bool, device=a.device)
    units = []
    for g in (a, b):
        largest = vector_norm(g.detach(), torch.inf)  # a constant of which the cosine does not depend
        present = largest != 0
        usable = usable & present
        # a row of ones stands in for a row of zeros, so that no gradient is NaN; its result is not used
        safe = torch.where(mask(present, g), g / mask(torch.where(present, largest, 1), g), 1)
        units.append(safe / mask(vector_norm(safe, 2), safe))
    return torch.where(usable, 1 - inner_product(*units), 0)


@dataclass(frozen=True)
class GradAlign(Regularizer):
    r"""weight * (1 - cos(grad L(x), grad L(x + eta))), with eta uniform in the ball.

    Examples with a gradient of exactly 0 count 0. On top of an attack that knows the gradient at x (pass it as
    `gradient`) it costs about 6 forward passes: a forward, a backward, and the backward pass of both.

    Args:
        ball: of eta; the training ball.
        weight: published for CIFAR-10 as 0.02 * 10^(radius * 255 / 8): 0.2 at 8/255, 2 at 16/255.
        detach: hold the gradient at x fixed, as the released code does; with False it is differentiated too, and a
            given `gradient` is of no use.

    A module compiled by torch.compile cannot be differentiated twice: the eager module inside it is used, which has
    the same weights. To compile the term itself, write it with torch.func.grad and `misalignment` inside the
    compiled function.

    Reference: Andriushchenko and Flammarion, NeurIPS 2020, eq. (6). Lecture: row C11. Prefer `ELLE` where double
    backpropagation is slow.
    """

    template: ClassVar[Template] = Template("weights", "random input shift", "ball", "turn of the loss gradient")
    moves: ClassVar[str] = "double backpropagation"
    double_backward: ClassVar[bool] = True
    reuses_gradient: ClassVar[bool] = True

    weight: float = 0.2
    detach: bool = True

    def values(self, model: Model, x: Tensor, y: Tensor, *, seed: int = 0, gradient: Tensor | None = None) -> Tensor:
        """1 - cos of the angle by which the gradient turns, (batch,); see `Regularizer.values`."""
        x, y = checked(x, y, self.ball)
        model, at = eager(model), at_least_float32(x)
        with gradients_on() as wanted:
            if gradient is not None and self.detach:
                first = known_gradient(gradient, at)
            else:
                first = self.slope(model, at, y, x.dtype, twice=wanted and not self.detach)[1]
            point = self.sample(at, Streams.of_content(seed, x).child(1))
            second = self.slope(model, point, y, x.dtype, twice=wanted)[1]
            turn = misalignment(first, second)
        return turn if wanted else turn.detach()
