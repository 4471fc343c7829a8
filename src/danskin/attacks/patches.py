"""Random parts of inputs: squares of images, sets of coordinates elsewhere, drawn for each row by itself."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from danskin.attacks.square_patterns import corners, window
from danskin.minmax import Set, Streams
from danskin.minmax.search import mask


def share_between(low: float, high: float, u: Tensor) -> Tensor:
    """Low (high / low)^u: a share whose logarithm is uniform where u is."""
    return low * (high / low) ** u


def patch(like: Tensor, share: Tensor, streams: Streams) -> Tensor:
    """Bool, broadcasts against `like`: a part of each row that covers about this share of it, and not nothing.

    For images (rows, channels, height, width) a square at a random place, in all channels; for other inputs each
    coordinate by itself with this probability.

    Args:
        like: (rows, ...).
        share: (rows,) in (0, 1].
        streams: of the rows.
    """
    if like.ndim == 4:
        height, width = like.shape[2:]
        side = (share * (height * width)).sqrt().round().long().clamp(1, min(height, width))
        return window(like, *corners(like, side, streams.uniform(like.new_empty(len(like), 2))), side)
    if not math.prod(like.shape[1:]):
        return torch.zeros_like(like, dtype=torch.bool)
    u = streams.uniform(like)
    least = u.reshape(len(u), -1).amin(1)
    return u <= mask(torch.maximum(share, least), u)


def kicked(y: Tensor, Y: Set, share: Tensor, streams: Streams) -> Tensor:
    """Y with one part (`patch`) put at an extreme point of the set: argmax of <g, .> for random g on the part.

    In l_inf each channel of a square is at its least or its largest value, as Square does it. In l2 and l1 the part
    gets what the whole radius would give it, and the point is projected.
    """
    part = patch(y, share, streams.child(0))
    sign = streams.child(1).sign(y[:, :, :1, :1] if y.ndim == 4 else y)
    # the sizes of g choose among the corners of an l1 ball, and count for nothing in a cube
    g = torch.where(part, sign * streams.child(2).uniform(y), 0.0)
    return Y.project(torch.where(part, Y.lmo(g), y))


def exchanged(y: Tensor, chains: int, share: Tensor, streams: Streams) -> Tensor:
    """Y with one part (`patch`) taken from another row of the same example; all such rows stand side by side.

    Args:
        y: (examples * chains, ...).
        chains: rows per example, >= 2.
        share: (rows,) in (0, 1].
        streams: of the rows.
    """
    row = torch.arange(len(y), device=y.device)
    step = 1 + streams.child(1).integers(torch.full_like(row, chains - 1)).squeeze(1)
    other = row - row % chains + (row + step) % chains
    return torch.where(patch(y, share, streams.child(0)), y[other], y)
