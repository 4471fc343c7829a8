"""Decoupled direction and norm: a minimum-norm l2 attack in a few hundred steps."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch

from danskin.attacks.closest import Closest, ClosestAttack, annealed
from danskin.minmax.sets import rowwise, vector_norm


@dataclass(frozen=True)
class DDN(ClosestAttack):
    r"""Decoupled direction and norm: the direction follows the gradient, the norm the outcome.

    With g_k the normalised gradient of the loss at x + delta_k, and a_k falling from `step` to `step` / 100 along
    half a cosine:

        n_{k+1} = n_k (1 - shrink) where x + delta_k is adversarial, else n_k (1 + shrink)
        delta_{k+1} = clip(n_{k+1} u / \|u\|_2),  u = delta_k + a_k g_k

    Args:
        ball: `L2`.
        steps: points looked at, >= 1; all but the last cost a backward pass too.
        step: a_0, in the data's units, > 0.
        norm: n_0, in the data's units, > 0.
        shrink: in (0, 1).
        refine: forward passes at the end that pull the closest point towards the clean input.
        stop: leave an example at the first adversarial point inside the ball.

    `loss` is what the steps raise; "margin" heads for the nearest rival alone, and often ends nearer. Where it is
    saturated (gradient exactly 0) the direction is random.

    Reference: Rony et al., CVPR 2019, algorithm 1.
    """

    moves: ClassVar[str] = "unit gradient steps, norm by success"
    norms: ClassVar[tuple[float, ...]] = (2,)
    limits: ClassVar[dict[str, tuple[float, float]]] = {
        "steps": (1, math.inf), "step": (1e-12, math.inf), "norm": (1e-12, math.inf), "shrink": (1e-6, 1 - 1e-6),
        "refine": (0, math.inf),
    }  # fmt: skip

    steps: int = 100
    step: float = 1.0
    norm: float = 1.0
    shrink: float = 0.05
    refine: int = 5

    def search(self, closest: Closest) -> None:
        """Look at points along the path."""
        delta = closest.start
        norm, most = torch.full_like(closest.radius, self.norm), closest.largest()
        for k in range(self.steps):
            last = k == self.steps - 1
            logits, hit, point = closest.look(delta, gradient=not last)
            if last:
                break
            g = closest.slope(closest.f.goal.value(logits), point)
            left = closest.compact(delta, g, norm, most, hit)
            if left is None:
                return
            delta, g, norm, most, hit = left
            norm = torch.minimum(norm * torch.where(hit, 1 - self.shrink, 1 + self.shrink), most)
            a = annealed(k, self.steps, self.step, self.step / 100)
            u = closest.unit(g, k).mul_(a).add_(delta)
            delta = closest.boxed(u.mul_(rowwise(norm / vector_norm(u, 2).clamp_min(1e-30), u)))
        closest.refine(self.refine)
