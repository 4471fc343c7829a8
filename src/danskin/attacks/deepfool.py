"""DeepFool: step to the nearest class boundary of the linearised model until the label flips."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from danskin.attacks.closest import Closest, ClosestAttack
from danskin.errors import InputError
from danskin.minmax.intersection import order_of
from danskin.minmax.search import mask
from danskin.minmax.sets import rowwise


@dataclass(frozen=True)
class DeepFool(ClosestAttack):
    r"""The nearest boundary of the model linearised at the current point, again and again.

    With F_j = z_j - z_y, w_j its gradient, q the dual norm and j* the class with the least |F_j| / \|w_j\|_q:

        l2:     delta <- clip(delta + (1 + overshoot) (|F_j*| + s) w_j* / \|w_j*\|_2^2)
        l_inf:  delta <- clip(delta + (1 + overshoot) (|F_j*| + s) sign(w_j*) / \|w_j*\|_1)

    until x + delta is misclassified. s is 1e-4 of the lead at the clean input.

    Args:
        ball: `L2` or `Linf`.
        steps: at most so many linearisations, >= 1.
        candidates: classes considered, the likeliest wrong ones at the clean input; None for all. Each costs a
            backward pass per step.
        overshoot: >= 0.
        refine: forward passes at the end that pull the point back along the way it came; it undoes the overshoot.
        stop: do not refine what is inside the ball already.

    For affine models it is exact up to the overshoot when the box does not matter. `loss` is only reported.
    Untargeted only: prefer `FMN` or `DDN` where targets are wanted, or the least norm counts.

    Reference: Moosavi-Dezfooli, Fawzi and Frossard, CVPR 2016, algorithm 2.
    """

    moves: ClassVar[str] = "steps to the boundary of the linearised model"
    norms: ClassVar[tuple[float, ...]] = (2, math.inf)
    limits: ClassVar[dict[str, tuple[float, float]]] = {
        "steps": (1, math.inf), "overshoot": (0, math.inf), "refine": (0, math.inf),
    }  # fmt: skip

    steps: int = 50
    candidates: int | None = 10
    overshoot: float = 0.02
    refine: int = 5

    def search(self, closest: Closest) -> None:
        """Linearise and step."""
        if closest.f.goal.targets is not None:
            raise InputError(
                "targets: expected none for DeepFool, got some; it leaves the label's region by the nearest boundary: "
                "use DDN, FMN or CarliniWagner for targets"
            )
        if self.candidates is not None and self.candidates < 1:
            raise InputError(f"DeepFool.candidates: expected at least 1, got {self.candidates}; use None for all")
        delta = closest.start
        rivals = slack = None
        for k in range(self.steps + 1):
            last = k == self.steps
            logits, hit, point = closest.look(delta, gradient=not last)
            if last:
                break
            gaps = closest.f.goal.gaps(logits)
            if rivals is None or slack is None:
                clean = gaps.detach()
                n = clean.shape[1] if self.candidates is None else min(self.candidates, clean.shape[1])
                rivals, slack = clean.topk(n, 1).indices, 1e-4 * clean.amax(1).abs()
            closest.done |= hit
            if not bool(closest.done.all()):
                gap, w, dual = self._nearest(closest, gaps.gather(1, rivals), point)
                closest.done |= ~dual.isfinite() | (dual == 0)  # no direction leads out: nothing more to do
                left = closest.compact(delta, rivals, slack, gap, w, dual)
            if bool(closest.done.all()) or left is None:
                break
            delta, rivals, slack, gap, w, dual = left
            size = rowwise((1 + self.overshoot) * (gap.abs() + slack) / dual, w)
            step = size * w.sign() if order_of(self.ball) == math.inf else size * w / rowwise(dual, w)
            delta = closest.boxed(delta + step)
        closest.refine(self.refine)

    def _nearest(self, closest: Closest, gaps: Tensor, point: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """F, w and the dual norm of w for the candidate whose linearised boundary is nearest."""
        n = gaps.shape[1]
        best = closest.radius.new_full((len(gaps),), math.inf)
        gap, dual, w = torch.zeros_like(best), torch.zeros_like(best), torch.zeros_like(point)
        for j in range(n):
            g = closest.slope(gaps[:, j], point, retain=j < n - 1)
            value, norm = gaps[:, j].detach(), closest.ball.dual_norm(g)
            far = torch.where(norm > 0, value.abs() / norm, math.inf)
            nearer = far < best
            best, gap, dual = (torch.where(nearer, a, b) for a, b in ((far, best), (value, gap), (norm, dual)))
            w = torch.where(mask(nearer, w), g, w)
        return gap, w, dual
