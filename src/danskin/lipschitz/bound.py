"""What a statement about a Lipschitz constant says: the number, which side it is on, and how it was found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor


@dataclass(frozen=True, eq=False)
class LipschitzBound:
    r"""A bound of the smallest L with \|f(x) - f(x')\|_2 <= L \|x - x'\|_2.

    Args:
        value: the bound.
        kind: "upper": L is not larger, for all inputs; "lower": L is not smaller, as the witness shows.
        method: how it was found.
        layers: (name, factor) of the layers, for bounds that have them.
        witness: two inputs whose quotient is the value, for lower bounds.
    """

    value: float
    kind: Literal["upper", "lower"]
    method: str
    layers: tuple[tuple[str, float], ...] = ()
    witness: tuple[Tensor, Tensor] | None = None

    def __str__(self) -> str:
        return f"L {'<=' if self.kind == 'upper' else '>='} {self.value:.6g} ({self.method})"
