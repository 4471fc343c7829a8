"""HopSkipJump: gradients at the decision boundary from decisions alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from danskin.attacks.boundary import DecisionAttack, normals, to_boundary
from danskin.attacks.closest import Closest
from danskin.minmax import Streams
from danskin.minmax.data_box import mean_width
from danskin.minmax.intersection import order_of
from danskin.minmax.search import mask
from danskin.minmax.sets import rowwise, vector_norm

_PROBES = 32  # asked about at once, per example; fixed, so that the batch does not decide what is drawn
_HALVINGS = 24  # of a step, before the point is left where it is


@dataclass(frozen=True)
class HopSkipJump(DecisionAttack):
    r"""Estimate the boundary's normal from decisions around it, step along it, bisect back; again and again.

    At a boundary point delta_t, with B_t = min(probes sqrt(t), most_probes) random unit vectors u_b and
    phi_b = +1 where x + delta_t + r_t u_b is adversarial, else -1:

        v = sum_b (phi_b - mean phi) u_b     (sum_b phi_b u_b where all phi agree)
        delta' = clip(delta_t + c v / \|v\|_2)   (l_inf: c sign(v))
        c = \|delta_t\| / sqrt(t), halved until adversarial

    and delta_{t+1} is where the way from 0 to delta' meets the boundary, to 1 / d^1.5 of it (l_inf: 1 / d^2).
    r_t is d^-1 \|delta_t\| for l2 and for l_inf, and a tenth of the box's width at first.

    Args:
        ball: `L2` or `Linf`.
        queries: decisions asked for per example.
        probes: B_1, >= 2.
        most_probes: the largest B_t.
        stop: leave an example at the first adversarial point inside the ball.

    v is normalised, steps are halved (at most 24 times) and budgets are kept for each example on its own.

    Reference: Chen, Jordan and Wainwright, S&P 2020, algorithm 2.
    """

    moves: ClassVar[str] = "steps along the boundary's normal, decisions only"
    norms: ClassVar[tuple[float, ...]] = (2, math.inf)
    limits: ClassVar[dict[str, tuple[float, float]]] = DecisionAttack.limits | {
        "probes": (2, math.inf), "most_probes": (2, math.inf),
    }  # fmt: skip

    probes: int = 100
    most_probes: int = 10_000

    def search(self, closest: Closest) -> None:
        """Hop, skip and jump."""
        delta = self.first(closest)
        if delta is None:
            return
        d, cube = delta[0].numel(), order_of(self.ball) == math.inf
        halvings = max(8, math.ceil((2 if cube else 1.5) * math.log2(d)))
        t = 0
        while True:
            # a bisection, and after the first a step and enough probes to point somewhere
            closest.done |= ~self.affords(closest, halvings + (0 if t == 0 else 1 + min(10, self.probes)))
            left = closest.compact(delta)
            if left is None:
                return
            (delta,) = left
            if t == 0:
                delta = to_boundary(closest, delta, torch.arange(len(delta), device=delta.device), halvings)
            else:
                v = self._normal(closest, delta, t, halvings)
                moved, rows = self._jump(closest, delta, v, t, halvings)
                delta = delta.index_put((rows,), to_boundary(closest, moved[rows], rows, halvings))
            t += 1

    def _normal(self, closest: Closest, delta: Tensor, t: int, reserved: int) -> Tensor:
        """The estimated normal, (rows, ...): unit l2 norm, or signs."""
        n, shape = len(delta), delta.shape[1:]
        count = min(int(self.probes * math.sqrt(t)), self.most_probes)
        counts = (self.queries - closest.spent[closest.index] - 1 - reserved).clamp(0, count)
        size = closest.ball.norm(delta)
        radius = size / math.prod(shape)
        if t == 1 and closest.f.box is not None:
            radius = torch.full_like(radius, 0.1 * mean_width(closest.f.box))
        signed, plain, votes = torch.zeros_like(delta), torch.zeros_like(delta), torch.zeros_like(radius)
        streams = closest.streams.child(1).child(t)
        for j in range(0, count, _PROBES):
            u = self._draw(streams.child(j), delta)
            at = delta[:, None] + rowwise(radius, u) * u
            if closest.low is not None and closest.high is not None:
                at = at.clamp(closest.low[:, None], closest.high[:, None])
                u = (at - delta[:, None]) / rowwise(radius, u)  # as far as the box lets it go
            asked = j + torch.arange(_PROBES, device=delta.device) < counts[:, None]
            phi = self._ask(closest, at, asked)
            signed += (u * phi.view(n, _PROBES, *[1] * len(shape))).sum(1)
            plain += (u * asked.to(u).view(n, _PROBES, *[1] * len(shape))).sum(1)
            votes += phi.sum(1)
        mean = votes / counts.clamp_min(1)
        v = torch.where(mask(mean.abs() < 1, delta), signed - rowwise(mean, delta) * plain, signed)
        return v.sign() if order_of(self.ball) == math.inf else v / rowwise(vector_norm(v, 2).clamp_min(1e-30), v)

    def _draw(self, streams: Streams, delta: Tensor) -> Tensor:
        """(rows, probes, ...) random unit vectors."""
        like = delta.new_empty(len(delta), _PROBES, *delta.shape[1:])
        u = 2 * streams.uniform(like) - 1 if order_of(self.ball) == math.inf else normals(streams, like)
        size = vector_norm(u.flatten(0, 1), 2).clamp_min(1e-30)
        return u / size.view(len(delta), _PROBES, *[1] * (delta.ndim - 1))

    def _ask(self, closest: Closest, at: Tensor, asked: Tensor) -> Tensor:
        """(rows, probes) +1 where adversarial, -1 where not, 0 where not asked."""
        phi = torch.zeros(asked.shape, dtype=at.dtype, device=at.device)
        where = asked.nonzero()
        if len(where):
            rows, probe = where[:, 0], where[:, 1]
            hit = closest.look(at[rows, probe], rows=rows, keep=False)[1]
            phi[rows, probe] = 2 * hit.to(phi) - 1
        return phi

    def _jump(self, closest: Closest, delta: Tensor, v: Tensor, t: int, reserved: int) -> tuple[Tensor, Tensor]:
        """The points after an adversarial step, and the rows that made one."""
        length = closest.ball.norm(delta) / math.sqrt(t)
        moved, open_ = delta.clone(), torch.ones_like(closest.done)
        for _ in range(1 + _HALVINGS):
            rows = (open_ & self.affords(closest, 1 + reserved)).nonzero().squeeze(1)
            if not len(rows):
                break
            step = closest.boxed(delta + rowwise(length, v) * v)[rows]
            hit = closest.look(step, rows=rows)[1]
            moved[rows[hit]] = step[hit]
            open_[rows[hit]] = False
            length = 0.5 * length
        return moved, (~open_).nonzero().squeeze(1)
