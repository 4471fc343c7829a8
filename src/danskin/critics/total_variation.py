"""Total variation of distributions with atoms, and of histograms."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from danskin.critics.ipm import Witness
from danskin.critics.samples import Samples, samples
from danskin.errors import InputError
from danskin.minmax import Template


@dataclass(frozen=True)
class TotalVariation:
    r"""TV(mu, nu) = sup over 0 <= f <= 1 of E_mu f - E_nu f = 1/2 sum over points of |mu - nu|, in [0, 1].

    Two samples of continuous distributions share no point: their TV is 1, whatever was drawn. `cell` takes the
    histograms instead: the TV of histograms is never above that of what they are histograms of.

    Args:
        cell: side of the cells [k cell, (k + 1) cell) of a grid, in the units of the points; None for the points
            themselves, which are one where they are equal.

    Lecture: E5.

    >>> x = torch.tensor([[0.0], [0.0], [1.0], [2.0]])
    >>> float(TotalVariation().value(x, x[1:3]))
    0.25
    """

    template: ClassVar[Template] = Template("-", "a function", "values in [0, 1]", "E_mu f - E_nu f")
    moves: ClassVar[str] = "closed form"

    cell: float | None = None

    def __post_init__(self) -> None:
        if self.cell is not None and not (math.isfinite(self.cell) and self.cell > 0):
            raise InputError(f"TotalVariation.cell: expected a number > 0 or None, got {self.cell!r}; give a side")

    def _places(self, z: Tensor) -> Tensor:
        z = z.detach().double().reshape(len(z), -1)
        return (z if self.cell is None else (z / self.cell).floor()) + 0.0  # -0.0 is 0.0

    def _masses(self, s: Samples) -> tuple[Tensor, Tensor]:
        """Places (k, d) in lexicographic order and the mass of mu - nu on each."""
        places, at = torch.unique(self._places(s.points), dim=0, return_inverse=True)
        return places, s.signed.new_zeros(len(places)).index_add(0, at, s.signed)

    def value(self, x: Tensor, y: Tensor, a: Tensor | None = None, b: Tensor | None = None) -> Tensor:
        """TV; differentiable in the weights, and constant in the points."""
        return self._masses(samples(x, y, a, b))[1].abs().sum() / 2

    def witness(self, x: Tensor, y: Tensor, a: Tensor | None = None, b: Tensor | None = None) -> Witness:
        """1 where mu has more mass than nu, 0 elsewhere."""
        places, mass = self._masses(samples(x, y, a, b))
        more = {tuple(place) for place in places[mass > 0].tolist()}

        def f(z: Tensor) -> Tensor:
            hits = [tuple(place) in more for place in self._places(z).tolist()]
            return torch.tensor(hits, dtype=torch.float64, device=z.device)

        return f

    def lower_bound(self, x: Tensor, y: Tensor, a: Tensor | None = None, b: Tensor | None = None) -> float:
        """The value with an allowance for rounding."""
        return max(float(self.value(x, y, a, b).detach()) - 1e-12, 0.0)
