"""FriendlySAM: the adversary climbs along what is particular to the batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from danskin.errors import InputError
from danskin.optim.sam import SAM

_MEAN = "friendly_mean"


class FriendlySAM(SAM):
    r"""SAM whose ascent leaves the full gradient out: v = rho d / |d|, d = g - sigma m, m the moving average of g.

    m is that of the steps before, then m <- decay m + (1 - decay) g; in the first step d = g and m = g.

    Args:
        base: one optimiser, or several.
        rho: radius, > 0.
        sigma: share of the average that is taken off, >= 0; 0 is SAM.
        decay: of the average, in [0, 1).
        options: those of `SharpnessAware`.

    Reference: Li et al. 2024, algorithm 1.
    Lecture: row D3.
    """

    moves = "one linear maximiser on the weights along the batch's own part, the base optimiser outside"
    splits = False

    def __init__(
        self,
        base: Optimizer | Sequence[Optimizer],
        rho: float = 0.2,
        sigma: float = 1.0,
        decay: float = 0.9,
        **options: Any,
    ) -> None:
        super().__init__(base, rho, **options)
        if not sigma >= 0:
            raise InputError(f"FriendlySAM.sigma: expected a number >= 0, got {sigma!r}; 1 is usual")
        if not 0 <= decay < 1:
            raise InputError(f"FriendlySAM.decay: expected a number in [0, 1), got {decay!r}; 0.9 is usual")
        self.sigma, self.decay = sigma, decay
        self._means: dict[Tensor, Tensor] = {}
        self._told("friendly_begun", 0)

    def _direction(self, weights: list[Tensor], g: list[Tensor]) -> list[Tensor]:
        if not self._told("friendly_begun"):
            self._means = {w: slope.clone() for w, slope in zip(weights, g, strict=True)}
            return g
        known = [self._home(w).get(_MEAN) for w in weights]
        means = [torch.zeros_like(w) if m is None else m for w, m in zip(weights, known, strict=True)]
        d = torch._foreach_add(g, means, alpha=-self.sigma)
        new = torch._foreach_mul(means, self.decay)
        torch._foreach_add_(new, g, alpha=1 - self.decay)
        self._means = dict(zip(weights, new, strict=True))
        return list(d)

    def _remember(self, weights: list[Tensor]) -> None:
        """The average is kept once the step is made: a skipped one leaves it alone."""
        for w in weights:
            kept = self._home(w)
            if w in self._means:
                kept[_MEAN] = self._means[w]
            else:
                kept.setdefault(_MEAN, torch.zeros_like(w))
        if self._means:
            self._told("friendly_begun", 1)
        self._means = {}
