"""What a set Y is that an adversary moves in, and what sets are written with.

Every set is batched over dim 0 and offers the same few things (`Set`); docs/extending.md writes one from scratch.
The sets of danskin: balls (`danskin.minmax.balls`), boxes and the simplex (`box`), a set cut with a box
(`intersection`). LECTURE row B1.
"""

from __future__ import annotations

import math
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from danskin.minmax import projections
from danskin.minmax.random import Streams


@runtime_checkable
class Set(Protocol):
    """A closed convex set, one copy of it per row of a batch.

    `norm` is the norm the set measures steps in, `dual_norm` its dual; both return (batch,).

    A set may say more of itself, and what asks does so by these names, never by its class:

    - ``value``: its radius, a number or (batch,): default step sizes are shares of it. One that has none is
      measured (`danskin.minmax.measured`).
    - ``order``: it is the ball of this l_p norm around 0, with radius `value`: attacks that measure l_inf, l2 or l1
      distances work on it.
    - ``cube``: it is a product of intervals, ``bounds(y)``; its own norm is l_inf.
    - ``project_within(y, low, high)`` and ``lmo_within(g, low, high)``: exact on its cut with a box around 0.
      Without them a cut is approximate (`Intersection`).
    """

    def project(self, y: Tensor) -> Tensor:
        r"""Argmin over q in Y of \|q - y\|_2, exactly."""
        ...

    def lmo(self, g: Tensor) -> Tensor:
        """Argmax over q in Y of <g, q>, exactly (the linear maximiser)."""
        ...

    def steepest(self, g: Tensor) -> Tensor:
        r"""Argmax over \|d\| <= 1 of <g, d> in the set's own norm; 0 where g is 0."""
        ...

    def sample(self, like: Tensor, generator: Streams) -> Tensor:
        """Random points of the set, shaped as `like`; uniform unless the set says otherwise."""
        ...

    def violation(self, y: Tensor) -> Tensor:
        """(batch,): by how much y leaves the set; 0 inside, inf where y is NaN."""
        ...

    def norm(self, y: Tensor) -> Tensor:
        """(batch,): the set's own norm."""
        ...

    def dual_norm(self, g: Tensor) -> Tensor:
        """(batch,): the dual of the set's own norm."""
        ...

    def rows(self, index: Tensor) -> Set:
        """The same set for some rows of the batch."""
        ...


def is_cube(Y: Any) -> bool:
    """Whether the set is a product of intervals, whose own norm is l_inf."""
    return bool(getattr(Y, "cube", False))


def rowwise(value: float | Tensor, like: Tensor) -> Any:
    """One number per row, shaped to broadcast against `like`; a plain number stays one."""
    if not isinstance(value, Tensor):
        return value
    return value.to(like).reshape(-1, *[1] * (like.ndim - 1))


def as_like(value: Any, like: Tensor) -> Tensor:
    """A number or tensor in the dtype and on the device of `like` (a number without passing float32)."""
    return torch.as_tensor(value, dtype=like.dtype, device=like.device)


def vector_norm(y: Tensor, order: float) -> Tensor:
    """(batch,): the l_order norm of each row, summed in float64 for orders 1 and 2."""
    if y.ndim < 2:
        y = y.reshape(len(y), 1)
    dims = tuple(range(1, y.ndim))
    if y.numel() == 0:
        return y.new_zeros(len(y))
    if order == math.inf:
        flat = projections.flatten(y)
        return torch.maximum(-flat.amin(1), flat.amax(1))  # two passes of a tenth of aminmax's on a CPU each
    wide = y.dtype if y.device.type == "mps" else torch.float64
    return torch.linalg.vector_norm(y, order, dims, dtype=wide).to(y.dtype)


def excess(value: Tensor) -> Tensor:
    """What is above 0, and infinity for NaN: how a violation is told."""
    return value.clamp_min(0).nan_to_num(nan=math.inf)


def one_hot_largest(size: Tensor, value: Tensor) -> Tensor:
    """`value` at the largest entry of `size` in each row (the first of equals), 0 elsewhere."""
    flat = projections.flatten(size)
    if not flat.numel():
        return torch.zeros_like(size)
    at = flat.argmax(1, keepdim=True)
    picked = projections.flatten(value).gather(1, at)
    return torch.zeros_like(flat).scatter_(1, at, picked).view(size.shape)


def unit_l2(g: Tensor) -> Tensor:
    r"""G / \|g\|_2 per row, 0 where g is 0, right for gradients as small as 1e-38."""
    largest = rowwise(vector_norm(g, math.inf), g)
    scaled = g / torch.where(largest > 0, largest, 1.0)
    return scaled / rowwise(vector_norm(scaled, 2), g).clamp_min(1e-30)
