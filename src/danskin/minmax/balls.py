"""Balls of the l_inf, l2 and l1 norm.

A radius may be a number, a text such as ``"8/255"`` (which is how it prints) or a tensor with one radius per example.
LECTURE row B1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor

from danskin.errors import InputError
from danskin.minmax import projections
from danskin.minmax.number import Number, number
from danskin.minmax.random import Streams, check_streams
from danskin.minmax.rows import cut
from danskin.minmax.sets import as_like, excess, one_hot_largest, rowwise, unit_l2, vector_norm


@dataclass(frozen=True)
class NormBall:
    """What the three balls share: a radius. Balls are centred at 0: they hold perturbations.

    A class derived from one of them is a set of its own: it says what it is anew (see `Set`).
    """

    order: ClassVar[float | None] = None
    project_within: ClassVar[Any] = None
    lmo_within: ClassVar[Any] = None

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if NormBall not in cls.__bases__:  # what Linf, say, knows of itself need not hold for what is made from it
            for name in ("order", "project_within", "lmo_within"):
                if name not in cls.__dict__:
                    setattr(cls, name, None)

    radius: Number

    def __post_init__(self) -> None:
        value = torch.as_tensor(self.value)
        if value.ndim > 1 or not bool(((value >= 0) & value.isfinite()).all()):
            raise InputError(
                f"{type(self).__name__}.radius: expected a finite number >= 0, such as 0.5 or '8/255', or a "
                f"tensor with one per example, got {self.radius!r}; give the radius in the data's own units"
            )

    @cached_property
    def value(self) -> Any:
        """The radius as a number or a (batch,) tensor."""
        return number(self.radius)

    @property
    def cube(self) -> bool:
        """Whether the ball is a product of intervals."""
        return self.order == math.inf

    def check(self, y: Tensor) -> None:
        """Refuse a number of radii that is not the number of rows.

        Raises:
            InputError: see above.
        """
        if isinstance(self.value, Tensor) and self.value.ndim == 1 and len(self.value) not in (1, len(y)):
            raise InputError(
                f"{type(self).__name__}.radius: expected one radius for each of {len(y)} examples, "
                f"got {len(self.value)}; use one number for all, or a tensor of shape ({len(y)},)"
            )

    def norm(self, y: Tensor) -> Tensor:
        """(batch,): the ball's norm."""
        raise NotImplementedError

    def violation(self, y: Tensor) -> Tensor:
        """norm(y) - radius, cut at 0."""
        return excess(self.norm(y) - self.value)

    def rows(self, index: Tensor) -> Any:
        """The same ball for some rows."""
        return cut(self, index)


@dataclass(frozen=True)
class Linf(NormBall):
    r"""\|y\|_inf <= radius.

    >>> Linf("8/255")
    Linf(radius='8/255')
    """

    order: ClassVar[float | None] = math.inf

    def bounds(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """The least and largest value of each coordinate, shaped to broadcast against y."""
        self.check(y)
        r = as_like(rowwise(self.value, y), y)
        return -r, r

    def project(self, y: Tensor) -> Tensor:
        """Clip each coordinate to [-radius, radius]."""
        return y.clamp(*self.bounds(y))

    def lmo(self, g: Tensor) -> Tensor:
        """Radius sign(g): the fast gradient sign."""
        self.check(g)
        return rowwise(self.value, g) * g.sign()

    def project_within(self, y: Tensor, low: Tensor, high: Tensor) -> Tensor:
        """Clip to [low, high], the box and the ball in one."""
        return y.clamp(low, high)

    def lmo_within(self, g: Tensor, low: Tensor, high: Tensor) -> Tensor:
        """High where g > 0, low where g < 0."""
        return torch.where(g > 0, high, torch.where(g < 0, low, torch.zeros_like(g)))

    def steepest(self, g: Tensor) -> Tensor:
        """sign(g)."""
        return g.sign()

    def sample(self, like: Tensor, generator: Streams) -> Tensor:
        """Uniform in the cube."""
        return check_streams(generator, "sample").uniform(like).mul_(2).sub_(1).mul_(rowwise(self.value, like))

    def norm(self, y: Tensor) -> Tensor:
        """The l_inf norm."""
        return vector_norm(y, math.inf)

    def dual_norm(self, g: Tensor) -> Tensor:
        """The l1 norm."""
        return vector_norm(g, 1)


@dataclass(frozen=True)
class L2(NormBall):
    r"""\|y\|_2 <= radius."""

    order: ClassVar[float | None] = 2

    def project(self, y: Tensor) -> Tensor:
        """Scale back to the radius where the norm is larger."""
        self.check(y)
        n = self.norm(y)
        return y * rowwise(torch.where(n > self.value, self.value / n.clamp_min(1e-30), 1.0), y)

    def lmo(self, g: Tensor) -> Tensor:
        r"""Radius g / \|g\|_2."""
        self.check(g)
        return rowwise(self.value, g) * unit_l2(g)

    def project_within(self, y: Tensor, low: Tensor, high: Tensor) -> Tensor:
        """Scaled and clipped, so that the norm meets the radius (`projections.stretch_l2_box`)."""
        return projections.stretch_l2_box(y, self.value, low, high, most=1.0)

    def lmo_within(self, g: Tensor, low: Tensor, high: Tensor) -> Tensor:
        """G stretched and clipped until the radius is spent."""
        return projections.stretch_l2_box(g, self.value, low, high, most=math.inf)

    def steepest(self, g: Tensor) -> Tensor:
        r"""G / \|g\|_2."""
        return unit_l2(g)

    def sample(self, like: Tensor, generator: Streams) -> Tensor:
        """Uniform in the ball: a uniform direction and the radius times U^(1/d)."""
        d = max(math.prod(like.shape[1:]), 1)
        u = check_streams(generator, "sample").child(1).uniform(like.new_empty(len(like), 1)).view(-1)
        return unit_l2(generator.child(0).normal(like)) * rowwise(u ** (1 / d) * self.value, like)

    def norm(self, y: Tensor) -> Tensor:
        """The l2 norm."""
        return vector_norm(y, 2)

    def dual_norm(self, g: Tensor) -> Tensor:
        """The l2 norm."""
        return vector_norm(g, 2)


@dataclass(frozen=True)
class L1(NormBall):
    r"""\|y\|_1 <= radius."""

    order: ClassVar[float | None] = 1

    def project(self, y: Tensor) -> Tensor:
        """Soft thresholding at the level that meets the radius (`projections.project_l1`)."""
        self.check(y)
        return projections.project_l1(y, self.value)

    def lmo(self, g: Tensor) -> Tensor:
        """All of the radius on the coordinate with the largest |g|."""
        self.check(g)
        return rowwise(self.value, g) * self.steepest(g)

    def project_within(self, y: Tensor, low: Tensor, high: Tensor) -> Tensor:
        """Soft thresholding and clipping that meets the radius (`projections.project_l1_box`)."""
        return projections.project_l1_box(y, self.value, low, high)

    def lmo_within(self, g: Tensor, low: Tensor, high: Tensor) -> Tensor:
        """The room of the largest |g| first, until the radius is spent."""
        return projections.lmo_l1_box(g, self.value, low, high)

    def steepest(self, g: Tensor) -> Tensor:
        """sign(g) at the largest |g|, 0 elsewhere."""
        return one_hot_largest(g.abs(), g.sign())

    def sample(self, like: Tensor, generator: Streams) -> Tensor:
        """Uniform in the ball: +-radius E_i / (E_1 + ... + E_{d+1}) with independent exponentials."""
        last = check_streams(generator, "sample").child(1).exponential(like.new_empty(len(like), 1)).view(-1)
        e = generator.child(0).exponential(like)
        total = projections.flatten(e).sum(1) + last
        return e * generator.child(2).sign(like) * rowwise(self.value / total, like)

    def norm(self, y: Tensor) -> Tensor:
        """The l1 norm."""
        return vector_norm(y, 1)

    def dual_norm(self, g: Tensor) -> Tensor:
        """The l_inf norm."""
        return vector_norm(g, math.inf)


#: The balls by the name that the command line, recipes and verdicts call them.
BALLS: dict[str, type[NormBall]] = {ball.__name__.lower(): ball for ball in (Linf, L2, L1)}


def balls_named(orders: Sequence[float]) -> str:
    """The balls of these norms, in words: "L2 or Linf"."""
    return " or ".join(ball.__name__ for order in orders for ball in BALLS.values() if ball.order == order)
