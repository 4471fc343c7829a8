"""The way to a hyperplane within a box: the nearest point in l_inf, l2 or l1, batched over dim 0.

min over q of |q - t|_p subject to <w, q> = b, low <= q <= high. With c = b - <w, t> each coordinate moves only
to the side that helps, by v_i between 0 and the room r_i it has there, and sum |w_i| v_i = |c|:

    l_inf:  v_i = min(m, r_i)
    l2:     v_i = min(m |w_i|, r_i)
    l1:     r_i in the order of falling |w_i|, until |c| is spent

Where all the room is not enough, all of it is used: the point of the box nearest to the hyperplane.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from danskin.errors import InputError
from danskin.minmax.projections import flatten


def project_hyperplane(
    t: Tensor, w: Tensor, b: Tensor, low: float | Tensor, high: float | Tensor, order: float
) -> Tensor:
    r"""The point nearest to t in l_order on {q : <w, q> = b, low <= q <= high}; see `hyperplane_step`.

    Args:
        t: (batch, ...) inside the box.
        w: like t.
        b: (batch,).
        low: least values, a number or broadcast against t; -inf for none.
        high: largest values.
        order: inf, 2 or 1.

    >>> project_hyperplane(torch.zeros(1, 3), torch.tensor([[2.0, 1, 0]]), torch.tensor([2.0]), 0, 0.6, math.inf)
    tensor([[0.6000, 0.6000, 0.0000]])
    >>> project_hyperplane(torch.zeros(1, 3), torch.tensor([[2.0, 1, 0]]), torch.tensor([2.0]), 0, math.inf, 2)
    tensor([[0.8000, 0.4000, 0.0000]])
    """
    wide = torch.float32 if t.device.type == "mps" else torch.float64
    reached = (flatten(w).to(wide) * flatten(t).to(wide)).sum(1)
    return t + hyperplane_step((b - reached).to(t.dtype), w, t - low, high - t, order)


def hyperplane_step(rise: Tensor, w: Tensor, down: Tensor, up: Tensor, order: float) -> Tensor:
    r"""The d of least l_order norm with <w, d> = rise and -down <= d <= up, or the d that comes nearest to it.

    For l_inf and l2 the multiplier m solves sum |w_i| v_i(m) = |rise|, whose left side is concave, increasing and
    piecewise linear. Newton's method from below, m <- (|rise| - what the full coordinates give) / (slope of the
    others), only ever fills more coordinates, so it ends exactly, after as many rounds as there are groups that
    fill up; most rows need two or three, and those go on alone that need more. A sort would cost more. For l1 the
    coordinates are sorted by |w| and filled by prefix sums.

    Args:
        rise: (batch,) how much <w, .> has to rise; negative to fall.
        w: (batch, ...); coordinates with w = 0 do not move. Or fewer rows, for a batch of several blocks of rows with
            the same w.
        down: (batch, ...) >= 0: the room below.
        up: (batch, ...) >= 0: the room above.
        order: inf, 2 or 1.

    Reference: Croce and Hein, "Minimally distorted adversarial examples with a fast adaptive boundary attack",
    ICML 2020, §2.2 and appendix A.
    """
    if order not in (1, 2, math.inf):
        raise InputError(f"order: expected 1, 2 or inf, got {order!r}; these are the norms with a closed form")
    if not w.numel():
        return torch.zeros_like(down)
    blocks = len(rise) // len(w)
    flat = flatten(w)
    scale = flat.abs().amax(1, keepdim=True)
    scale = torch.where(scale > 0, scale, 1.0)
    a = (
        flat.abs() / scale
    )  # the problem is the same for any multiple of (w, rise); this one neither over- nor underflows
    wide = a.dtype if a.device.type == "mps" else torch.float64
    need = rise.reshape(-1, 1).abs().to(wide) / scale.to(wide).repeat(blocks, 1)
    side = flat.sign().repeat(blocks, 1) * rise.reshape(-1, 1).sign()
    room = torch.where(side > 0, flatten(up), flatten(down)).clamp_min(0)
    if order == 1:
        weight, falling = a.sort(1, descending=True)
        v = _fill_by_weight(weight.repeat(blocks, 1), falling.repeat(blocks, 1), room, need)
    else:
        v = _fill_together(a.repeat(blocks, 1), room, need, order)
    return (v.to(w.dtype) * side).view(up.shape)


def _fill_together(a: Tensor, room: Tensor, need: Tensor, order: float) -> Tensor:
    """min(m a, room) for l2 and min(m, room) for l_inf, where a > 0, with the m that meets the need."""
    rate = a if order == 2 else (a > 0).to(a.dtype)  # how fast a coordinate moves in m
    slope = a * rate
    most = torch.where(room.isfinite() & (slope > 0), a * room, 0.0)  # what a coordinate gives when it is full
    ends = torch.where(slope > 0, room / rate, 0.0)  # the m at which it is
    m = torch.zeros_like(a[:, :1])
    problem, rows = [slope, most, ends, need.to(a.dtype)], torch.arange(len(a), device=a.device)
    while len(rows):
        now = m[rows]
        then = _newton(problem[0], problem[1], problem[2], problem[3], now).maximum(now)
        m[rows] = then
        at = (then > now).squeeze(1).nonzero().squeeze(1)
        if 2 * len(at) <= len(rows):
            rows, problem = rows[at], [t[at] for t in problem]
    m = _newton(slope, most, ends, need, m).to(a.dtype)
    return torch.where(slope > 0, torch.minimum(rate * m.clamp_max(torch.finfo(m.dtype).max), room), 0.0)


def _newton(slope: Tensor, most: Tensor, ends: Tensor, need: Tensor, m: Tensor) -> Tensor:
    """The m that meets the need if just the coordinates full at m are full, in the dtype of the need."""
    left = (ends > m).to(slope.dtype)
    free = (slope * left).sum(1, keepdim=True, dtype=need.dtype)
    given = (most - most * left).sum(1, keepdim=True, dtype=need.dtype)
    return torch.where(free > 0, (need - given).clamp_min(0) / free, torch.inf)


def _fill_by_weight(weight: Tensor, order: Tensor, room: Tensor, need: Tensor) -> Tensor:
    """The room of the largest weights first, until the need is met; `weight` is sorted by `order`."""
    w, r = weight.to(need.dtype), room.gather(1, order).to(need.dtype)
    each = w * torch.where(w > 0, r, 0.0)
    before = torch.cat([torch.zeros_like(need), each.cumsum(1)[:, :-1]], 1)
    part = (need - before).clamp_min(0) / torch.where(w > 0, w, 1.0)
    moved = torch.where(w > 0, torch.minimum(part, r), 0.0)
    return torch.zeros_like(room).scatter_(1, order, moved.to(room.dtype))
