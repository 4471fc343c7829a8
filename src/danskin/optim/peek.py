"""Where a base optimiser would go, without going there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


@torch.no_grad()
def peek(bases: Sequence[Optimizer], weights: Sequence[Tensor], gradients: Sequence[Tensor]) -> list[Tensor]:
    """The weights after a step of these optimisers along these gradients; what is there stays as it is.

    One copy of the weights and one of the moments, for any optimiser.
    """
    before = [w.detach().clone() for w in weights]
    slopes = [w.grad for w in weights]
    kept = [{p: _copied(one.state[p]) for p in list(one.state)} for one in bases]
    try:
        for w, g in zip(weights, gradients, strict=True):
            w.grad = g.clone()  # a base may write weight decay into it
        for one in bases:
            one.step()
        return [w.detach().clone() for w in weights]
    finally:
        torch._foreach_copy_(list(weights), before)
        for w, slope in zip(weights, slopes, strict=True):
            w.grad = slope
        for one, state in zip(bases, kept, strict=True):
            one.state.clear()
            one.state.update(state)


def _copied(state: dict[str, Any]) -> dict[str, Any]:
    return {name: value.clone() if isinstance(value, Tensor) else value for name, value in state.items()}
