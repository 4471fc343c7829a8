"""Piecewise linear functions of channels, and the one operation that readers of networks see in their place."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

_READING: ContextVar[bool] = ContextVar("danskin_reading", default=False)


def reading() -> bool:
    """Whether `danskin.lipschitz.read` is tracing a model."""
    return _READING.get()


@contextmanager
def being_read() -> Iterator[None]:
    """Layers show themselves as one operation each."""
    token = _READING.set(True)
    try:
        yield
    finally:
        _READING.reset(token)


def spline(x: Tensor, grid: Tensor, heights: Tensor, slopes: Tensor, alpha: Tensor | None, dim: int) -> Tensor:
    """sigma(alpha x) / alpha for each channel; sigma has these heights at the grid and these slopes between.

    Args:
        x: (..., channels at `dim`, ...).
        grid: (knots,) evenly spaced.
        heights: (channels, knots).
        slopes: (channels, knots - 1); the end slopes go on outside.
        alpha: (channels,) positive, or None for 1.
        dim: of the channels.
    """
    shape = [1] * x.ndim
    shape[dim] = -1
    t = x if alpha is None else x * alpha.view(shape)
    knots = len(grid)
    step = (grid[-1] - grid[0]) / (knots - 1)
    with torch.no_grad():  # NaN goes to piece 0 and comes out as NaN
        piece = ((t - grid[0]) / step).floor().clamp(0, knots - 2).nan_to_num(0.0).long()
        channel = torch.arange(len(heights), device=x.device).view(shape)
        at = channel * (knots - 1) + piece
    slope = slopes.reshape(-1)[at]
    height = heights[:, :-1].reshape(-1)[at]
    y = height + slope * (t - (grid[0] + piece * step))  # grid[piece] is even in the dtype it was made in only
    return y if alpha is None else y / alpha.view(shape)


_SCHEMA = "(Tensor x, Tensor grid, Tensor heights, Tensor slopes, Tensor? alpha, int dim) -> Tensor"


@torch.library.custom_op("danskin::linear_spline", mutates_args=(), schema=_SCHEMA)
def spline_for_reading(
    x: Tensor, grid: Tensor, heights: Tensor, slopes: Tensor, alpha: Tensor | None, dim: int
) -> Tensor:
    """`spline` as one operation of a trace; it has no gradient."""
    return spline(x, grid, heights, slopes, alpha, dim).clone()
