"""Arithmetic of the adversary: never below float32, whatever the model computes in."""

from __future__ import annotations

import torch
from torch import Tensor


def at_least_float32(tensor: Tensor) -> Tensor:
    """The tensor itself in float32 or float64, a float32 copy of anything narrower."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
