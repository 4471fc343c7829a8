"""One-step adversaries of fast adversarial training: from a random start, and from noise beyond the ball."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from danskin.attacks.attack import Attack
from danskin.attacks.bounds import perturbations
from danskin.errors import InputError
from danskin.minmax import Ascent, Cost, Maximizer, Maximum, Number, Set, Status, Streams, number
from danskin.minmax.measured import grown
from danskin.minmax.rows import PerRow
from danskin.minmax.search import Payoff, look
from danskin.minmax.sets import rowwise


@dataclass(frozen=True)
class RSFGSM(Attack):
    """One step from a uniform start: delta = project(eta + step * d), eta uniform in the ball.

    Args:
        ball: the perturbation ball.
        step: a number or a text; 1.25 * radius as published for l_inf.

    Reference: Wong, Rice and Kolter, "Fast is better than free", ICLR 2020, Algorithm 3. Lecture: row C10. It too can
    overfit catastrophically (at large radii, or steps of 1.5 * radius).
    """

    moves: ClassVar[str] = "one projected step from a random start"

    step: Number = "1.25*radius"

    def maximizer(self) -> Maximizer:
        """One step."""
        step = number(self.step, radius=self.radius, steps=1)
        return Ascent(1, step, random_start=True, keep="last")


@dataclass(frozen=True)
class NFGSM(Attack):
    r"""Noise beyond the ball, one step, no projection on the ball: delta = eta + step * d, |eta| <= noise * radius.

    To train with, not to attack: |delta| may reach (noise + 1) * radius, so that calling it is refused. Noise and
    shifted input stay in the box.

    Args:
        ball: the perturbation ball whose radius is defended.
        noise: k, the noise as a multiple of the radius, > 0 (the published 2; 4 for wide networks at 16/255). Where
            the useful range of the input is small it drowns the signal.
        step: a number or a text.

    Reference: de Jorge et al., "Make some noise: reliable and efficient single-step adversarial training", NeurIPS
    2022, eq. (6). Lecture: row C10.
    """

    moves: ClassVar[str] = "one step from noise beyond the ball"
    stays_inside: ClassVar[bool] = False

    noise: float = 2.0
    step: Number = "radius"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.noise > 0:
            raise InputError(f"NFGSM.noise: expected a multiple of the radius above 0, got {self.noise}; try 2")

    def feasible(self, x: Tensor) -> Set:
        """Where noise and step may lead: (noise + step / radius) times the ball, in the box."""
        return perturbations(x, grown(self.ball, self.noise * self.radius + self._step()), self.box)

    def maximizer(self) -> Maximizer:
        """Noise and a step."""
        return NoisyStep(grown(self.ball, self.noise * self.radius), self._step())

    def _step(self) -> float | Tensor:
        return number(self.step, radius=self.radius, steps=1)


@dataclass(frozen=True, eq=False)
class NoisyStep(PerRow):
    """y = project(eta + step * d) on Y, with eta uniform in `noise` and d the set's steepest direction at eta.

    Args:
        noise: the set that eta is drawn from; projected on Y.
        step: a number, or one per row.
    """

    noise: Set
    step: float | Tensor

    def __call__(self, f: Payoff, y0: Tensor, Y: Set, generator: Streams | None = None) -> Maximum:
        """One step from noise."""
        if generator is None:
            raise InputError("NoisyStep: expected a generator for the noise, got None; pass Streams")
        start = Y.project(self.noise.sample(y0, generator))
        _, _, g = look(f, start, gradient=True)
        length = torch.as_tensor(self.step, dtype=start.dtype, device=start.device)
        y = Y.project(start + rowwise(length, start) * Y.steepest(g))
        return Maximum(y, None, None, Cost(len(y), len(y), 1), Status.DONE)
