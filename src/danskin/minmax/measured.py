"""How large a set is, where it does not say; and a set made larger."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from danskin.minmax.random import Streams
from danskin.minmax.rows import rows_of
from danskin.minmax.sets import Set, rowwise

_PROBES = 4


def half_width(Y: Set, like: Tensor) -> Tensor:
    """(batch,) half the size of a set in its own norm: what its radius is for a ball.

    Half the largest distance between the set's best points in a few opposite directions: exact for balls of l_inf,
    l2 and l1, and nearly so for what looks alike in all directions.

    Args:
        Y: a bounded set.
        like: (batch, ...) a point of its space.
    """
    streams = Streams.of(0, torch.zeros(len(like), dtype=torch.int64, device=like.device))  # the same for all rows
    probes = [streams.child(k).normal(like) for k in range(_PROBES)]
    return torch.stack([0.5 * Y.norm(Y.lmo(g) - Y.lmo(-g)) for g in [*probes, torch.ones_like(like)]]).amax(0)


class Wrapped:
    """What a set says that stands for another one, `inner`: the same; and what it does not say itself."""

    inner: Any

    def __getattr__(self, name: str) -> Any:
        if name == "inner" or name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.inner, name)

    def __repr__(self) -> str:
        return repr(self.inner)

    def project(self, y: Tensor) -> Tensor:
        """As in the set."""
        out: Tensor = self.inner.project(y)
        return out

    def lmo(self, g: Tensor) -> Tensor:
        """As in the set."""
        out: Tensor = self.inner.lmo(g)
        return out

    def steepest(self, g: Tensor) -> Tensor:
        """As in the set."""
        out: Tensor = self.inner.steepest(g)
        return out

    def sample(self, like: Tensor, generator: Streams) -> Tensor:
        """As in the set."""
        out: Tensor = self.inner.sample(like, generator)
        return out

    def violation(self, y: Tensor) -> Tensor:
        """As in the set."""
        out: Tensor = self.inner.violation(y)
        return out

    def norm(self, y: Tensor) -> Tensor:
        """As in the set."""
        out: Tensor = self.inner.norm(y)
        return out

    def dual_norm(self, g: Tensor) -> Tensor:
        """As in the set."""
        out: Tensor = self.inner.dual_norm(g)
        return out

    def rows(self, index: Tensor) -> Any:
        """The set for some rows."""
        return rows_of(self.inner, index)


@dataclass(frozen=True, eq=False, repr=False)
class Measured(Wrapped):
    """A set that does not say its radius, with the radius found by `half_width`; else as it is.

    Args:
        inner: the set.
        value: (batch,), or one for all rows.
    """

    inner: Any
    value: Tensor

    def rows(self, index: Tensor) -> Measured:
        """The same for some rows."""
        return Measured(rows_of(self.inner, index), self.value[index] if self.value.ndim else self.value)


def radius_of(Y: Any) -> Any:
    """The radius that a set says it has, a number or (batch,)."""
    return Y.value


def largest_radius(Y: Any) -> float:
    """The largest of its radii."""
    radius = radius_of(Y)
    return float(radius.max()) if isinstance(radius, Tensor) else float(radius)  # not by way of float32


def of_one_radius(Y: Any, index: Tensor, like: Tensor) -> Any:
    """The set of the examples `index` with one radius, the largest it has: for what looks at one radius."""
    if getattr(Y, "order", None) is not None:
        return replace(Y, radius=largest_radius(Y)) if isinstance(radius_of(Y), Tensor) else Y
    own = rows_of(Y, index)
    return own if hasattr(own, "value") else Measured(own, half_width(own, like).amax())


def measured(Y: Any, like: Tensor) -> Any:
    """Y where it says its radius, else with the one that it was found to have."""
    return Y if hasattr(Y, "value") else Measured(Y, half_width(Y, like))


def grown(Y: Any, radius: float | Tensor) -> Any:
    """The set with another radius: a ball has one to be replaced, another set is scaled."""
    if getattr(Y, "order", None) is not None:
        return replace(Y, radius=radius)
    return Scaled(Y, radius / torch.as_tensor(radius_of(Y)))


@dataclass(frozen=True, eq=False)
class Scaled:
    """factor * Y: every point of a set, moved away from 0 by a factor.

    Args:
        inner: Y.
        factor: > 0, a number or (batch,).
    """

    inner: Any
    factor: float | Tensor

    def project(self, y: Tensor) -> Tensor:
        """Factor P(y / factor)."""
        return rowwise(self.factor, y) * self.inner.project(y / rowwise(self.factor, y))

    def lmo(self, g: Tensor) -> Tensor:
        """Factor times the maximiser."""
        return rowwise(self.factor, g) * self.inner.lmo(g)

    def steepest(self, g: Tensor) -> Tensor:
        """As in Y."""
        d: Tensor = self.inner.steepest(g)
        return d

    def sample(self, like: Tensor, generator: Streams) -> Tensor:
        """Factor times a sample."""
        return rowwise(self.factor, like) * self.inner.sample(like, generator)

    def violation(self, y: Tensor) -> Tensor:
        """Factor times the violation of y / factor."""
        out: Tensor = self.factor * self.inner.violation(y / rowwise(self.factor, y))
        return out

    def norm(self, y: Tensor) -> Tensor:
        """The norm of Y."""
        size: Tensor = self.inner.norm(y)
        return size

    def dual_norm(self, g: Tensor) -> Tensor:
        """The dual norm of Y."""
        size: Tensor = self.inner.dual_norm(g)
        return size

    def rows(self, index: Tensor) -> Scaled:
        """The same for some rows."""
        factor = self.factor[index] if isinstance(self.factor, Tensor) and self.factor.ndim else self.factor
        return Scaled(rows_of(self.inner, index), factor)
