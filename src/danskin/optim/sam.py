"""SAM and ASAM: step along the gradient at the worst weights of a ball; and the plain step beside them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch.optim import Optimizer

from danskin.minmax import Template
from danskin.minmax.weight_balls import AllWeights, ScaledWeights, WeightBall
from danskin.optim.sharpness import SharpnessAware


class Plain(SharpnessAware):
    """The base optimiser alone, behind the same call: what the others are measured against.

    Lecture: row D3.
    """

    template = Template("weights", "-", "-", "loss")
    moves = "gradient descent"

    def __init__(self, base: Optimizer | Sequence[Optimizer], **options: Any) -> None:
        super().__init__(base, **options)

    def _due(self, norm: float) -> bool:
        return False


class SAM(SharpnessAware):
    r"""min over w, max over |v|_2 <= rho of f(w + v), v by one linear maximiser: rho g / |g| at g = grad f(w).

    w+ = Base(w, grad f(w + rho g / |g|)), two gradients a step, one after the other.

        opt = SAM(torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9), rho=0.05)
        def closure():
            loss = cross_entropy(model(x), y)
            loss.backward()
            return loss
        opt.step(closure)

    Args:
        base: one optimiser, or several.
        rho: radius over all weights together, > 0.
        options: those of `SharpnessAware`.

    Reference: Foret et al. 2021, algorithm 1.
    Lecture: rows D1 and D2.
    """

    template = Template("weights", "weight shift", "l2 ball", "loss")
    moves = "one linear maximiser on the weights, the base optimiser outside"
    splits = True

    def __init__(self, base: Optimizer | Sequence[Optimizer], rho: float = 0.05, **options: Any) -> None:
        super().__init__(base, **options)
        self.ball: WeightBall = AllWeights(rho)

    def _ball(self) -> WeightBall:
        return self.ball


class ASAM(SAM):
    r"""SAM in a ball that scales with the weights: max over |v / t|_2 <= rho of f(w + v), t = |w| + eta entry by entry.

    v = rho t^2 g / |t g|; the sharpness is the same for networks whose layers are rescaled against each other.

    Args:
        base: one optimiser, or several.
        rho: radius, > 0; ten times that of SAM or more.
        eta: added to |w|, >= 0; 0 in much public code. (The authors' code scales weights only and leaves biases at 1.)
        options: those of `SharpnessAware`.

    Reference: Kwon et al. 2021, eq. 8 and algorithm 1.
    Lecture: row D3.
    """

    template = Template("weights", "weight shift", "l2 ball scaled by the weights", "loss")

    def __init__(
        self, base: Optimizer | Sequence[Optimizer], rho: float = 0.5, eta: float = 0.01, **options: Any
    ) -> None:
        super().__init__(base, 1.0, **options)
        self.ball = ScaledWeights(rho, eta)
