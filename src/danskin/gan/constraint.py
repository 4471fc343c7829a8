r"""What keeps the critic in its set Y: a projection behind each step, a penalty in the loss, or layers.

A constraint is a value. It says what is added to the critic's loss (`penalty`), what is done to the critic behind each
of its steps (`project_`), and what its layers are made of (`linear`, `conv`, `activation`); most do one of the three.
The penalty is minimised together with the loss, in one backward pass and one step.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from danskin.errors import InputError
from danskin.gan.gradients import Critic


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
