"""Matrices of bounded spectral norm."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from danskin.errors import InputError
from danskin.minmax.balls import NormBall
from danskin.minmax.random import Streams, check_streams
from danskin.minmax.sets import as_like, rowwise


@dataclass(frozen=True)
class Spectral(NormBall):
    r"""\|Y\|_2 <= radius for matrices Y of shape (batch, rows, columns): the largest singular value.

    Its dual norm is the nuclear norm, the sum of singular values. Singular values are computed in float64. Samples
    have a uniform share of the radius as norm, and random directions.

    Reference: Lecture, eq. 11 (the neural network distance). Lecture: B1, E5.

    >>> Spectral(1.0).project(torch.tensor([[[3.0, 0.0], [0.0, 0.5]]])).tolist()
    [[[1.0, 0.0], [0.0, 0.5]]]
    """

    def _parts(self, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """U (batch, rows, k), singular values (batch, k) and V^T (batch, k, columns) in float64."""
        if y.ndim != 3:
            raise InputError(
                f"Spectral: expected matrices of shape (batch, rows, columns), got {tuple(y.shape)}; reshape them"
            )
        self.check(y)
        wide = y.double() if y.device.type != "mps" else y
        return torch.linalg.svd(wide, full_matrices=False)

    def _radius(self, like: Tensor) -> Tensor:
        """The radius, to broadcast against (batch, k)."""
        return as_like(rowwise(self.value, like), like)

    def project(self, y: Tensor) -> Tensor:
        """U min(S, radius) V^T: singular values are clipped."""
        u, s, v = self._parts(y)
        inside = (s <= self._radius(s)).all(1)
        clipped = (u * torch.minimum(s, self._radius(s))[:, None]) @ v
        return torch.where(inside[:, None, None], y, clipped.to(y.dtype))

    def lmo(self, g: Tensor) -> Tensor:
        """Radius U V^T, over the directions whose singular value is not 0."""
        u, s, v = self._parts(g)
        return (((u * self._some(s)[:, None]) @ v) * self._radius(g.double())).to(g.dtype)

    def steepest(self, g: Tensor) -> Tensor:
        """U V^T."""
        u, s, v = self._parts(g)
        return ((u * self._some(s)[:, None]) @ v).to(g.dtype)

    @staticmethod
    def _some(s: Tensor) -> Tensor:
        """1 where a singular value is more than rounding, else 0."""
        return (s > s.amax(1, keepdim=True) * 1e-12).to(s)

    def norm(self, y: Tensor) -> Tensor:
        """(batch,): the largest singular value; NaN where y is."""
        return self._values(y).amax(1)

    def dual_norm(self, g: Tensor) -> Tensor:
        """(batch,): the sum of singular values."""
        return self._values(g).sum(1)

    def _values(self, y: Tensor) -> Tensor:
        """(batch, k): the singular values, NaN in rows that are not finite."""
        finite = y.isfinite().flatten(1).all(1)
        s = self._parts(torch.where(finite[:, None, None], y, 0.0))[1]
        return torch.where(finite[:, None], s, torch.nan).to(y.dtype)

    def sample(self, like: Tensor, generator: Streams) -> Tensor:
        """A Gaussian matrix, scaled to a uniform share of the radius."""
        generator = check_streams(generator, "sample")
        drawn = generator.child(0).normal(like)
        share = generator.child(1).uniform(like.new_empty(len(like), 1)).view(-1)
        return drawn * rowwise(share * as_like(self.value, share) / self.norm(drawn).clamp_min(1e-30), like)
