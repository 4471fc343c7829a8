"""Exact Euclidean projections and linear maximisers with a closed form, batched over dim 0.

All of them reduce to finding one multiplier per row at which a monotone, piecewise simple function
meets the radius. The break points are sorted once and the piece is found by prefix sums. Sums run in
float64, so that an l1 norm over 10^5 float32 coordinates is right to its last digits.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def flatten(t: Tensor) -> Tensor:
    """(batch, ...) as (batch, d), also for an empty batch."""
    return t.reshape(len(t), math.prod(t.shape[1:]))


def _wide(*tensors: Tensor) -> tuple[Tensor, ...]:
    """The tensors flattened to (batch, d), in float64 where the device has it."""
    wide = torch.float32 if tensors[0].device.type == "mps" else torch.float64
    return tuple(flatten(t).to(wide) for t in tensors)


def _column(radius: float | Tensor, like: Tensor) -> Tensor:
    """The radius as (batch, 1) in the dtype of `like`."""
    return torch.as_tensor(radius, dtype=like.dtype, device=like.device).reshape(-1, 1).expand(len(like), 1)


def _pick(table: Tensor, k: Tensor) -> Tensor:
    return table.gather(1, k.clamp(0, table.shape[1] - 1))


def project_l1(y: Tensor, radius: float | Tensor) -> Tensor:
    r"""Project on the l1 ball: argmin of \|q - y\|_2 over \|q\|_1 <= radius.

    q = sign(y) max(|y| - t, 0) with t = max_k (sum of the k largest |y| - radius) / k, cut at 0
    (Duchi et al., ICML 2008). The ball's face is the simplex, so this is `project_simplex` on |y|.

    Args:
        y: (batch, ...).
        radius: one number, or one per row, >= 0.
    """
    (flat,) = _wide(y)
    a, r = flat.abs(), _column(radius, flat)
    q = torch.where(a.sum(1, keepdim=True) <= r, a, (a - _threshold(a, r)).clamp_min(0))
    return (q.to(y.dtype) * flat.sign().to(y.dtype)).view(y.shape)


def project_simplex(y: Tensor, total: float | Tensor = 1.0) -> Tensor:
    """Project on {q >= 0, sum q = total}: q = max(y - t, 0)."""
    (flat,) = _wide(y)
    return (flat - _threshold(flat, _column(total, flat))).clamp_min(0).to(y.dtype).view(y.shape)


def _threshold(a: Tensor, total: Tensor) -> Tensor:
    """The t (batch, 1) with sum max(a - t, 0) = total: the largest of the candidates over k."""
    ordered = a.sort(1, descending=True).values
    counts = torch.arange(1, a.shape[1] + 1, device=a.device, dtype=a.dtype)
    return ((ordered.cumsum(1) - total) / counts).amax(1, keepdim=True)


def project_l1_box(y: Tensor, radius: float | Tensor, low: Tensor, high: Tensor) -> Tensor:
    r"""Project on the l1 ball cut with a box around 0: \|q\|_1 <= radius, low <= q <= high.

    With a = |y| and the room r_i of coordinate i on its side, q_i = sign(y_i) min(max(a_i - t, 0), r_i);
    the l1 norm falls in t with slope -#{i : a_i - r_i <= t < a_i}, so t lies between two of the 2d
    sorted break points.

    Args:
        y: (batch, ...).
        radius: one number, or one per row, >= 0.
        low: like y, <= 0.
        high: like y, >= 0.
    """
    some = int((flatten(y) != 0).sum(1).amax()) if y.numel() else 0
    if 0 < 2 * some <= flatten(y).shape[1]:  # sparse steps: what is 0 stays 0, sort the rest only
        at = flatten(y).abs().topk(some, 1, sorted=False).indices
        small, lo, hi = (flatten(t).gather(1, at) for t in (y, low, high))
        q = project_l1_box(small, radius, lo, hi)
        return torch.zeros_like(flatten(y)).scatter_(1, at, q).view(y.shape)
    flat, lo, hi = _wide(y, low, high)
    a, r = flat.abs(), _column(radius, flat)
    room = torch.where(flat > 0, hi, -lo)
    start = (a - room).clamp_min(0)  # below this t the coordinate sits at its bound
    points, order = torch.cat([start, a], 1).sort(1)
    slope = torch.cat([torch.ones_like(a), -torch.ones_like(a)], 1).gather(1, order).cumsum(1)
    gaps = points.diff(dim=1)
    fall = torch.cat([torch.zeros_like(r), (gaps * slope[:, :-1]).cumsum(1)], 1)
    norm = fall[:, -1:]  # at t = 0, as it is 0 at the last point: this sum has the same bits with and without zeros
    k = (norm - fall > r).sum(1, keepdim=True) - 1  # the last break point still outside the ball
    t = _pick(points, k) + (norm - _pick(fall, k) - r) / _pick(slope, k).clamp_min(1)
    q = torch.minimum((a - torch.where(norm <= r, 0.0, t)).clamp_min(0), room)
    return (q * flat.sign()).to(y.dtype).view(y.shape)


def stretch_l2_box(v: Tensor, radius: float | Tensor, low: Tensor, high: Tensor, most: float) -> Tensor:
    r"""clip(s v, low, high) with the largest 0 <= s <= most that keeps its l2 norm within the radius.

    With most = 1 this is the projection of v on ball and box (s = 1 / (1 + multiplier)); with
    most = inf it is the linear maximiser over them in the direction v.

    s starts where the ball alone would put it, and is solved for again while coordinates meet their bounds;
    both only grow, so the loop ends, with s exact, after as many rounds as there are groups that do (a few).

    Args:
        v: (batch, ...).
        radius: one number, or one per row, >= 0.
        low: like v, <= 0.
        high: like v, >= 0.
        most: 1.0 or inf.
    """
    flat, lo, hi = (flatten(t) for t in (v, low, high))
    if not flat.numel():
        return v.clone()
    wide = flat.dtype if v.device.type == "mps" else torch.float64
    r2 = _column(radius, flat.new_empty(len(flat), 0, dtype=wide)) ** 2
    # s and v enter only as a product: scale rows to max |v| = 1 so that no square under- or overflows
    scale = flat.abs().amax(1, keepdim=True)
    scale = torch.where(scale > 0, scale, 1.0)
    a, cap = flat.abs() / scale, scale.to(wide) * most
    room = torch.where(flat > 0, hi, -lo)
    squares, room_squares = a.square(), room.square()
    bound = torch.zeros_like(a, dtype=torch.bool)
    while True:
        free = torch.where(bound, 0.0, squares).sum(1, keepdim=True, dtype=wide)
        spent = torch.where(bound, room_squares, 0.0).sum(1, keepdim=True, dtype=wide)
        s = torch.where(free > 0, ((r2 - spent).clamp_min(0) / free).sqrt(), torch.inf).minimum(cap)
        now = bound | ((a * s.to(a.dtype) >= room) & (a > 0))
        if torch.equal(now, bound):
            break
        bound = now
    q = torch.where(bound, room, torch.where(a > 0, a * s.to(a.dtype), 0.0))
    return (q * flat.sign()).view(v.shape)


def lmo_l1_box(g: Tensor, radius: float | Tensor, low: Tensor, high: Tensor) -> Tensor:
    r"""Argmax of <g, q> over \|q\|_1 <= radius, low <= q <= high: fill the largest |g| first."""
    flat, lo, hi = _wide(g, low, high)
    room, order = torch.where(flat > 0, hi, -lo), flat.abs().argsort(dim=1, descending=True, stable=True)
    room = torch.where(flat == 0, 0.0, room).gather(1, order)
    before = room.cumsum(1) - room
    filled = torch.minimum(room, (_column(radius, flat) - before).clamp_min(0))
    q = torch.zeros_like(flat).scatter_(1, order, filled)
    return (q * flat.sign()).to(g.dtype).view(g.shape)
