"""Constraints that are penalties on slopes of the critic, each example's own. Lecture: F4."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from danskin.errors import InputError
from danskin.gan.constraint import Constraint, Penalty
from danskin.gan.gradients import Critic, dual, input_gradients, row_norms
from danskin.inputs import whole_number

#: Where slopes are looked at: of real and generated examples and a generator of random numbers, points.
Where = Callable[[Tensor, Tensor, torch.Generator | None], Tensor]


@dataclass(frozen=True)
class GradientPenalty(Constraint):
    r"""The slope of the critic is pulled to `target` at random points: a penalty, and no guarantee elsewhere.

    .. math:: \lambda\, E_{a \sim \nu} (\|\nabla s(a)\|_{p^*} - 1)^2, \qquad 1/p + 1/p^* = 1

    Each example has a slope of its own over all its dimensions, and a random place of its own on its line.

    Args:
        weight: lambda >= 0; 10 is published for images, 0.1 for problems in the plane.
        norm: p in [1, inf] of the norm that distances of data are measured in; slopes are in its dual.
        where: nu: "interpolation" (uniform on the lines between real and generated pairs), "data", "fake", "ball"
            (uniform in an l2 ball around real examples), or a function (real, fake, generator) -> points.
        sided: "two", or "one": only slopes above the target cost.
        target: slope >= 0.
        radius: of "ball".
        every: the penalty is taken in every so-maniest critic step, that many times as large. It is cheaper; nothing
            holds the critic in the steps between.

    Reference: Gulrajani et al., NeurIPS 2017, algorithm 1; "one": Petzka et al., ICLR 2018; "ball": Kodali et al.,
    2017; `every`: Karras et al., CVPR 2020, appendix B. Lecture: F4.
    """

    what: ClassVar[str] = "a penalty on slopes other than 1 at random points"

    weight: float = 10.0
    norm: float | str = 2.0
    where: Literal["interpolation", "data", "fake", "ball"] | Where = "interpolation"
    sided: Literal["two", "one"] = "two"
    target: float = 1.0
    radius: float = 0.5
    every: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.weight < math.inf:
            raise InputError(f"GradientPenalty.weight: expected lambda >= 0, got {self.weight}; 10 or 0.1 is usual")
        try:
            fits = self.p >= 1
        except ValueError:
            fits = False
        if not fits:
            raise InputError(f"GradientPenalty.norm: expected p in [1, inf], got {self.norm}; 2 is usual")
        if not callable(self.where) and self.where not in _WHERE:
            raise InputError(
                f"GradientPenalty.where: expected one of {', '.join(_WHERE)}, or a function, got {self.where!r}"
            )
        if self.sided not in ("one", "two"):
            raise InputError(f"GradientPenalty.sided: expected 'one' or 'two', got {self.sided!r}")
        if not self.target >= 0 or not self.radius > 0:
            raise InputError(
                f"GradientPenalty: expected target >= 0 and radius > 0, got {self.target} and {self.radius}"
            )
        whole_number(self.every, "GradientPenalty.every", 1)

    @property
    def p(self) -> float:
        """The norm's exponent as a number."""
        return float(self.norm)

    def penalty(
        self, critic: Critic, real: Tensor, fake: Tensor, step: int = 0, generator: torch.Generator | None = None
    ) -> Penalty | None:
        """See `Constraint.penalty`."""
        if step % self.every or self.weight == 0:
            return None
        choose = self.where if callable(self.where) else _WHERE[self.where](self)
        points = choose(real.detach(), fake.detach(), generator)
        norms = row_norms(input_gradients(critic, points), dual(self.p))
        off = norms - self.target
        off = off.relu() if self.sided == "one" else off
        return Penalty(self.weight * self.every * off.square().mean(), norms.detach())


@dataclass(frozen=True)
class R1R2(Constraint):
    r"""Squared slopes at real (R1) and generated (R2) examples are pulled to 0.

    .. math:: \frac{\gamma}{2} \left( E \|\nabla s(x)\|_2^2 + E \|\nabla s(z)\|_2^2 \right)

    A good gamma grows with the number of pixels; halve or double it while you look at the samples. It must be
    differentiated twice, which is most of its cost.

    Args:
        gamma: >= 0.
        real: R1.
        fake: R2.
        every: as of `GradientPenalty`; the convergence theory is for 1.

    Reference: Mescheder, Geiger and Nowozin, ICML 2018, equations 9 and 10; Huang et al., NeurIPS 2024. Lecture: F4.
    """

    what: ClassVar[str] = "a penalty on squared slopes at real and generated examples"

    gamma: float = 1.0
    real: bool = True
    fake: bool = True
    every: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.gamma < math.inf:
            raise InputError(f"R1R2.gamma: expected a number >= 0, got {self.gamma}; 0.1 to 10 is usual")
        if not (self.real or self.fake):
            raise InputError("R1R2: expected real, fake or both, got neither; use the constraint 'none'")
        whole_number(self.every, "R1R2.every", 1)

    def penalty(
        self, critic: Critic, real: Tensor, fake: Tensor, step: int = 0, generator: torch.Generator | None = None
    ) -> Penalty | None:
        """See `Constraint.penalty`."""
        if step % self.every or self.gamma == 0:
            return None
        found = [
            input_gradients(critic, at).flatten(1).square().sum(1)
            for at, wanted in ((real, self.real), (fake, self.fake))
            if wanted
        ]
        total = torch.stack([squares.mean() for squares in found]).sum()
        return Penalty(self.gamma / 2 * self.every * total, torch.cat(found).detach().sqrt())


def _between(settings: GradientPenalty) -> Where:
    def points(real: Tensor, fake: Tensor, generator: torch.Generator | None) -> Tensor:
        if real.shape != fake.shape:
            raise InputError(
                f"GradientPenalty: expected as many real as generated examples of one shape, got {tuple(real.shape)} "
                f"and {tuple(fake.shape)}; take batches of one size"
            )
        return torch.lerp(fake, real, _uniform(real, generator))

    return points


def _in_ball(settings: GradientPenalty) -> Where:
    def points(real: Tensor, fake: Tensor, generator: torch.Generator | None) -> Tensor:
        direction = torch.randn(real.shape, dtype=real.dtype, device=real.device, generator=generator)
        d = real[0].numel()
        length = _uniform(real, generator).pow(1 / d) * settings.radius
        norms = direction.flatten(1).norm(dim=1).clamp_min(1e-30).view(-1, *[1] * (real.ndim - 1))
        return real + direction / norms * length

    return points


def _uniform(like: Tensor, generator: torch.Generator | None) -> Tensor:
    """A number in [0, 1) for each example, (n, 1, ...)."""
    shape = (len(like), *[1] * (like.ndim - 1))
    return torch.rand(shape, dtype=like.dtype, device=like.device, generator=generator)


_WHERE: dict[str, Callable[[Any], Where]] = {
    "interpolation": _between,
    "data": lambda settings: lambda real, fake, generator: real,
    "fake": lambda settings: lambda real, fake, generator: fake,
    "ball": _in_ball,
}
