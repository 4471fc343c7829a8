"""LookSAM: the second gradient every k steps, its new part used again in between."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from danskin.errors import InputError
from danskin.minmax import Template, lists
from danskin.minmax.weight_balls import AllWeights, EachLayer, WeightBall
from danskin.optim.sharpness import SharpnessAware

_TURN = "looksam_turn"


class LookSAM(SharpnessAware):
    r"""SAM's second gradient every k-th step only, 1 + 1/k gradients a step.

    In a step with both, p = grad f(w + v) is stepped along, and h = p - <p, u> u, u = g / |g|, is kept: what p adds to
    g. In the others g + alpha (|g| / |h|) h is stepped along.

    Args:
        base: one optimiser, or several.
        rho: radius over all weights together, > 0; by layers gamma, a share of each layer's norm.
        k: a second gradient in steps 0, k, 2k, ...; at least 1, which is SAM.
        alpha: of the kept part, >= 0.
        layerwise: the ball of layers in place of that of all weights (Look-LayerSAM).
        per_tensor: project, and compare lengths, tensor by tensor, as public packages do; else over all weights.
        options: those of `SharpnessAware`.

    Reference: Liu et al. 2022, algorithm 1.
    Lecture: row D3.
    """

    template = Template("weights", "weight shift", "l2 ball", "loss")
    moves = "one linear maximiser on the weights every k steps, the base optimiser outside"
    _keeps_first = True

    def __init__(
        self,
        base: Optimizer | Sequence[Optimizer],
        rho: float = 0.05,
        k: int = 5,
        alpha: float = 0.7,
        *,
        layerwise: bool = False,
        per_tensor: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(base, **options)
        if not (isinstance(k, int) and k >= 1):
            raise InputError(f"LookSAM.k: expected a whole number >= 1, got {k!r}; 5 is usual, 1 is SAM")
        if not alpha >= 0:
            raise InputError(f"LookSAM.alpha: expected a number >= 0, got {alpha!r}; 0.7 is usual")
        self.ball: WeightBall = EachLayer(rho) if layerwise else AllWeights(rho)
        self.k, self.alpha, self.per_tensor = k, alpha, per_tensor
        self._new: dict[Tensor, Tensor] = {}

    def _ball(self) -> WeightBall:
        return self.ball

    def _due(self, norm: float) -> bool:
        return (self.steps - self.start) % self.k == 0

    def _parts(self, tensors: list[list[Tensor]]) -> list[list[list[Tensor]]]:
        """Lists beside each other, whole or tensor by tensor."""
        return [[[t] for t in row] for row in zip(*tensors, strict=True)] if self.per_tensor else [tensors]

    def _combine(self, weights: list[Tensor], first: list[Tensor] | None, second: list[Tensor]) -> None:
        assert first is not None
        turn = [p.clone() for p in second]
        for g, p, h in self._parts([first, second, turn]):
            square = lists.dot(g, g)
            torch._foreach_add_(h, g, alpha=-lists.dot(p, g) / square if square > 0 else 0.0)
            if lists.norm(h) <= 100 * torch.finfo(h[0].dtype).eps * lists.norm(p):
                torch._foreach_zero_(lists.own(h))  # only rounding, which `_reuse` would make as long as g
        self._new = dict(zip(weights, turn, strict=True))

    def _reuse(self, weights: list[Tensor], g: list[Tensor]) -> None:
        known = [self._home(w).get(_TURN) for w in weights]
        turn = [torch.zeros_like(w) if h is None else h for w, h in zip(weights, known, strict=True)]
        for slope, h in self._parts([g, turn]):
            length = lists.norm(h)
            if length > 0:
                torch._foreach_add_(slope, h, alpha=self.alpha * lists.norm(slope) / length)

    def _remember(self, weights: list[Tensor]) -> None:
        for w in weights:
            kept = self._home(w)
            if w in self._new:
                kept[_TURN] = self._new[w]
            else:
                kept.setdefault(_TURN, torch.zeros_like(w))
        self._new = {}
