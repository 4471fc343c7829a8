"""Optimisers of one player as values: hyperparameters here, parameters in the call. And the rule that moves both."""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from danskin import optim
from danskin.errors import InputError
from danskin.games.langevin import LangevinGame


class PlayerOptimizer(abc.ABC):
    """Makes the optimiser of one player's parameters."""

    lr: float

    @abc.abstractmethod
    def __call__(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """The optimiser of these parameters."""


def _check(value: Any) -> None:
    if not value.lr > 0:
        raise InputError(f"{type(value).__name__}.lr: expected a number above 0, got {value.lr}; 1e-4 to 1e-3 is usual")


@dataclass(frozen=True)
class Adam(PlayerOptimizer):
    """Adam; `betas` (0, 0.9) or (0.5, 0.9) are usual for GANs."""

    lr: float = 1e-3
    betas: tuple[float, float] = (0.5, 0.9)

    def __post_init__(self) -> None:
        _check(self)

    def __call__(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """See `PlayerOptimizer`."""
        return torch.optim.Adam(parameters, self.lr, betas=self.betas, fused=True)


@dataclass(frozen=True)
class RMSprop(PlayerOptimizer):
    """RMSprop, as the WGAN with clipped weights is published."""

    lr: float = 5e-5
    alpha: float = 0.99

    def __post_init__(self) -> None:
        _check(self)

    def __call__(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """See `PlayerOptimizer`."""
        return torch.optim.RMSprop(parameters, self.lr, alpha=self.alpha, foreach=True)


@dataclass(frozen=True)
class SGD(PlayerOptimizer):
    """Gradient descent."""

    lr: float = 1e-2
    momentum: float = 0.0

    def __post_init__(self) -> None:
        _check(self)

    def __call__(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """See `PlayerOptimizer`."""
        return torch.optim.SGD(parameters, self.lr, momentum=self.momentum, foreach=True)


@dataclass(frozen=True)
class ExtraAdam(PlayerOptimizer):
    """Extragradient around Adam (`danskin.optim.ExtraAdam`): both players look ahead, then both step.

    Needs the order "simultaneous", and two gradients a step, each of a batch of its own.

    Reference: Gidel et al., ICLR 2019, algorithm 4.
    """

    lr: float = 1e-3
    betas: tuple[float, float] = (0.5, 0.9)

    def __post_init__(self) -> None:
        _check(self)

    def __call__(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """See `PlayerOptimizer`."""
        return optim.ExtraAdam(parameters, lr=self.lr, betas=self.betas)


@dataclass(frozen=True)
class OptimisticAdam(PlayerOptimizer):
    """Optimistic Adam (`danskin.optim.OptimisticAdam`): one gradient a step.

    Reference: Daskalakis et al., ICLR 2018, algorithm 1.
    """

    lr: float = 1e-3
    betas: tuple[float, float] = (0.5, 0.9)

    def __post_init__(self) -> None:
        _check(self)

    def __call__(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """See `PlayerOptimizer`."""
        return optim.OptimisticAdam(parameters, lr=self.lr, betas=self.betas)


@dataclass(frozen=True)
class Langevin:
    """Both players draw from their Gibbs measures by noisy steps, and play the mean (`games.langevin.LangevinGame`).

    For objectives in which one player loses what the other wins: "saturating" and "wasserstein".

    Args:
        lr: step size eta.
        epsilon: root of the temperature.
        inner: steps of the chains before they are averaged.
        beta: weight of new points in both averages.
        rms: decay of RMSprop's preconditioner; None for plain SGLD.

    Reference: Hsieh, Liu and Cevher, ICML 2019. Lecture: G2.
    """

    lr: float = 1e-3
    epsilon: float = 1e-3
    inner: int = 1
    beta: float = 0.9
    rms: float | None = 0.99

    def start(
        self,
        x: Iterable[nn.Parameter],
        y: Iterable[nn.Parameter],
        *,
        factor: Callable[[int], float],
        frozen: bool,
        seed: int,
    ) -> LangevinGame:
        """Give it the parameters of generator x and critic y; `factor` (step) multiplies lr."""
        return LangevinGame(
            x, y, lr=lambda t: self.lr * factor(t), epsilon=self.epsilon, inner=self.inner, beta=self.beta,
            rms=self.rms, frozen=frozen, seeds=seed,
        )  # fmt: skip


#: By the name they go by in recipes.
PLAYER_OPTIMIZERS: dict[str, type[PlayerOptimizer]] = {
    "adam": Adam,
    "rmsprop": RMSprop,
    "sgd": SGD,
    "extra_adam": ExtraAdam,
    "optimistic_adam": OptimisticAdam,
}
