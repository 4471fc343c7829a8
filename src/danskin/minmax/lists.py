"""A list of tensors seen as one long vector, such as all weights of a network; shards (DTensor) count whole."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.utils import get_total_norm


def whole(value: Tensor) -> Tensor:
    """A number as every process knows it: of a DTensor the sum over its shards."""
    return value.full_tensor() if hasattr(value, "full_tensor") else value


def norm(tensors: Sequence[Tensor]) -> float:
    """The l2 norm of all of them together; 0 of none. Under sharding the same on every process."""
    return float(whole(get_total_norm(tensors))) if tensors else 0.0


def dot(a: Sequence[Tensor], b: Sequence[Tensor]) -> float:
    """The sum of <a_l, b_l>. Under sharding the same on every process."""
    if any(hasattr(t, "full_tensor") for t in a):
        return sum(float(whole((s * t).sum())) for s, t in zip(a, b, strict=True))
    parts = [torch.dot(s.reshape(-1), t.reshape(-1)) for s, t in zip(a, b, strict=True)]
    return float(torch.stack([p.to(parts[0].device, torch.float64) for p in parts]).sum()) if parts else 0.0
