"""X times Y: the first coordinates of a row in one set, the rest in another."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from danskin.errors import InputError
from danskin.minmax.random import Streams
from danskin.minmax.rows import rows_of
from danskin.minmax.sets import Set


@dataclass(frozen=True, eq=False)
class Product:
    r"""{(x, y) : x in X, y in Y} for z = (x, y) of shape (batch, d). Its own norm is max(\|x\|_X, \|y\|_Y).

    Args:
        X: the set of the first `split` coordinates.
        Y: the set of the others.
        split: how many coordinates are x.
    """

    X: Set
    Y: Set
    split: int

    def _parts(self, z: Tensor) -> tuple[Tensor, Tensor]:
        if z.ndim != 2 or z.shape[1] <= self.split:
            raise InputError(
                f"Product: expected z of shape (batch, d) with d > {self.split}, got {tuple(z.shape)}; put x and y "
                "side by side"
            )
        return z[:, : self.split], z[:, self.split :]

    def project(self, z: Tensor) -> Tensor:
        """Each part onto its set."""
        x, y = self._parts(z)
        return torch.cat([self.X.project(x), self.Y.project(y)], 1)

    def lmo(self, g: Tensor) -> Tensor:
        """The linear maximiser of each part."""
        x, y = self._parts(g)
        return torch.cat([self.X.lmo(x), self.Y.lmo(y)], 1)

    def steepest(self, g: Tensor) -> Tensor:
        """The steepest direction of each part."""
        x, y = self._parts(g)
        return torch.cat([self.X.steepest(x), self.Y.steepest(y)], 1)

    def mirror(self, z: Tensor, g: Tensor) -> Tensor:
        """The entropic step of each part (`Simplex.mirror`).

        Raises:
            InputError: a part has no such step.
        """
        (x, y), (a, b) = self._parts(z), self._parts(g)
        return torch.cat([mirror(self.X, x, a), mirror(self.Y, y, b)], 1)

    def sample(self, like: Tensor, generator: Streams) -> Tensor:
        """A sample of each, independent."""
        x, y = self._parts(like)
        return torch.cat([self.X.sample(x, generator.child(0)), self.Y.sample(y, generator.child(1))], 1)

    def violation(self, z: Tensor) -> Tensor:
        """The larger of the two."""
        x, y = self._parts(z)
        return torch.maximum(self.X.violation(x), self.Y.violation(y))

    def norm(self, z: Tensor) -> Tensor:
        """The larger of the two norms."""
        x, y = self._parts(z)
        return torch.maximum(self.X.norm(x), self.Y.norm(y))

    def dual_norm(self, g: Tensor) -> Tensor:
        """The sum of the dual norms."""
        x, y = self._parts(g)
        return self.X.dual_norm(x) + self.Y.dual_norm(y)

    def rows(self, index: Tensor) -> Product:
        """The same for some rows."""
        return Product(rows_of(self.X, index), rows_of(self.Y, index), self.split)


def mirror(Z: Set | None, z: Tensor, g: Tensor) -> Tensor:
    """Argmin over q in Z of <g, q> + KL(q, z): the step of entropic mirror descent.

    Raises:
        InputError: the set has no method `mirror`.
    """
    step = getattr(Z, "mirror", None)
    if step is None:
        raise InputError(
            f"mirror: expected a set with entropic steps (Simplex, or a Product of them), got {type(Z).__name__}; use "
            "Extragradient, which projects"
        )
    moved: Tensor = step(z, g)
    return moved
