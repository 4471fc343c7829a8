"""The squares and bumps that Square puts on images, drawn for each row by itself."""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor

from danskin.minmax.random import Streams
from danskin.minmax.search import mask

#: From these proposals (of 10,000) on, the share of the image that a square covers is halved.
HALVINGS = (11, 51, 201, 501, 1001, 2001, 4001, 6001, 8001)


@functools.lru_cache(maxsize=64)
def _numbers(values: tuple[int, ...], device: torch.device) -> Tensor:
    """(n,) int64 on the device, put there once."""
    return torch.tensor(values, device=device)


def level(i: Tensor, of: int | None) -> Tensor:
    """(rows,) how often the share has been halved at proposal i (rows,); `of` stretches 10,000 proposals to as many."""
    return torch.bucketize(i if of is None else i * 10000 // of, _numbers(HALVINGS, i.device), right=True)


@functools.lru_cache(maxsize=64)
def sides(height: int, width: int, p: float, least: int) -> tuple[int, ...]:
    """The side of a square at each level: sqrt(p / 2^level * height * width), rounded, within the image.

    Args:
        height: of the image.
        width: of the image.
        p: share of the image at level 0.
        least: the smallest side; 3 for bumps, whose sides are odd as well.
    """
    out = []
    for k in range(len(HALVINGS) + 1):
        side = max(round(math.sqrt(p / 2**k * height * width)), least)
        out.append(min(side + (least > 1 and side % 2 == 0), height, width))
    return tuple(out)


def drawn(like: Tensor, n: int, streams: Streams) -> Tensor:
    """(rows, n + channels) numbers uniform on (0, 1): all that a proposal needs, at the price of one draw."""
    return streams.uniform(like.new_empty(len(like), n + like.shape[1]))


def corners(like: Tensor, side: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    """(rows,) the top and the left of a square of this side, uniform over all places it has in the image.

    (The code of reference never draws the last one.)

    Args:
        like: (rows, channels, height, width).
        side: (rows,).
        u: (rows, 2) uniform on (0, 1).
    """
    return (u[:, 0] * (like.shape[2] - side + 1)).long(), (u[:, 1] * (like.shape[3] - side + 1)).long()


def window(like: Tensor, top: Tensor, left: Tensor, side: Tensor) -> Tensor:
    """(rows, 1, height, width) bool: the square, by comparing coordinates."""
    row = torch.arange(like.shape[2], device=like.device) - top[:, None]
    column = torch.arange(like.shape[3], device=like.device) - left[:, None]
    inside = ((row >= 0) & (row < side[:, None]))[:, :, None] & ((column >= 0) & (column < side[:, None]))[:, None]
    return inside[:, None]


def stripes(like: Tensor, low: Tensor, high: Tensor, streams: Streams) -> Tensor:
    """Vertical stripes one pixel wide, each channel's at its least or largest value."""
    up = streams.sign(like.new_empty(len(like), like.shape[1], 1, like.shape[3])) > 0
    return torch.where(up, high, low).expand_as(like).clone(memory_format=torch.preserve_format)


def square(y: Tensor, low: Tensor, high: Tensor, many: tuple[int, ...], which: Tensor, streams: Streams) -> Tensor:
    """Y with one square, of side many[which], in which each channel is at its least or its largest value.

    Where that is what y has there already, the signs are turned: no query is spent on y itself.
    """
    side = _numbers(many, y.device)[which]
    u = drawn(y, 2, streams)
    inside, up = window(y, *corners(y, side, u), side), u[:, 2:, None, None] > 0.5
    out = torch.where(inside, torch.where(up, high, low), y)
    same = ~(out != y).reshape(len(y), -1).any(1)
    if y.device.type != "cpu" or bool(same.any()):
        out = torch.where(inside, torch.where(up ^ mask(same, up), high, low), y)
    return out


def _pyramid(height: int, width: int, power: int, norm: int) -> Tensor:
    """(height, width) of norm 1: nested rectangles around the middle, the k-th with weight 1 / k^power.

    A pixel in ring m around the middle lies in all rectangles from the (m + 1)-th on.
    """
    ring = torch.maximum(
        (torch.arange(height) - height // 2).abs()[:, None], (torch.arange(width) - width // 2).abs()[None]
    )
    rings = max(height, width) // 2 + 1
    weights = (torch.arange(rings, dtype=torch.float64) + 1) ** -power
    tail = weights.flip(0).cumsum(0).flip(0)
    out = tail[ring.clamp_max(rings - 1)]
    return out / torch.linalg.vector_norm(out, norm)


def bump(side: int, norm: int) -> Tensor:
    """(side, side) of norm 1, float64: a pyramid above, minus one below; rings count 1 / k^2, in l1 1 / k^4."""
    half, power = side // 2, 2 if norm == 2 else 4
    above = [_pyramid(half, side, power, norm)] if half else []
    out = torch.cat([*above, -_pyramid(side - half, side, power, norm)])
    return out / torch.linalg.vector_norm(out, norm)


@functools.lru_cache(maxsize=16)
def _bumps(many: tuple[int, ...], norm: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """(sides, largest, largest) the bumps of these sides, each in its corner."""
    out = torch.zeros(len(many), max(many), max(many))
    for k, side in enumerate(many):
        out[k, :side, :side] = bump(side, norm)
    return out.to(device, dtype)


def bumps(
    like: Tensor, corner: tuple[Tensor, Tensor], many: tuple[int, ...], which: Tensor, turned: Tensor, norm: int
) -> Tensor:
    """(rows, 1, height, width) a bump of side many[which] at each row's corner, 0 elsewhere; transposed if `turned`."""
    table, most = _bumps(many, norm, like.device, like.dtype), max(many) - 1
    row = torch.arange(like.shape[2], device=like.device) - corner[0][:, None]
    column = torch.arange(like.shape[3], device=like.device) - corner[1][:, None]
    i, j = row.clamp(0, most)[:, :, None], column.clamp(0, most)[:, None]
    flip = turned[:, None, None]
    values = table[which[:, None, None], torch.where(flip, j, i), torch.where(flip, i, j)]
    inside = window(like, *corner, _numbers(many, like.device)[which])
    return torch.where(inside, values[:, None], 0.0)


def tiles(like: Tensor, norm: int, streams: Streams) -> Tensor:
    """The image laid with bumps of a fifth of its shorter side, each with a sign and a direction of its own."""
    n, channels, height, width = like.shape
    side = max(min(height, width) // 5, 1)
    down, across = height // side, width // side
    one = bump(side, norm).to(like)
    turned = streams.child(0).sign(like.new_empty(n, 1, down, across)) > 0
    sign = streams.child(1).sign(like.new_empty(n, channels, down, across))

    def spread(t: Tensor) -> Tensor:
        return t.repeat_interleave(side, 2).repeat_interleave(side, 3)

    laid = torch.where(spread(turned), one.T.repeat(down, across), one.repeat(down, across)) * spread(sign)
    out = torch.zeros_like(like)
    top, left = (height - down * side) // 2, (width - across * side) // 2
    out[:, :, top : top + down * side, left : left + across * side] = laid
    return out


def swap(y: Tensor, many: tuple[int, ...], which: Tensor, radius: Tensor, norm: int, streams: Streams) -> Tensor:
    r"""Y with one window emptied into another, where a bump is added.

    The first window becomes (bump + what is there / its norm), channel by channel, scaled to the p-norm that the two
    windows have together and a channel's share of what y leaves of the radius:
    (\|y in both windows\|^p + max(radius^p - \|y\|^p, 0) / channels)^(1/p); in l1 that times the channels, more than
    there is, for the projection that follows favors the largest. The second one becomes 0.

    Args:
        y: (rows, channels, height, width).
        many: the sides there are.
        which: (rows,) the side of each row's windows.
        radius: (rows,).
        norm: p, 2 or 1.
        streams: of each row's proposal.
    """
    side = _numbers(many, y.device)[which]
    u = drawn(y, 5, streams)
    here, there = corners(y, side, u[:, :2]), corners(y, side, u[:, 2:4])
    first, second = window(y, *here, side), window(y, *there, side)
    sign = 1 - 2 * (u[:, 5:, None, None] < 0.5).to(y.dtype)
    new = bumps(y, here, many, which, u[:, 4] > 0.5, norm) * sign

    def size(t: Tensor) -> Tensor:  # per channel
        return torch.linalg.vector_norm(t, norm, (2, 3), keepdim=True)

    old = torch.where(first, y, 0.0)
    new = new + old / size(old).clamp_min(1e-12)
    left = (radius**norm - torch.linalg.vector_norm(y, norm, (1, 2, 3)) ** norm).clamp_min(0)
    spent = size(torch.where(first | second, y, 0.0)) ** norm
    wanted = (spent + mask(left, y) / y.shape[1]) ** (1 / norm) * (y.shape[1] if norm == 1 else 1)
    return torch.where(first, new * (wanted / size(new).clamp_min(1e-12)), torch.where(second, 0.0, y))
