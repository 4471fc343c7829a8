"""BiSAM: the adversary of the weights maximises a bound on the errors, not the loss that is minimised."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.optim import Optimizer

from danskin.errors import InputError
from danskin.minmax import Template
from danskin.minmax.weight_balls import AllWeights, WeightBall
from danskin.optim.per_example import Forward, PerExample

Phi = Literal["tanh", "log"]
_GAMMA = math.log(math.e - 1)  # phi(0) = 0


def error_bound(logits: Tensor, labels: Tensor, phi: Phi, mu: float, alpha: float) -> Tensor:
    r"""(n,) Q_i = (1 / mu) log sum_j exp(mu phi(z_j - z_b)), b the label: a smooth maximum over the classes.

    phi is below the step function: tanh(alpha s), or 1 - log(1 + exp(gamma - s)) with gamma = log(e - 1).

    Reference: Xie et al. 2024 (BiSAM), eqs. 10 to 12.
    """
    s = logits - logits.gather(1, labels[:, None])
    bounded = torch.tanh(alpha * s) if phi == "tanh" else 1 - F.softplus(_GAMMA - s)
    return torch.logsumexp(mu * bounded, 1) / mu


class BiSAM(PerExample):
    r"""min over w of L(w + v*), v* = argmax over |v|_2 <= rho of Q(w + v), Q a lower bound of the error rate.

    SAM lets the adversary maximise an upper bound (the cross-entropy) of what it is after, which bounds nothing; Q is
    below it. Two levels, two payoffs: rho grad Q / |grad Q| is the shift, cross-entropy is minimised there.

    Args:
        base: one optimiser, or several.
        rho: radius, > 0.
        phi: "tanh" or "log" (`error_bound`).
        mu: sharpness of the smooth maximum, > 0.
        alpha: slope of tanh, > 0.
        options: those of `PerExample` and `SharpnessAware`.

    Reference: Xie et al. 2024, algorithm 1.
    Lecture: row D4.
    """

    template = Template("weights", "weight shift", "l2 ball", "loss below, error bound above")
    moves = "one linear maximiser on the weights, the base optimiser outside"

    def __init__(
        self,
        base: Optimizer | Sequence[Optimizer],
        rho: float = 0.05,
        *,
        phi: Phi = "tanh",
        mu: float = 10.0,
        alpha: float = 0.1,
        **options: Any,
    ) -> None:
        super().__init__(base, **options)
        if phi not in ("tanh", "log"):
            raise InputError(f"BiSAM.phi: expected 'tanh' or 'log', got {phi!r}")
        for name, value in (("mu", mu), ("alpha", alpha)):
            if not value > 0:
                raise InputError(f"BiSAM.{name}: expected a number above 0, got {value!r}")
        self.ball, self.phi, self.mu, self.alpha = AllWeights(rho), phi, mu, alpha

    def _ball(self) -> WeightBall:
        return self.ball

    def _first_pass(self, forward: Forward, labels: Tensor, index: Tensor | None) -> Tensor:
        logits = forward(None)
        value = self._losses(logits, labels).mean()
        bound = error_bound(logits, labels, self.phi, self.mu, self.alpha).mean()
        self._backward(bound if self.active else value)
        return value
