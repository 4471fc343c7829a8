"""Power iteration on a linear map and its transpose, with a vector that is kept from step to step."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor


class Map(Protocol):
    """A linear map that a weight stands for."""

    def apply(self, x: Tensor, weight: Tensor) -> Tensor:
        """W x."""
        ...

    def transposed(self, y: Tensor, weight: Tensor) -> Tensor:
        """W^T y."""
        ...


class Matrix:
    """The map of a matrix on vectors."""

    def apply(self, x: Tensor, weight: Tensor) -> Tensor:
        """W x."""
        return weight @ x

    def transposed(self, y: Tensor, weight: Tensor) -> Tensor:
        """W^T y."""
        return weight.mT @ y


def unit(v: Tensor) -> Tensor:
    """V / |v|: clamped and not |v| + eps, which takes small weights for smaller ones."""
    return v / torch.linalg.vector_norm(v).clamp_min(torch.finfo(v.dtype).tiny)


@torch.no_grad()
def advance_(u: Tensor, weight: Tensor, operator: Map, steps: int) -> None:
    """Move u towards the leading left singular vector, in place."""
    moved = u.to(weight.dtype)
    for _ in range(steps):
        moved = unit(operator.apply(unit(operator.transposed(moved, weight)), weight))
    u.copy_(moved)


def estimate(u: Tensor, weight: Tensor, operator: Map) -> Tensor:
    """<u, W v> with v = W^T u / |W^T u|, never above the norm; its gradient in W is exact though v is held."""
    u = u.to(weight.dtype).clone()  # a second call before backward() moves the buffer
    v = unit(operator.transposed(u, weight.detach()))
    return (u * operator.apply(v, weight)).sum()
