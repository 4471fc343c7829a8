"""How agent and adversary move: min over x, max over y of Phi, where Phi is minus the value of what they do.

Each mover is a value; `start` gives it the parameters. What comes back has `step(payoff)`, which calls payoff once for
each gradient, and a state.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

import danskin.optim
from danskin.errors import DivergenceError, InputError, suggest
from danskin.games.langevin import LangevinGame

Payoff = Callable[[], Tensor]


class Moving(Protocol):
    """Two players on their way."""

    def step(self, payoff: Payoff) -> None:
        """Move both once."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """What the next step needs besides the parameters."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state."""
        ...


class Mover(Protocol):
    """A rule by which two players move."""

    def start(self, x: Sequence[Tensor], y: Sequence[Tensor], seeds: Sequence[int]) -> Moving:
        """Give it the players' parameters, each a stack with one row for each seed."""
        ...


def _check_lr(who: str, lr: float) -> None:
    if not lr > 0:
        raise InputError(f"{who}: expected lr > 0, got {lr}; 1e-4 to 1e-3 is usual")


@dataclass(frozen=True)
class DescentAscent:
    """Gradient descent-ascent: both step at once, x down and y up. Without y: plain training.

    Args:
        lr: of both.
        optimizer: "adam" or "rmsprop" (the preconditioner of the Langevin rule without noise and averages).
        rms: decay of RMSprop's mean of squares.

    Lecture: G3.
    """

    lr: float = 1e-3
    optimizer: Literal["adam", "rmsprop"] = "adam"
    rms: float = 0.99

    def __post_init__(self) -> None:
        _check_lr("DescentAscent", self.lr)
        if self.optimizer not in ("adam", "rmsprop"):
            raise InputError(
                f"DescentAscent: expected adam or rmsprop, got {self.optimizer!r}; "
                f"{suggest(str(self.optimizer), ('adam', 'rmsprop'))}"
            )

    def start(self, x: Sequence[Tensor], y: Sequence[Tensor], seeds: Sequence[int]) -> Moving:
        """See `Mover`."""
        return _Descending(x, y, self._optimizer)

    def _optimizer(self, parameters: Sequence[Tensor], maximize: bool) -> torch.optim.Optimizer:
        if self.optimizer == "adam":
            return torch.optim.Adam(parameters, self.lr, maximize=maximize, fused=True)
        return torch.optim.RMSprop(parameters, self.lr, alpha=self.rms, eps=1e-8, maximize=maximize, foreach=True)


class _Descending:
    def __init__(
        self,
        x: Sequence[Tensor],
        y: Sequence[Tensor],
        make: Callable[[Sequence[Tensor], bool], torch.optim.Optimizer],
    ) -> None:
        self.parameters = [*x, *y]
        self.optimizers = [make(side, i == 1) for i, side in enumerate((x, y)) if side]

    def step(self, payoff: Payoff) -> None:
        for p, g in zip(self.parameters, torch.autograd.grad(payoff(), self.parameters), strict=True):
            p.grad = g
        for optimizer in self.optimizers:
            optimizer.step()
        for p in self.parameters:
            p.grad = None

    def state_dict(self) -> dict[str, Any]:
        return {"optimizers": [optimizer.state_dict() for optimizer in self.optimizers]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)


@dataclass(frozen=True)
class ExtraAdam:
    """Extragradient with Adam's step: `danskin.optim.ExtraAdam`, for players that are stacks of seeds.

    Args:
        lr: of both players.

    Reference: G. Gidel et al., "A variational inequality perspective on generative adversarial networks", ICLR 2019,
    algorithm 4.

    Lecture: G3.
    """

    lr: float = 1e-3

    def __post_init__(self) -> None:
        _check_lr("ExtraAdam", self.lr)

    def start(self, x: Sequence[Tensor], y: Sequence[Tensor], seeds: Sequence[int]) -> Moving:
        """See `Mover`."""
        return _Looking(x, y, self.lr)


class _Looking:
    """`danskin.optim.ExtraAdam` on both players' stacks; NaN stops it, for one seed's would hold up all the others."""

    def __init__(self, x: Sequence[Tensor], y: Sequence[Tensor], lr: float) -> None:
        self.parameters = [*x, *y]
        groups = [{"params": list(x)}] + ([{"params": list(y), "maximize": True}] if y else [])
        self.optimizer = danskin.optim.ExtraAdam(groups, lr=lr, fused=True)

    def step(self, payoff: Payoff) -> None:
        def closure() -> Tensor:
            value = payoff()
            # .backward() would also fill the gradients of the critic, which belong to its own optimiser.
            for p, g in zip(self.parameters, torch.autograd.grad(value, self.parameters), strict=True):
                p.grad = g
            return value.detach()

        self.optimizer.step(closure)
        self.optimizer.zero_grad()
        if self.optimizer.skipped:
            raise DivergenceError("ExtraAdam: a player's gradient is NaN or infinite; lower lr")

    def state_dict(self) -> dict[str, Any]:
        return {"optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.optimizer.load_state_dict(state["optimizer"])


@dataclass(frozen=True)
class MixedNELD:
    """MixedNE-LD: both players mixed, by Langevin chains and averages; see `danskin.games.langevin.LangevinGame`.

    Args:
        lr: eta of both.
        epsilon: root of the temperature of the mean value over a batch; 0 is the ablation without noise.
        inner: K, steps of each inner chain.
        beta: of both averages.
        rms: decay of RMSprop's mean of squares; None for plain SGLD.

    Reference: P. Kamalaruban et al., "Robust reinforcement learning via adversarial training with Langevin dynamics",
    NeurIPS 2020, algorithms 1 and 4.

    Lecture: G3.
    """

    lr: float = 1e-3
    epsilon: float = 1e-3
    inner: int = 1
    beta: float = 0.9
    rms: float | None = 0.99

    def start(self, x: Sequence[Tensor], y: Sequence[Tensor], seeds: Sequence[int]) -> Moving:
        """See `Mover`."""
        settings: dict[str, Any] = {"epsilon": self.epsilon, "inner": self.inner, "beta": self.beta, "rms": self.rms}
        return LangevinGame(x, y, lr=self.lr, seeds=seeds, **settings)


#: By the name they go by in recipes.
MOVERS: dict[str, type] = {"descent_ascent": DescentAscent, "extra_adam": ExtraAdam, "mixed_ne_ld": MixedNELD}
