"""The one training loop: M steps of the critic, one of the generator. Lecture: F2.

    trainer = GANTrainer(Wasserstein(), GradientPenalty(0.1), critic_steps=5, steps=1500)
    run = trainer.start(generator, critic, latent=2)
    while run.t < trainer.steps:
        told = run.step(data)
    samples = run.sample(1000)

All random numbers of a step are a function of (seed, step), so that a run that goes on from `state_dict` equals one
that was never interrupted, bit for bit on the CPU.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from danskin.errors import DanskinWarning, DivergenceError, InputError
from danskin.gan.constraints import Constraint, Penalty, Unconstrained
from danskin.gan.gradients import mixes_examples, scores
from danskin.gan.objectives import NonSaturating, Objective
from danskin.gan.optimizers import Adam, ExtraAdam, Langevin, PlayerOptimizer
from danskin.inputs import in_box, whole_number

#: Real examples: all of them, or a function (how many, generator of random numbers) -> examples.
Data = Tensor | Callable[[int, torch.Generator], Tensor]


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
        return GANRun(self, generator, critic, latent, seed, processes or Alone())


class GANRun:
    """Two networks on their way; made by `GANTrainer.start`.

    Attributes:
        t: generator steps made.
        generator: being trained.
        critic: being trained.
        average: of the generator, or None.
    """

    def __init__(
        self,
        settings: GANTrainer,
        generator: nn.Module,
        critic: nn.Module,
        latent: int | Callable[[int, torch.Generator], Tensor],
        seed: int,
        processes: Processes,
    ) -> None:
        self.settings, self.generator, self.critic, self.seed = settings, generator, critic, seed
        self.latent, self.processes, self.t, self.critic_step = latent, processes, 0, 0
        if settings.batch_size % processes.world:
            raise InputError(
                f"batch_size: expected a multiple of the {processes.world} processes, got {settings.batch_size}"
            )
        self.sides = [_trained(generator, "generator"), _trained(critic, "critic")]
        self.device = self.sides[0][0].device
        self.random = torch.Generator(self.device)
        self._check_batchnorm()
        self.mover, self.optimizers = None, []
        if settings.mover is not None:
            self.mover = settings.mover.start(
                *self.sides, factor=self.rate, frozen=settings.order == "simultaneous", seed=seed
            )
        else:
            self.optimizers = [settings.generator_optimizer(self.sides[0]), settings.critic_optimizer(self.sides[1])]
            for optimizer in self.optimizers:
                for group in optimizer.param_groups:
                    group.setdefault("first_lr", float(group["lr"]))
        self.first = None
        if settings.critic_init == "fresh":
            self.first = [p.detach().clone() for p in self.sides[1]], self.optimizers[1].state_dict()
        self.average: AveragedModel | None = None
        if settings.ema:
            self.average = AveragedModel(
                generator, multi_avg_fn=get_ema_multi_avg_fn(settings.ema), use_buffers=True
            )  # fmt: skip

    def _check_batchnorm(self) -> None:
        found = mixes_examples(self.critic)
        if found and type(self.settings.constraint).penalty is not Constraint.penalty:
            warnings.warn(
                f"critic: expected no BatchNorm under a penalty on each example's slope, got {', '.join(found[:3])}; "
                "an example's score depends on the whole batch there: use LayerNorm, GroupNorm or none",
                DanskinWarning,
                stacklevel=4,
            )

    # --- what is drawn ------------------------------------------------------------------------------------

    def rate(self, t: int) -> float:
        """The factor on the learning rates at step t."""
        return 1.0 if self.settings.decay == "constant" else 1 - t / self.settings.steps

    def _part(self, drawn: Tensor) -> Tensor:
        return drawn if self.processes.world == 1 else drawn[self.processes.rank :: self.processes.world]

    def _latents(self) -> Tensor:
        return self._part(self._noise(self.settings.batch_size, self.random))

    def _noise(self, n: int, random: torch.Generator) -> Tensor:
        if callable(self.latent):
            return self.latent(n, random)
        return torch.randn(n, self.latent, device=self.device, generator=random)

    def _real(self, data: Data) -> Tensor:
        n = self.settings.batch_size
        if not isinstance(data, Tensor):
            return self._part(data(n, self.random))
        if not len(data):
            raise InputError("step: expected real examples, got none; check the data")
        rows = torch.randint(len(data), (n,), device=self.random.device, generator=self.random)
        return in_box(data[self._part(rows).to(data.device)].to(self.device), bytes_known=True)

    # --- a step -------------------------------------------------------------------------------------------

    def step(self, data: Data) -> dict[str, Tensor]:
        """M critic steps and a generator step.

        Args:
            data: real examples, floats or bytes of images; drawn from with replacement.

        Returns:
            Scalars on the device, of this process's part of the batch: critic_loss (without the penalty),
            generator_loss, gap = E s(x) - E s(z), penalty, slope and slope_max (where they were looked at),
            generator_weight, spread (of the generated examples over that of the real ones).
        """
        self.random.manual_seed(int(np.random.SeedSequence((self.seed, self.t)).generate_state(1, np.uint64)[0]) >> 1)
        told: dict[str, Tensor] = {}
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["first_lr"] * self.rate(self.t)
        self.generator.train()
        self.critic.train()
        if self.mover is not None:
            self.mover.step(lambda: self._payoff(data, told))
            self._after_critic()
        elif self.settings.order == "simultaneous":
            self._simultaneous(data, told)
        else:
            self._alternating(data, told)
        if self.average is not None:
            self.average.update_parameters(self.generator)
        self.t += 1
        return told

    def _alternating(self, data: Data, told: dict[str, Tensor]) -> None:
        self._refreshed()
        for _ in range(self.settings.critic_steps):
            self._critic_step(data, told)
        real = self._real(data) if self.settings.objective.pairs else None
        self._descend(0, self._generator_loss(self.generator(self._latents()), real, told))
        self.optimizers[0].step()

    def _critic_step(self, data: Data, told: dict[str, Tensor]) -> None:
        with torch.no_grad():
            fake = self.generator(self._latents())
        self._descend(1, self._critic_loss(self._real(data), fake, told))
        self.optimizers[1].step()
        self._after_critic()

    def _simultaneous(self, data: Data, told: dict[str, Tensor]) -> None:
        self._refreshed()
        for _ in range(self.settings.critic_steps - 1):
            self._critic_step(data, told)
        if isinstance(self.settings.generator_optimizer, ExtraAdam):
            self._both(data, told)
            for optimizer in self.optimizers:
                optimizer.extrapolate()  # type: ignore[attr-defined]
            self.settings.constraint.project_(self.critic)
        self._both(data, told)
        for optimizer in self.optimizers:
            optimizer.step()
        self._after_critic()

    def _both(self, data: Data, told: dict[str, Tensor]) -> None:
        """Gradients of both players at the weights as they are."""
        fake, real = self.generator(self._latents()), self._real(data)
        self._descend(1, self._critic_loss(real, fake.detach(), told))
        self._descend(0, self._generator_loss(fake, real if self.settings.objective.pairs else None, told))

    def _payoff(self, data: Data, told: dict[str, Tensor]) -> Tensor:
        """What the generator minimises and the critic maximises."""
        fake = self.generator(self._latents())
        with torch.no_grad():
            self._generator_loss(fake, None, told)
        return -self._critic_loss(self._real(data), fake, told)

    def _refreshed(self) -> None:
        """The critic at its first weights, where it starts afresh."""
        if self.first is not None:
            with torch.no_grad():
                for p, was in zip(self.sides[1], self.first[0], strict=True):
                    p.copy_(was)
            self.optimizers[1].load_state_dict(self.first[1])
            for group in self.optimizers[1].param_groups:
                group["lr"] = group["first_lr"] * self.rate(self.t)

    def _after_critic(self) -> None:
        self.settings.constraint.project_(self.critic)
        self.critic_step += 1

    def _critic_loss(self, real: Tensor, fake: Tensor, told: dict[str, Tensor]) -> Tensor:
        of_real, of_fake = scores(self.critic, real), scores(self.critic, fake)
        loss = self.settings.objective.critic_loss(of_real, of_fake)
        penalty = self.settings.constraint.penalty(self.critic, real, fake, self.critic_step, self.random)
        with torch.no_grad():
            told["critic_loss"], told["gap"] = loss.detach(), of_real.mean() - of_fake.mean()
            told["spread"] = _spread(fake) / _spread(real)
            if penalty is not None:
                told |= _slopes(penalty)
        return loss if penalty is None else loss + penalty.value

    def _generator_loss(self, fake: Tensor, real: Tensor | None, told: dict[str, Tensor]) -> Tensor:
        of_fake = scores(self.critic, fake)
        of_real = None if real is None else scores(self.critic, real)
        loss = self.settings.objective.generator_loss(of_fake, of_real)
        told["generator_loss"] = loss.detach()
        with torch.no_grad():
            told["generator_weight"] = self.settings.objective.generator_weight(of_fake, of_real).mean()
        return loss

    def _descend(self, side: int, loss: Tensor) -> None:
        """The loss's gradient in `.grad` of one player's parameters, averaged over the processes."""
        found: Sequence[Tensor | None] = torch.autograd.grad(loss, self.sides[side], allow_unused=True)
        if self.processes.world > 1:
            found = _averaged(found, self.processes)
        for p, g in zip(self.sides[side], found, strict=True):
            p.grad = g

    # --- what comes of it ---------------------------------------------------------------------------------

    @property
    def sampler(self) -> nn.Module:
        """What is sampled from: the average where there is one."""
        return self.generator if self.average is None else self.average.module

    @torch.no_grad()
    def sample(self, n: int, seed: int = 0, batch_size: int = 1000) -> Tensor:
        """Examples of the generator (its average, where there is one) in eval mode; the same for the same seed.

        Args:
            n: how many.
            seed: of the latents.
            batch_size: examples in a pass.
        """
        random = torch.Generator(self.device).manual_seed(seed)
        latents, net = self._noise(n, random), self.sampler
        with _evaluating(net):
            return torch.cat([net(part) for part in latents.split(batch_size)])

    def check_finite(self, told: dict[str, Tensor]) -> None:
        """Losses and weights are finite.

        Raises:
            DivergenceError: one is not; it is named.
        """
        bad = [name for name, value in told.items() if not bool(value.isfinite())]
        for name, side in zip(("generator", "critic"), self.sides, strict=True):
            if not bool(torch.stack(torch._foreach_norm([p.detach() for p in side])).isfinite().all()):
                bad.append(f"weights of the {name}")
        if bad:
            raise DivergenceError(
                f"step {self.t}: expected finite numbers, got NaN or infinity in {', '.join(bad)}; lower the learning "
                "rates, or constrain the critic more; the last checkpoint is from before"
            )

    def state_dict(self) -> dict[str, Any]:
        """Tensors, numbers and texts only: loads with weights_only=True."""
        return {
            "t": self.t,
            "critic_step": self.critic_step,
            "generator": self.generator.state_dict(),
            "critic": self.critic.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "mover": None if self.mover is None else self.mover.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
            "random": torch.get_rng_state(),  # of dropout; all else follows from seed and step
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back to a saved state."""
        self.generator.load_state_dict(state["generator"])
        self.critic.load_state_dict(state["critic"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        if self.mover is not None:
            self.mover.load_state_dict(state["mover"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        self.t, self.critic_step = state["t"], state["critic_step"]
        torch.set_rng_state(state["random"].cpu())


def _trained(net: nn.Module, what: str) -> list[nn.Parameter]:
    found = [p for p in net.parameters() if p.requires_grad]
    if not found:
        raise InputError(f"{what}: expected parameters that require gradients, got none; unfreeze it")
    return found


def _slopes(penalty: Penalty) -> dict[str, Tensor]:
    return {
        "penalty": penalty.value.detach(),
        "slope": penalty.norms.mean(),
        "slope_max": penalty.norms.max(),
    }


def _spread(x: Tensor) -> Tensor:
    """Root of the mean variance of the coordinates."""
    return x.detach().flatten(1).var(0, correction=0).mean().sqrt()


def _averaged(found: Sequence[Tensor | None], processes: Processes) -> list[Tensor | None]:
    """Gradients of the mean over the processes; one exchange."""
    there = [g for g in found if g is not None]
    flat = processes.sum(torch.cat([g.flatten() for g in there])) / processes.world
    parts = iter(flat.split([g.numel() for g in there]))
    return [None if g is None else next(parts).view_as(g) for g in found]


@contextmanager
def _evaluating(net: nn.Module) -> Iterator[None]:
    modes = [(m, m.training) for m in net.modules()]
    net.eval()
    try:
        yield
    finally:
        for m, mode in modes:
            m.training = mode
