"""torch's optimisers as values: hyperparameters here, parameters in the call."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn

from danskin.errors import InputError


def _check_rate(name: str, lr: float, decay: float) -> None:
    if not lr > 0:
        raise InputError(f"{name}.lr: expected a number above 0, got {lr}; try 0.1 for SGD or 0.001 for AdamW")
    if not decay >= 0:
        raise InputError(f"{name}.weight_decay: expected a number >= 0, got {decay}; use 0 for none")


@dataclass(frozen=True)
class SGD:
    """Stochastic gradient descent (`torch.optim.SGD`)."""

    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    nesterov: bool = False

    def __post_init__(self) -> None:
        _check_rate("SGD", self.lr, self.weight_decay)

    def __call__(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """The optimiser of these parameters."""
        return torch.optim.SGD(
            parameters, self.lr, momentum=self.momentum, weight_decay=self.weight_decay, nesterov=self.nesterov
        )


@dataclass(frozen=True)
class AdamW:
    """Adam with decoupled weight decay (`torch.optim.AdamW`)."""

    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.01

    def __post_init__(self) -> None:
        _check_rate("AdamW", self.lr, self.weight_decay)

    def __call__(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """The optimiser of these parameters."""
        return torch.optim.AdamW(parameters, self.lr, betas=self.betas, weight_decay=self.weight_decay)


#: Optimisers that take one gradient a step.
PLAIN: dict[str, type] = {"sgd": SGD, "adamw": AdamW}
