r"""What keeps the critic in its set Y: a projection behind each step, a penalty in the loss, or layers.

A constraint is a value. It says what is added to the critic's loss (`penalty`), what is done to the critic behind each
of its steps (`project_`), and what its layers are made of (`linear`, `conv`, `activation`); most do one of the three.
The penalty is minimised together with the loss, in one backward pass and one step.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn

from danskin.errors import InputError
from danskin.gan.gradients import Critic, dual, input_gradients, row_norms
from danskin.inputs import whole_number
from danskin.lipschitz import layers

#: Where slopes are looked at: of real and generated examples and a generator of random numbers, points.
Where = Callable[[Tensor, Tensor, torch.Generator | None], Tensor]


class Penalty(NamedTuple):
    """What is added to the critic's loss, and the slopes it was computed from.

    Args:
        value: a scalar, weighted.
        norms: (n,) slopes, detached, where it looked at slopes.
    """

    value: Tensor
    norms: Tensor | None = None


class Constraint:
    """No constraint; the others say what they do otherwise."""

    what: ClassVar[str] = "nothing is asked of the critic"

    def penalty(
        self, critic: Critic, real: Tensor, fake: Tensor, step: int = 0, generator: torch.Generator | None = None
    ) -> Penalty | None:
        """What is added to the critic's loss in its step number `step`; None where nothing is due.

        Args:
            critic: the raw module, not a wrapper of it.
            real: (n, ...) examples.
            fake: (n, ...) generated ones; no gradient reaches the generator.
            step: how many steps the critic has made.
            generator: of random numbers; None for torch's own.
        """
        return None

    def project_(self, critic: nn.Module) -> None:
        """Bring the critic back into the set, behind one of its steps."""

    def linear(self, inputs: int, outputs: int) -> nn.Module:
        """A linear layer of the critic."""
        return nn.Linear(inputs, outputs)

    def conv(
        self, inputs: int, outputs: int, kernel: int, stride: int, padding: int, image_size: tuple[int, int]
    ) -> nn.Module:
        """A convolution of the critic, of images (inputs, *image_size)."""
        return nn.Conv2d(inputs, outputs, kernel, stride, padding)

    def activation(self, width: int) -> nn.Module:
        """What stands between two layers of the critic; `width` is the number of its channels."""
        return nn.LeakyReLU(0.2)

    def check(self, critic: nn.Module) -> None:
        """A critic that somebody made fits this constraint.

        Raises:
            InputError: it does not; the layer is named.
        """


@dataclass(frozen=True)
class Unconstrained(Constraint):
    """The critic is any function. Right for the vanilla objectives; with `Wasserstein` its scores run away."""


@dataclass(frozen=True)
class WeightClip(Constraint):
    """Behind each step every weight goes to the nearest point of [-c, c].

    The product of layer norms that is left is far below or above 1, so the gap is no distance. Scales and shifts of
    normalisation layers are left alone: clipping them to 0.01 would switch the layers off.

    Args:
        c: bound of a weight, above 0.

    Reference: Arjovsky, Chintala and Bottou, ICML 2017, algorithm 1. Lecture: F3.
    """

    what: ClassVar[str] = "every weight in [-c, c], behind each step"

    c: float = 0.01

    def __post_init__(self) -> None:
        if not 0 < self.c < math.inf:
            raise InputError(f"WeightClip.c: expected a number above 0, got {self.c}; 0.01 is published")

    @torch.no_grad()
    def project_(self, critic: nn.Module) -> None:
        """Clip."""
        for module in critic.modules():
            if not isinstance(module, nn.modules.batchnorm._NormBase | nn.LayerNorm | nn.GroupNorm):
                for parameter in module.parameters(recurse=False):
                    parameter.clamp_(-self.c, self.c)


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


class _Layers(Constraint):
    """Constraints that are the layers: a critic of somebody's own must be made of them."""

    def check(self, critic: nn.Module) -> None:
        """See `Constraint.check`."""
        for name, module in critic.named_modules():
            if isinstance(module, nn.Linear | nn.modules.conv._ConvNd | nn.modules.batchnorm._NormBase):
                raise InputError(
                    f"critic.{name}: expected layers of danskin.lipschitz.layers for {type(self).__name__}, got "
                    f"{type(module).__name__}; build it of SpectralLinear, OrthogonalLinear, ..., or take another "
                    "constraint"
                )


@dataclass(frozen=True)
class Spectral(_Layers):
    """Every layer of the critic is divided by its spectral norm; of a convolution, by that of the convolution itself.

    Args:
        mode: "power": Miyato's power iteration, norms a little above 1 while it lags; "exact"; or "bound", from above.

    Reference: Miyato et al., ICLR 2018, algorithm 1, which takes the norm of the kernel's matrix instead: too small by
    up to the kernel's side. Lecture: F5.
    """

    what: ClassVar[str] = "layers divided by their spectral norms"

    mode: Literal["power", "exact", "bound"] = "power"

    def linear(self, inputs: int, outputs: int) -> nn.Module:
        """See `Constraint`."""
        return layers.SpectralLinear(inputs, outputs, mode=self.mode)

    def conv(
        self, inputs: int, outputs: int, kernel: int, stride: int, padding: int, image_size: tuple[int, int]
    ) -> nn.Module:
        """See `Constraint`."""
        return layers.SpectralConv2d(inputs, outputs, kernel, stride, padding, image_size=image_size, mode=self.mode)


@dataclass(frozen=True)
class Orthogonal(_Layers):
    """Layers that keep norms, and activations that keep those of gradients: slopes do not fade with depth.

    Args:
        method: how matrices are made orthogonal: "bjorck", "householder" or "cayley".
        nonlinearity: "max_min" (needs even widths) or "abs".

    Reference: Anil, Lucas and Grosse, "Sorting out Lipschitz function approximation", ICML 2019. Lecture: F5.
    """

    what: ClassVar[str] = "orthogonal layers"

    method: Literal["bjorck", "householder", "cayley"] = "bjorck"
    nonlinearity: Literal["max_min", "abs"] = "max_min"

    def linear(self, inputs: int, outputs: int) -> nn.Module:
        """See `Constraint`."""
        return layers.OrthogonalLinear(inputs, outputs, method=self.method)

    def conv(
        self, inputs: int, outputs: int, kernel: int, stride: int, padding: int, image_size: tuple[int, int]
    ) -> nn.Module:
        """See `Constraint`."""
        return layers.OrthogonalConv2d(inputs, outputs, kernel, stride, padding, method=self.method)

    def activation(self, width: int) -> nn.Module:
        """See `Constraint`."""
        return layers.MaxMin() if self.nonlinearity == "max_min" else layers.Abs()


@dataclass(frozen=True)
class Spline(_Layers):
    """Orthogonal layers with learnable 1-Lipschitz linear splines between them.

    Args:
        knots: of each spline.
        reach: of the knots, to both sides of 0.
        init: what the splines are at first: "abs", "identity", "relu" or "maxmin".
        variation: weight of their second-order total variation in the loss, >= 0.
        method: how matrices are made orthogonal.

    Reference: Neumayer et al., 2023; Ducotterd et al., JMLR 25, 2024. Lecture: F6.
    """

    what: ClassVar[str] = "orthogonal layers and 1-Lipschitz splines"

    knots: int = 21
    reach: float = 1.0
    init: Literal["abs", "identity", "relu", "maxmin"] = "abs"
    variation: float = 0.0
    method: Literal["bjorck", "householder", "cayley"] = "bjorck"

    def __post_init__(self) -> None:
        if not 0 <= self.variation < math.inf:
            raise InputError(f"Spline.variation: expected a weight >= 0, got {self.variation}; 1e-6 is published")

    def linear(self, inputs: int, outputs: int) -> nn.Module:
        """See `Constraint`."""
        return layers.OrthogonalLinear(inputs, outputs, method=self.method)

    def conv(
        self, inputs: int, outputs: int, kernel: int, stride: int, padding: int, image_size: tuple[int, int]
    ) -> nn.Module:
        """See `Constraint`."""
        return layers.OrthogonalConv2d(inputs, outputs, kernel, stride, padding, method=self.method)

    def activation(self, width: int) -> nn.Module:
        """See `Constraint`."""
        return layers.LinearSpline(width, knots=self.knots, reach=self.reach, init=self.init)

    def penalty(
        self, critic: Critic, real: Tensor, fake: Tensor, step: int = 0, generator: torch.Generator | None = None
    ) -> Penalty | None:
        """The splines' variation, where it has a weight."""
        if not self.variation or not isinstance(critic, nn.Module):
            return None
        found = [m.tv2() for m in critic.modules() if isinstance(m, layers.LinearSpline)]
        return Penalty(self.variation * torch.stack(found).sum()) if found else None


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

#: By the name they go by in recipes.
CONSTRAINTS: dict[str, type[Constraint]] = {
    "none": Unconstrained,
    "clip": WeightClip,
    "gradient_penalty": GradientPenalty,
    "r1r2": R1R2,
    "spectral": Spectral,
    "orthogonal": Orthogonal,
    "spline": Spline,
}
