"""Constraints that are the layers of the critic: its constant is certified, whatever its weights. Lecture: F5, F6."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from danskin.errors import InputError
from danskin.gan.constraint import Constraint, Penalty
from danskin.gan.gradients import Critic
from danskin.lipschitz import layers


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


class _OrthogonalLayers(_Layers):
    """Layers with orthogonal matrices; what stands between them is a subclass's own."""

    method: Literal["bjorck", "householder", "cayley"]

    def linear(self, inputs: int, outputs: int) -> nn.Module:
        """See `Constraint`."""
        return layers.OrthogonalLinear(inputs, outputs, method=self.method)

    def conv(
        self, inputs: int, outputs: int, kernel: int, stride: int, padding: int, image_size: tuple[int, int]
    ) -> nn.Module:
        """See `Constraint`."""
        return layers.OrthogonalConv2d(inputs, outputs, kernel, stride, padding, method=self.method)


@dataclass(frozen=True)
class Orthogonal(_OrthogonalLayers):
    """Layers that keep norms, and activations that keep those of gradients: slopes do not fade with depth.

    Args:
        method: how matrices are made orthogonal: "bjorck", "householder" or "cayley".
        nonlinearity: "max_min" (needs even widths) or "abs".

    Reference: Anil, Lucas and Grosse, "Sorting out Lipschitz function approximation", ICML 2019. Lecture: F5.
    """

    what: ClassVar[str] = "orthogonal layers"

    method: Literal["bjorck", "householder", "cayley"] = "bjorck"
    nonlinearity: Literal["max_min", "abs"] = "max_min"

    def activation(self, width: int) -> nn.Module:
        """See `Constraint`."""
        return layers.MaxMin() if self.nonlinearity == "max_min" else layers.Abs()


@dataclass(frozen=True)
class Spline(_OrthogonalLayers):
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
