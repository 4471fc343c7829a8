"""AE-SAM: the second gradient where the first is large for its time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch.optim import Optimizer

from danskin.errors import InputError
from danskin.optim.sam import SAM


class AESAM(SAM):
    r"""A SAM step where |g|^2 >= m + c sqrt(s), else a plain one; m and s are moving mean and variance of |g|^2.

    m <- delta m + (1 - delta) |g|^2, s <- delta s + (1 - delta) (|g|^2 - m)^2, and c goes from `high` at the first
    step to `low` at the last one: few second gradients early, many late. Under DistributedDataParallel all processes
    take the same branch, by the norm over all of them.

    Args:
        base: one optimiser, or several.
        rho: radius, > 0.
        steps: of the whole training, over which c falls.
        delta: decay of m and s, in [0, 1).
        low: c at the end (lambda_1).
        high: c at the start (lambda_2).
        options: those of `SharpnessAware`.

    Reference: Jiang et al. 2023, eqs. 6 and 7 (the threshold's constants as in reimplementations; no released code).
    Lecture: row D3.
    """

    moves = "one linear maximiser on the weights where the gradient is large, the base optimiser outside"
    splits = False

    def __init__(
        self,
        base: Optimizer | Sequence[Optimizer],
        rho: float = 0.05,
        *,
        steps: int,
        delta: float = 0.9,
        low: float = -1.0,
        high: float = 1.0,
        **options: Any,
    ) -> None:
        super().__init__(base, rho, **options)
        if not (isinstance(steps, int) and steps >= 1):
            raise InputError(f"AESAM.steps: expected the number of steps of the training, >= 1, got {steps!r}")
        if not 0 <= delta < 1:
            raise InputError(f"AESAM.delta: expected a number in [0, 1), got {delta!r}; 0.9 is usual")
        self.total, self.delta, self.low, self.high = steps, delta, low, high
        for name in ("aesam_mean", "aesam_variance"):
            self._told(name, 0.0)

    def _due(self, norm: float) -> bool:
        square, d = norm**2, self.delta
        mean = self._told("aesam_mean", d * self._told("aesam_mean") + (1 - d) * square)
        variance = self._told("aesam_variance", d * self._told("aesam_variance") + (1 - d) * (square - mean) ** 2)
        done = min(self.steps / self.total, 1.0)
        return square >= mean + (done * self.low + (1 - done) * self.high) * math.sqrt(variance)
