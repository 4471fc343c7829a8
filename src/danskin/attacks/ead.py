"""The elastic-net attack: sparse perturbations by iterative shrinkage."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor

from danskin.attacks.carlini_wagner import Constants, Progress
from danskin.attacks.closest import Closest, ClosestAttack
from danskin.errors import InputError
from danskin.minmax.search import mask
from danskin.minmax.sets import rowwise, vector_norm

Rule = Literal["en", "l1"]


@dataclass(frozen=True)
class EAD(ClosestAttack):
    r"""min over delta of c max(0, confidence - lead) + \|delta\|_2^2 + sparsity \|delta\|_1, by FISTA, with c searched.

    With S the soft threshold (|.| - sparsity, cut at 0, sign kept) and a_k = step sqrt(1 - k / steps):

        delta_{k+1} = clip(S(u_k - a_k grad(c max(0, confidence - lead) + \|u\|_2^2)))
        u_{k+1} = delta_{k+1} + k / (k + 3) (delta_{k+1} - delta_k)

    The threshold is not scaled by a_k, as in the authors' code. Candidates are the u_k, which are evaluated
    anyway (the authors also look at delta_k: twice the forward passes for about 1 % of the norm).
    c is searched as in `CarliniWagner`.

    Args:
        ball: `L1` or `L2`; the points are about equally good for both.
        steps: for each c, >= 1.
        searches: values of c, >= 1.
        step: a_0.
        sparsity: beta, > 0: the larger, the fewer coordinates change.
        rule: which of the points inside the ball (or, before there is one, outside) is the best: least
            \|delta\|_2^2 + sparsity \|delta\|_1 ("en") or least \|delta\|_1 ("l1").
        confidence: least lead of a point that is kept, >= 0.
        first_constant: c of the first run, > 0.
        abort: end a run when a fifth of the steps has not lowered its objective by 0.01 %.
        refine: forward passes at the end that pull the best point towards the clean input.
        stop: leave an example at the first adversarial point inside the ball.

    `loss` is only reported. Prefer `FMN(L1(...))` when passes are few.

    Reference: Chen et al., AAAI 2018, algorithm 1.
    """

    moves: ClassVar[str] = "shrinkage steps with momentum, penalty constant searched"
    norms: ClassVar[tuple[float, ...]] = (1, 2)
    limits: ClassVar[dict[str, tuple[float, float]]] = {
        "steps": (1, math.inf), "searches": (1, math.inf), "step": (1e-12, math.inf), "sparsity": (1e-12, math.inf),
        "confidence": (0, math.inf), "first_constant": (1e-12, math.inf), "refine": (0, math.inf),
    }  # fmt: skip

    steps: int = 1000
    searches: int = 9
    step: float = 0.01
    sparsity: float = 0.01
    rule: Rule = "en"
    confidence: float = 0.0
    first_constant: float = 1e-3
    abort: bool = True
    refine: int = 5

    def search(self, closest: Closest) -> None:
        """All runs of all rows."""
        if self.rule not in get_args(Rule):
            raise InputError(f"EAD.rule: expected 'en' or 'l1', got {self.rule!r}; pick one")
        closest.least, closest.rank = self.confidence, self._elastic if self.rule == "en" else _l1
        rows = closest.radius
        delta = u = closest.start
        at, found = torch.zeros_like(rows, dtype=torch.int64), torch.zeros_like(rows, dtype=torch.bool)
        constants = Constants.begin(rows, self.first_constant)
        progress, fifth = Progress.begin(rows), max(1, self.steps // 5)
        while True:
            logits, hit, point = closest.look(u, gradient=True)
            found |= hit
            gap = (self.confidence - closest.f.goal.lead(logits)).clamp_min(0)
            g = closest.slope(gap * constants.c, point).add_(u, alpha=2)
            loss = constants.c * gap.detach() + self._elastic(u)
            a = self.step * (1 - at.to(u.dtype) / self.steps).sqrt()
            before, delta = delta, closest.boxed(self._shrink(u - rowwise(a, u) * g))
            momentum = rowwise(at.to(u.dtype) / (at + 3), u)
            u = closest.boxed(delta + momentum * (delta - before))
            at += 1
            progress, idle = progress.after(loss, at, fifth)
            ended = (at >= self.steps) | (idle & self.abort)
            if bool(ended.any()):
                constants = constants.next(ended, found)
                closest.done |= constants.tried >= self.searches
                again = mask(ended, u)
                delta, u = delta.masked_fill(again, 0), u.masked_fill(again, 0)
                at, found, progress = at * ~ended, found & ~ended, progress.restarted(ended)
            left = closest.compact(delta, u, at, found, *progress, *constants)
            if left is None:
                break
            delta, u, at, found = left[:4]
            progress, constants = Progress(*left[4:6]), Constants(*left[6:])
        closest.refine(self.refine)

    def _shrink(self, z: Tensor) -> Tensor:
        return z.sign() * (z.abs() - self.sparsity).clamp_min(0)

    def _elastic(self, delta: Tensor) -> Tensor:
        return vector_norm(delta, 2) ** 2 + self.sparsity * _l1(delta)


def _l1(delta: Tensor) -> Tensor:
    return vector_norm(delta, 1)
