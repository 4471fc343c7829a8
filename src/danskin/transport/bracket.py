"""[lower, upper] around a distance: a feasible pair of potentials below, a feasible plan above."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from danskin.errors import InputError

Array = NDArray[np.float64]
_UNIT = 2.0**-53  # rounding of float64
_BLOCK = 2**16  # numbers that stay in the cache


@dataclass(frozen=True)
class Bracket:
    """A distance lies between `lower` and `upper`.

    Args:
        lower: what a feasible pair of potentials proves.
        upper: what a feasible plan proves.
        method: how both were found.

    >>> Bracket(1.0, 1.0 + 1e-12, "exact").closed, Bracket(0.9, 1.1, "sinkhorn").closed
    (True, False)
    """

    lower: float
    upper: float
    method: str

    def __post_init__(self) -> None:
        if not 0 <= self.lower <= self.upper < math.inf:
            raise InputError(f"bracket: expected 0 <= lower <= upper, got {self.lower!r} and {self.upper!r}")

    @property
    def gap(self) -> float:
        """(upper - lower) / upper; 0 where both are 0."""
        return (self.upper - self.lower) / self.upper if self.upper else 0.0

    @property
    def closed(self) -> bool:
        """Whether the two agree to 1e-9 of the upper one: then the distance is known."""
        return self.gap <= 1e-9

    @property
    def value(self) -> float:
        """The distance.

        Raises:
            InputError: the bracket is open, and any number in it would be a guess.
        """
        if not self.closed:
            raise InputError(
                f"bracket: expected a closed one, got [{self.lower:.6g}, {self.upper:.6g}] by {self.method}; use "
                '.lower or .upper, or method="exact"'
            )
        return self.upper

    def __contains__(self, value: float) -> bool:
        return self.lower <= value <= self.upper

    def __str__(self) -> str:
        return f"{self.upper:.6g}" if self.closed else f"[{self.lower:.6g}, {self.upper:.6g}]"


def bracket_of(lower: float, upper: float, q: float, method: str, slack: float = 0.0) -> Bracket:
    """The bracket of W_q from bounds of W_q^q, rounded outwards.

    Args:
        lower: a bound of the cost from below.
        upper: a bound of the cost from above.
        q: order.
        method: how they were found.
        slack: what rounding may have done to either, absolute.
    """
    low, high = max(lower - slack, 0.0), max(upper + slack, 0.0)  # in this order NaN stays, and is refused
    if q != 1:
        low, high = math.nextafter(low ** (1 / q), 0), math.nextafter(high ** (1 / q), math.inf) if high else 0.0
    return Bracket(max(min(low, high), 0.0), high, method)


def rounding(n: int, scale: float) -> float:
    """How far the sum of n products of float64 numbers may be from the true one: n u times the sum of their sizes."""
    return (n + 4) * _UNIT * scale


def c_transform(cost: Array, f: Array) -> Array:
    """The largest g with f_i + g_j <= c_ij: g_j = min_i (c_ij - f_i), (m,).

    Args:
        cost: (n, m).
        f: (n,).
    """
    found: Array = (cost - f[:, None]).min(0)
    return found


def row_transform(cost: Array, g: Array) -> Array:
    """The largest f with f_i + g_j <= c_ij, (n,): along the rows as they lie in memory, a few at a time.

    Args:
        cost: (n, m).
        g: (m,).
    """
    found: Array = np.concatenate([(part - g).min(1) for part in np.array_split(cost, 1 + cost.size // _BLOCK)])
    return found


def feasible_pair(cost: Array, f: Array, a: Array, b: Array) -> tuple[Array, Array]:
    """Feasible potentials from any f: two c-transforms, which never lower <a, f> + <b, g>.

    Points without mass do not bind: they are left out first, and get what is feasible for them afterwards.

    Args:
        cost: (n, m).
        f: (n,), finite.
        a: weights (n,).
        b: weights (m,).
    """
    rows, columns = a > 0, b > 0
    inner = cost[np.ix_(rows, columns)]
    some = c_transform(inner, f[rows])
    f = row_transform(cost[:, columns], some)
    return f, c_transform(cost, f)
