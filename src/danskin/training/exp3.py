"""A bandit that plays the adversary over arms (classes, examples): Exp3, exponential weights with exploration."""

from __future__ import annotations

import torch
from torch import Tensor

from danskin.errors import InputError
from danskin.minmax import Streams


def check_exp3(name: str, arms: str, number: int, gamma: float, eta: float) -> None:
    """Refuse settings that make no bandit."""
    if number < 2:
        raise InputError(f"{name}.{arms}: expected at least 2, got {number}; with one there is nothing to choose")
    if not 0 <= gamma <= 1:
        raise InputError(f"{name}.gamma: expected a share in [0, 1], got {gamma}; 0.5 as published")
    if not 0 < eta < float("inf"):
        raise InputError(f"{name}.eta: expected a number above 0, got {eta}; try 1e-5")


def check_draws_alone(name: str, inside: Tensor | None) -> None:
    """Refuse an objective inside that draws the batch as well."""
    if inside is not None:
        raise InputError(
            f"{name}.objective: expected one that leaves the choice of examples to it, got one that draws them "
            "too; wrap in one of the two"
        )


def chances(log_weights: Tensor, gamma: float) -> Tensor:
    """P = gamma / arms + (1 - gamma) softmax(log_weights)."""
    return gamma / len(log_weights) + (1 - gamma) * log_weights.softmax(0)


def drawn(p: Tensor, u: Tensor) -> Tensor:
    """(n,) int64 arms: the inverse of the distribution of p at the uniform numbers u (n,)."""
    ladder = p.cumsum(0)
    last = int((p > 0).nonzero().max())
    return torch.searchsorted(ladder, u * ladder[-1], right=True).clamp_max(last)


def uniforms(seed: int, n: int, columns: int, device: torch.device) -> Tensor:
    """(n, columns) float64 on (0, 1), a function of the seed."""
    like = torch.empty(n, columns, dtype=torch.float64, device=device)
    return Streams.of(seed, torch.arange(n, device=device)).uniform(like)
