"""A mean with its count and its error bar: misalignment, alignment, deviation from linearity."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Average:
    """The mean of n numbers, kept as sums: averages of disjoint examples add up.

    Args:
        total: their sum.
        squares: the sum of their squares.
        n: how many.
        left_out: how many were NaN (an example for which the number is not defined) and are not among the n.

    >>> import torch
    >>> a = Average.of(torch.tensor([1.0, 2.0])) + Average.of(torch.tensor([3.0, float("nan")]))
    >>> a.value, a.n, a.left_out
    (2.0, 3, 1)
    """

    total: float
    squares: float
    n: int
    left_out: int = 0

    @staticmethod
    def of(values: Tensor) -> Average:
        """The average of a tensor; NaN entries are counted in `left_out`."""
        flat = values.detach().double().flatten()
        known = flat[~flat.isnan()]
        return Average(float(known.sum()), float(known.square().sum()), len(known), len(flat) - len(known))

    def __add__(self, other: Average) -> Average:
        return Average(
            self.total + other.total, self.squares + other.squares, self.n + other.n, self.left_out + other.left_out
        )

    @property
    def value(self) -> float:
        """The mean; NaN of none."""
        return self.total / self.n if self.n else math.nan

    @property
    def std(self) -> float:
        """The standard deviation between examples (divisor n - 1); NaN of fewer than two."""
        if self.n < 2:
            return math.nan
        return math.sqrt(max(self.squares - self.total**2 / self.n, 0.0) / (self.n - 1))

    @property
    def interval(self) -> tuple[float, float]:
        """The mean +- 1.96 standard errors: right for many examples, too narrow for a handful."""
        half = 1.959964 * self.std / math.sqrt(self.n) if self.n else math.nan
        return self.value - half, self.value + half

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.value:.4g} (n={self.n}, 95 % {low:.4g} to {high:.4g})"
