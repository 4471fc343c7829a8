"""A share with its count and its error bar: accuracy, robust accuracy, success rate."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from danskin.errors import InputError


def wilson(hits: int, n: int, z: float = 1.959964) -> tuple[float, float]:
    """The Wilson score interval of a share: (low, high), 95 % by default.

    Reference: Wilson, JASA 1927. Never leaves [0, 1] and is right for 0 or n hits, unlike +-1.96 s.e.

    >>> low, high = wilson(0, 100)
    >>> low, round(high, 4)
    (0.0, 0.037)
    """
    if n < 1 or not 0 <= hits <= n:
        raise InputError(f"wilson: expected 0 <= hits <= n with n >= 1, got {hits} of {n}; count again")
    p, denominator = hits / n, 1 + z * z / n
    center = (p + z * z / (2 * n)) / denominator
    half = z / denominator * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return max(0.0, center - half) if hits else 0.0, min(1.0, center + half) if hits < n else 1.0


@dataclass(frozen=True)
class Share:
    """`hits` of `n`. Shares of disjoint examples add up; they are compared with numbers, and ordered, by their value.

    Two shares are equal when hits and n are: 1 of 2 is no better than 2 of 4, and not the same.

    >>> Share(1, 2) > 0.4, float(Share(3, 4)), Share(1, 2) == 0.5, max(Share(1, 3), Share(2, 3))
    (True, 0.75, True, Share(hits=2, n=3))

    Args:
        hits: how many.
        n: of how many.
    """

    hits: int
    n: int

    @staticmethod
    def of(correct: Tensor) -> Share:
        """The share of True in a bool tensor."""
        return Share(int(correct.sum()), correct.numel())

    def __add__(self, other: Share) -> Share:
        return Share(self.hits + other.hits, self.n + other.n)

    @property
    def value(self) -> float:
        """The share as a number; NaN of none."""
        return self.hits / self.n if self.n else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % Wilson interval."""
        return wilson(self.hits, self.n)

    def __float__(self) -> float:
        return self.value

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Share):
            return (self.hits, self.n) == (other.hits, other.n)
        return self.value == other if isinstance(other, int | float) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.value)

    def __lt__(self, other: Share | float) -> bool:
        return self.value < float(other)

    def __le__(self, other: Share | float) -> bool:
        return self.value <= float(other)

    def __gt__(self, other: Share | float) -> bool:
        return self.value > float(other)

    def __ge__(self, other: Share | float) -> bool:
        return self.value >= float(other)

    def to_dict(self) -> dict[str, Any]:
        """Hits, n, value and interval."""
        return {"hits": self.hits, "n": self.n, "value": self.value, "interval": list(self.interval)}

    def __str__(self) -> str:
        low, high = self.interval
        return f"{100 * self.value:.2f} % ({self.hits}/{self.n}, 95 % {100 * low:.1f}-{100 * high:.1f})"
