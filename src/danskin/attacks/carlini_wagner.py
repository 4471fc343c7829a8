"""The attack of Carlini and Wagner in l2: Adam on a penalty whose constant is searched, per example."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from danskin.attacks.closest import Closest, ClosestAttack
from danskin.minmax.search import mask
from danskin.minmax.sets import rowwise, vector_norm


class Constants(NamedTuple):
    """The search for the penalty's constant c of each row: bracketed from both sides, then halved.

    Args:
        c: (rows,) in use.
        low: the largest c that failed.
        high: the smallest c that succeeded, inf before one did.
        tried: how many have been tried.
    """

    c: Tensor
    low: Tensor
    high: Tensor
    tried: Tensor

    @staticmethod
    def begin(like: Tensor, first: float) -> Constants:
        """`first` for every entry of `like` (rows,)."""
        c = torch.full_like(like, first)
        return Constants(c, torch.zeros_like(c), torch.full_like(c, math.inf), torch.zeros_like(c, dtype=torch.int64))

    def next(self, ended: Tensor, succeeded: Tensor) -> Constants:
        """The next c of rows whose run ended: half way between the bounds, or ten times as large without upper one."""
        low = torch.where(ended & ~succeeded, self.c, self.low)
        high = torch.where(ended & succeeded, self.c, self.high)
        new = torch.where(high.isfinite(), 0.5 * (low + high), 10 * self.c)
        return Constants(torch.where(ended, new, self.c), low, high, self.tried + ended)


class Progress(NamedTuple):
    """Whether runs still get anywhere: the lowest loss so far, and what it was at the last check.

    One loss against another would end runs whose loss swings.
    """

    lowest: Tensor
    checked: Tensor

    @staticmethod
    def begin(like: Tensor) -> Progress:
        """Nothing seen yet, for every entry of `like` (rows,)."""
        return Progress(torch.full_like(like, math.inf), torch.full_like(like, math.inf))

    def after(self, loss: Tensor, at: Tensor, every: int) -> tuple[Progress, Tensor]:
        """With these losses at steps `at`; and which rows are not 0.01 % lower than at the last check."""
        lowest, check = torch.fmin(self.lowest, loss), at % every == 0
        idle = check & ~(lowest < 0.9999 * self.checked)
        return Progress(lowest, torch.where(check, lowest, self.checked)), idle

    def restarted(self, rows: Tensor) -> Progress:
        """Some rows begin anew."""
        return Progress(*(t.masked_fill(rows, math.inf) for t in self))


@dataclass(frozen=True)
class CarliniWagner(ClosestAttack):
    r"""min over delta of \|delta\|_2^2 + c max(0, confidence - lead(x + delta)), by Adam, with c searched.

    lead is the adversarial outcome's logit over its best rival. In a box, Adam moves w with

        delta = clip(r (tanh(w) - t)),  t = ends (x - middle) / half width,  r = 2 half width / (1 + ends),

    which is 0 at tanh(w) = t and reaches all of the box; without a box it moves delta. c starts at `first_constant`,
    is raised tenfold until a run succeeds and then halved in; every run starts at the clean input. Rows run on
    their own: the moment one ends it starts over with its next c, so that the batch stays full.

    Args:
        ball: `L2`.
        steps: of Adam for each c, >= 1.
        searches: values of c, >= 1.
        step: learning rate of Adam, in units of w.
        confidence: least lead of a point that is kept, >= 0.
        first_constant: c of the first run, > 0.
        ends: |tanh(w)| at which pixels at the ends of the box begin, in (0, 1). Their code has 0.999999, so flat that
            such pixels do not move in hundreds of steps.
        abort: end a run when a tenth of the steps has not lowered its loss by 0.01 %.
        refine: forward passes at the end that pull the closest point towards the clean input.
        stop: leave an example at the first adversarial point inside the ball.

    `loss` is only reported. Prefer `DDN` or `FMN` when passes are few.

    Reference: Carlini and Wagner, S&P 2017, section VI; constants of their code.
    """

    moves: ClassVar[str] = "Adam on a penalty, its constant searched"
    norms: ClassVar[tuple[float, ...]] = (2,)
    limits: ClassVar[dict[str, tuple[float, float]]] = {
        "steps": (1, math.inf), "searches": (1, math.inf), "step": (1e-12, math.inf), "confidence": (0, math.inf),
        "first_constant": (1e-12, math.inf), "ends": (1e-3, 1 - 1e-7), "refine": (0, math.inf),
    }  # fmt: skip

    steps: int = 1000
    searches: int = 9
    step: float = 0.01
    confidence: float = 0.0
    first_constant: float = 1e-3
    ends: float = 0.9
    abort: bool = True
    refine: int = 5

    def search(self, closest: Closest) -> None:
        """All runs of all rows."""
        closest.least = self.confidence
        rows = closest.radius
        start, reach = self._variable(closest)
        tanh0 = start.tanh()
        w, first, second = start.clone(), torch.zeros_like(start), torch.zeros_like(start)
        at = torch.zeros_like(rows, dtype=torch.int64)
        constants, found = Constants.begin(rows, self.first_constant), torch.zeros_like(rows, dtype=torch.bool)
        progress, tenth = Progress.begin(rows), max(1, self.steps // 10)
        while True:
            tanh = w.tanh() if reach is not None else w
            delta = closest.boxed((tanh - tanh0).mul_(reach)) if reach is not None else w.clone()
            logits, hit, point = closest.look(delta, gradient=True)
            gap = (self.confidence - closest.f.goal.lead(logits)).clamp_min(0)
            g = closest.slope(gap * constants.c, point).add_(delta, alpha=2)
            loss = vector_norm(delta, 2) ** 2 + constants.c * gap.detach()
            if reach is not None:
                g = g.mul_((1 - tanh * tanh).mul_(reach))
            at += 1
            found |= hit
            self._adam(w, g, first, second, at)
            progress, idle = progress.after(loss, at, tenth)
            ended = (at >= self.steps) | (idle & self.abort)
            if bool(ended.any()):
                constants = constants.next(ended, found)
                closest.done |= constants.tried >= self.searches
                again = mask(ended, w)
                w = torch.where(again, start, w)
                first, second = first.masked_fill(again, 0), second.masked_fill(again, 0)
                at, found, progress = at * ~ended, found & ~ended, progress.restarted(ended)
            left = closest.compact(w, first, second, start, tanh0, at, found, *progress, *constants)
            if left is None:
                break
            w, first, second, start, tanh0, at, found = left[:7]
            progress, constants = Progress(*left[7:9]), Constants(*left[9:])
        closest.refine(self.refine)

    def _variable(self, closest: Closest) -> tuple[Tensor, Any]:
        """Where w begins, and r (None without a box, where w is delta itself)."""
        if closest.f.box is None:
            return closest.start, None
        low, high = closest.f.box
        half = 0.5 * (high - low)
        return (((closest.f.x - low) / half - 1).clamp(-1, 1) * self.ends).atanh(), 2 * half / (1 + self.ends)

    def _adam(self, w: Tensor, g: Tensor, first: Tensor, second: Tensor, at: Tensor) -> None:
        """One step of Adam in place, each row at its own step `at` (1, 2, ...)."""
        first.lerp_(g, 0.1)
        second.mul_(0.999).addcmul_(g, g, value=0.001)
        at = at.to(w.dtype)
        root = (second / rowwise(1 - 0.999**at, w)).sqrt_().add_(1e-8)
        w.sub_((first * rowwise(self.step / (1 - 0.9**at), w)).div_(root))
