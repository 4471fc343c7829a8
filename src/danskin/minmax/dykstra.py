r"""A set and a box at once, by projections on each alone: for sets whose cut with a box has no closed form.

The point of A and B nearest to y is x = P_B(y - p) at the fixed point of Dykstra's projections,

    x = P_B(y - p),  p <- p + x - P_A(p + x)        from p = y - P_A(y)

which are gradient steps of length 1 on the dual problem. So Nesterov's momentum speeds them up: it starts anew for a
row when a step goes against it (O'Donoghue and Candes). A row ends when a step moves p by at most `TOLERANCE` / 10 of
the size of x, or after `ROUNDS`; it is then moved, by about as much, to where the set says that it is inside. Who else
stands in the batch changes nothing for a row. Far away, at hundreds of sizes, it takes most of the rounds.

The best point of A and B for <g, .> is approached by steps of the proximal point method, q <- P(q + t g), which ends
after finitely many where both are polyhedra and gains a constant factor with each where A is round.

Reference: Boyle and Dykstra, 1986; Beck and Teboulle, SIAM J. Imaging Sci. 2(1), 2009 (momentum); O'Donoghue and
Candes, "Adaptive restart for accelerated gradient schemes", Found. Comput. Math. 15, 2015.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from danskin.minmax.box import Box
from danskin.minmax.rows import rows_of
from danskin.minmax.sets import Set, rowwise, vector_norm

#: How far a projection may be from the exact one, relative to its size.
TOLERANCE = 1e-5
#: Rounds after which a row is taken as it is.
ROUNDS = 1000
#: Steps of the linear maximiser; the first goes two sizes of the set far, each other twice as far, up to the longest.
STEPS, LONGEST = 12, 128.0


def nearest(y: Tensor, ball: Set, box: Box) -> Tensor:
    """The point of ball and box nearest to y, within `TOLERANCE`; in the box, and in the ball up to rounding."""
    whole, out, at = (ball, box), torch.empty_like(y), torch.arange(len(y), device=y.device)
    p = y - ball.project(y)
    v, t = p, y.new_ones(len(y))
    rounding = 4 * torch.finfo(y.dtype).eps
    for k in range(ROUNDS):
        x = box.project(y - v)
        new = v + x - ball.project(v + x)
        size = vector_norm(x, 2)
        done = vector_norm(new - v, 2) <= 0.1 * TOLERANCE * size + rounding * (vector_norm(v, 2) + size)
        back = ((v - new) * (new - p)).reshape(len(v), -1).sum(1) > 0
        t = torch.where(back, 1.0, t)
        ahead = 0.5 * (1 + (1 + 4 * t * t).sqrt())
        v = new + rowwise(torch.where(back, 0.0, (t - 1) / ahead), new) * (new - p)
        p, t = new, ahead
        if k == ROUNDS - 1:
            done = torch.ones_like(done)
        if not bool(done.any()):
            continue
        out[at[done]] = x[done]
        stay = (~done).nonzero().squeeze(1)
        if not len(stay):
            break
        at, y, p, v, t = (each[stay] for each in (at, y, p, v, t))
        ball, box = rows_of(ball, stay), rows_of(box, stay)
    return _inside(out, *whole)


def _inside(z: Tensor, ball: Set, box: Box) -> Tensor:
    """Points of the box moved into the ball: by a few projections, and then towards 0 where 0 is inside."""
    for _ in range(5):
        out = ball.violation(z) > 0
        if not bool(out.any()):
            return z
        z = torch.where(_mask(out, z), box.project(ball.project(z)), z)
    zero = ball.violation(torch.zeros_like(z)) == 0
    for k in range(12):
        out = (ball.violation(z) > 0) & zero
        if not bool(out.any()):
            break
        z = torch.where(_mask(out, z), z * (1 - 2.0**k * torch.finfo(z.dtype).eps), z)
    return z


def best(g: Tensor, ball: Set, box: Box, project: Callable[[Tensor], Tensor]) -> Tensor:
    """A point of ball and box with nearly the most <g, .>; the ball's own maximiser where that is in the box."""
    vertex, q = ball.lmo(g), project(torch.zeros_like(g))
    fits = box.violation(vertex) == 0
    scale = vector_norm(g, float("inf"))
    unit = g / rowwise(torch.where(scale > 0, scale, 1.0), g)
    unit = unit / rowwise(vector_norm(unit, 2).clamp_min(1e-30), g)
    size = vector_norm(vertex - q, 2)
    step, going = rowwise(size, g) * unit, ~fits
    for k in range(STEPS):
        if not bool(going.any()):
            break
        ahead = project(q + min(2.0 ** (k + 1), LONGEST) * step)
        moved = vector_norm(ahead - q, 2)
        q = torch.where(_mask(going, q), ahead, q)
        going = going & (moved > TOLERANCE * size)
    return torch.where(_mask(fits, q), vertex, q)


def _mask(rows: Tensor, like: Tensor) -> Tensor:
    return rows.view(-1, *[1] * (like.ndim - 1))
