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
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from danskin.errors import DanskinWarning, DivergenceError, InputError
from danskin.gan.constraint import Constraint, Penalty
from danskin.gan.gradients import both_scores, mixes_examples, scores
from danskin.gan.optimizers import ExtraAdam
from danskin.gan.trainer import GANTrainer, Processes
from danskin.inputs import in_box

#: Real examples: all of them, or a function (how many, generator of random numbers) -> examples.
Data = Tensor | Callable[[int, torch.Generator], Tensor]


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
        self.random = torch.Generator(self.device)  # the same in all processes, which draw the whole batch
        alone = processes.world == 1
        self.own_random = self.random if alone else torch.Generator(self.device)  # for the examples of this one
        self._check_batchnorm()
        settings.constraint.check(critic)
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

        Raises:
            InputError: no data, or a generator of examples of another shape.
        """
        self.random.manual_seed(_mixed(self.seed, self.t))
        if self.own_random is not self.random:
            # from 1 on: to a SeedSequence a 0 at the end is as if it were not there
            self.own_random.manual_seed(_mixed(self.seed, self.t, self.processes.rank + 1))
        told: dict[str, Tensor] = {}
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["first_lr"] * self.rate(self.t)
        for net in (self.generator, self.critic):
            if not net.training:  # a walk over all layers is 1 % of a tiny step
                net.train()
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
        for k in range(self.settings.critic_steps, 0, -1):
            self._critic_step(data, told if k == 1 else None)
        real = self._real(data) if self.settings.objective.pairs else None
        self._descend(0, self._generator_loss(self.generator(self._latents()), real, told))
        self.optimizers[0].step()

    def _critic_step(self, data: Data, told: dict[str, Tensor] | None) -> None:
        with torch.no_grad():
            fake = self.generator(self._latents())
        self._descend(1, self._critic_loss(self._real(data), fake, told))
        self.optimizers[1].step()
        self._after_critic()

    def _simultaneous(self, data: Data, told: dict[str, Tensor]) -> None:
        self._refreshed()
        for _ in range(self.settings.critic_steps - 1):
            self._critic_step(data, None)
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

    def _critic_loss(self, real: Tensor, fake: Tensor, told: dict[str, Tensor] | None) -> Tensor:
        """Loss and penalty, for one backward pass; what is reported goes into `told`."""
        if real.shape != fake.shape:
            raise InputError(
                f"generator: expected examples as the data are, {tuple(real.shape)}, got {tuple(fake.shape)}; correct "
                "its last layer, or the data"
            )
        of_real, of_fake = both_scores(self.critic, real, fake)
        loss = self.settings.objective.critic_loss(of_real, of_fake)
        penalty = self.settings.constraint.penalty(self.critic, real, fake, self.critic_step, self.own_random)
        if told is not None:
            with torch.no_grad():
                told["critic_loss"], told["gap"] = loss.detach(), of_real.mean() - of_fake.mean()
                told["spread"] = _relative_spread(fake, real)
                if penalty is not None:
                    told |= _slopes(penalty)
        return loss if penalty is None else loss + penalty.value

    def _generator_loss(self, fake: Tensor, real: Tensor | None, told: dict[str, Tensor]) -> Tensor:
        if real is None:
            of_real, of_fake = None, scores(self.critic, fake)
        else:
            of_real, of_fake = both_scores(self.critic, real, fake)
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


def _mixed(*numbers: int) -> int:
    """A seed that depends on all of the numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0]) >> 1


def _trained(net: nn.Module, what: str) -> list[nn.Parameter]:
    found = [p for p in net.parameters() if p.requires_grad]
    if not found:
        raise InputError(f"{what}: expected parameters that require gradients, got none; unfreeze it")
    return found


def _slopes(penalty: Penalty) -> dict[str, Tensor]:
    told = {"penalty": penalty.value.detach()}
    if penalty.norms is not None:
        told |= {"slope": penalty.norms.mean(), "slope_max": penalty.norms.max()}
    return told


def _relative_spread(fake: Tensor, real: Tensor) -> Tensor:
    """Root of the mean variance of the coordinates, over that of real examples; 1 where those do not differ."""
    ours, theirs = (x.detach().flatten(1).var(0, correction=0).mean().sqrt() for x in (fake, real))
    return torch.where(theirs > 0, ours / theirs, 1.0)


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
