"""How a GAN is trained, as a value: objective, constraint, order of moves, optimisers."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

import torch
from torch import Tensor, nn

from danskin.errors import DanskinWarning, InputError
from danskin.gan.constraint import Constraint, Unconstrained
from danskin.gan.objectives import NonSaturating, Objective
from danskin.gan.optimizers import Adam, ExtraAdam, Langevin, PlayerOptimizer
from danskin.inputs import whole_number

if TYPE_CHECKING:
    from danskin.gan.loop import GANRun


class Processes(Protocol):
    """The processes that train together, each on its part of the batch."""

    @property
    def rank(self) -> int:
        """This one."""
        ...

    @property
    def world(self) -> int:
        """How many there are."""
        ...

    def sum(self, value: Tensor) -> Tensor:
        """The sum over all."""
        ...


@dataclass(frozen=True)
class Alone:
    """The only process."""

    rank: int = 0
    world: int = 1

    def sum(self, value: Tensor) -> Tensor:
        """The value itself."""
        return value


@dataclass(frozen=True)
class GANTrainer:
    """How a generator and a critic are trained: objective, constraint, order of moves, optimisers.

    Args:
        objective: what both minimise.
        constraint: what keeps the critic in its set.
        steps: of the generator.
        critic_steps: M >= 1, of the critic before each of them.
        batch_size: real examples, and generated ones, in each step; under several processes of all together.
        order: "alternating": the generator answers the critic's new weights; "simultaneous": the last critic step and
            the generator's are taken from the same weights.
        critic_init: "warm": the critic goes on from where it was; "fresh": from its first weights, before each
            generator step.
        generator_optimizer: makes it from parameters: one of `PLAYER_OPTIMIZERS`, or any such function.
        critic_optimizer: likewise.
        mover: the rule of mixed strategies in place of both.
        decay: of both learning rates: "constant" or "linear" to 0.
        ema: decay of the generator's average, which is what is sampled from; 0 for none. Buffers are averaged too.

    Raises:
        InputError: settings that do not go together.
    """

    objective: Objective = field(default_factory=NonSaturating)
    constraint: Constraint = field(default_factory=Unconstrained)
    steps: int = 1500
    critic_steps: int = 1
    batch_size: int = 128
    order: Literal["alternating", "simultaneous"] = "alternating"
    critic_init: Literal["warm", "fresh"] = "warm"
    generator_optimizer: PlayerOptimizer = field(default_factory=Adam)
    critic_optimizer: PlayerOptimizer = field(default_factory=Adam)
    mover: Langevin | None = None
    decay: Literal["constant", "linear"] = "constant"
    ema: float = 0.0

    def __post_init__(self) -> None:
        for name in ("steps", "critic_steps", "batch_size"):
            whole_number(getattr(self, name), f"GANTrainer.{name}", 1)
        for name, known in (("order", ("alternating", "simultaneous")), ("critic_init", ("warm", "fresh")),
                            ("decay", ("constant", "linear"))):  # fmt: skip
            if getattr(self, name) not in known:
                raise InputError(f"GANTrainer.{name}: expected {' or '.join(known)}, got {getattr(self, name)!r}")
        if not 0 <= self.ema < 1:
            raise InputError(f"GANTrainer.ema: expected a decay in [0, 1), got {self.ema}; 0.999 is usual, 0 is none")
        extra = [isinstance(o, ExtraAdam) for o in (self.generator_optimizer, self.critic_optimizer)]
        if self.mover is None and any(extra) and (not all(extra) or self.order != "simultaneous"):
            raise InputError(
                "GANTrainer: expected extra_adam for both players and order simultaneous, as both look ahead from the "
                "same weights, got something else; set them, or use optimistic_adam"
            )
        if self.mover is not None and not self.objective.zero_sum:
            raise InputError(
                f"GANTrainer.mover: expected an objective in which one loses what the other wins, got "
                f"{type(self.objective).__name__}; use saturating or wasserstein"
            )
        if self.mover is not None and (self.critic_steps > 1 or self.critic_init == "fresh"):
            raise InputError(
                "GANTrainer.mover: expected critic_steps=1 and a warm critic, as both chains move together"
            )
        if self.objective.needs_lipschitz and type(self.constraint) is Unconstrained:
            warnings.warn(
                f"{type(self.objective).__name__}: expected a constraint on the critic's slope, got none; its scores "
                "will run away: take clip, gradient_penalty or a critic of 1-Lipschitz layers",
                DanskinWarning,
                stacklevel=3,
            )

    def start(
        self,
        generator: nn.Module,
        critic: nn.Module,
        latent: int | Callable[[int, torch.Generator], Tensor],
        seed: int = 0,
        processes: Processes | None = None,
    ) -> GANRun:
        """A run at its first step; the networks are trained in place.

        Args:
            generator: from latent vectors (n, d) to examples.
            critic: from examples to scores (n,) or (n, 1).
            latent: d, for standard normal vectors; or a function (n, generator of random numbers) -> latents.
            seed: of all that is drawn.
            processes: of a run on several; gradients are averaged over them, buffers are not sent around.
        """
        from danskin.gan.loop import GANRun

        return GANRun(self, generator, critic, latent, seed, processes or Alone())
