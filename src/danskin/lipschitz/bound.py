"""What a statement about a Lipschitz constant says: the number, which side it is on, and how it was found."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from danskin.errors import InputError

Norm = Literal[2, "inf"]
Kind = Literal["lower", "upper", "estimate"]
_SIGNS = {"lower": ">=", "upper": "<=", "estimate": "~"}
EVERYWHERE = "all inputs"


@dataclass(frozen=True, eq=False)
class LipschitzBound:
    r"""A statement about the smallest L with \|f(x) - f(x')\| <= L \|x - x'\| for all x, x' of a domain.

    Bounds of one kind, domain and norms may be multiplied (composition: the output norm of the right factor is the
    input norm of the left one) and added (a sum of two functions of the same input); an upper bound times a lower
    bound says nothing, and is refused. Lower bounds cannot be composed either: L(f g) may be 0.

    Args:
        value: the number, >= 0.
        kind: "upper": L is not larger; "lower": L is not smaller, as the witness shows; "estimate": neither.
        method: how it was found.
        norm_in: of the inputs, 2 or "inf".
        norm_out: of the outputs.
        domain: where it holds.
        assumptions: what it rests on, beyond exact arithmetic with the model's weights.
        seconds: wall time.
        layers: (name, factor) of the layers, for bounds that have them.
        witness: two inputs whose quotient is the value, for lower bounds.

    >>> a, b = LipschitzBound(2.0, "upper", "product"), LipschitzBound(3.0, "upper", "product")
    >>> print(a * b)
    L <= 6 (product * product)
    """

    value: float
    kind: Kind
    method: str
    norm_in: Norm = 2
    norm_out: Norm = 2
    domain: str = EVERYWHERE
    assumptions: tuple[str, ...] = ()
    seconds: float = 0.0
    layers: tuple[tuple[str, float], ...] = ()
    witness: tuple[Tensor, Tensor] | None = None

    def __post_init__(self) -> None:
        if self.kind not in _SIGNS:
            raise InputError(f"kind: expected upper, lower or estimate, got {self.kind!r}; say which side it is on")
        if math.isnan(self.value) or self.value < 0:
            raise InputError(f"value: expected a number >= 0, got {self.value}; a Lipschitz constant is not negative")

    @property
    def certified(self) -> bool:
        """Whether it is proved: every kind but an estimate."""
        return self.kind != "estimate"

    def __mul__(self, other: LipschitzBound | float) -> LipschitzBound:
        """Of f g (`self` is f's), or of a number times f."""
        if not isinstance(other, LipschitzBound):
            return self._made(self.value * abs(float(other)), f"{float(other):g} * {self.method}", self)
        self._same_kind(other, "multiplied")
        if self.kind == "lower":
            raise InputError(
                "bounds: expected upper bounds or estimates to multiply, got lower bounds, whose product is no lower "
                "bound of a composition; bound the composed network from below"
            )
        if self.norm_in != other.norm_out:
            raise InputError(
                f"bounds: expected the output norm of the inner function to be the input norm of the outer one, got "
                f"{other.norm_out} and {self.norm_in}; bound both in one norm"
            )
        if self.domain != EVERYWHERE:
            raise InputError(
                f"bounds: expected an outer bound for all inputs, got one on {self.domain}; what the inner function "
                "sends there is not known"
            )
        made = self._made(self.value * other.value, f"{self.method} * {other.method}", other)
        return _with(made, norm_in=other.norm_in, norm_out=self.norm_out, domain=other.domain)

    __rmul__ = __mul__

    def __add__(self, other: LipschitzBound) -> LipschitzBound:
        """Of f + g."""
        if not isinstance(other, LipschitzBound):
            raise InputError(
                f"bounds: expected a bound to add, got {type(other).__name__}; a constant function has the bound 0"
            )
        self._same_kind(other, "added")
        if self.kind == "lower":
            raise InputError(
                "bounds: expected upper bounds or estimates to add, got lower bounds: functions may cancel; bound "
                "their sum from below"
            )
        if (self.norm_in, self.norm_out, self.domain) != (other.norm_in, other.norm_out, other.domain):
            raise InputError(
                f"bounds: expected one pair of norms and one domain, got {self.norm_in}->{self.norm_out} on "
                f"{self.domain} and {other.norm_in}->{other.norm_out} on {other.domain}; bound both alike"
            )
        return self._made(self.value + other.value, f"{self.method} + {other.method}", other)

    def _same_kind(self, other: LipschitzBound, word: str) -> None:
        if self.kind != other.kind:
            raise InputError(
                f"bounds: expected one kind, got {self.kind} and {other.kind} to be {word}; the result would be "
                "neither an upper nor a lower bound"
            )

    def _made(self, value: float, method: str, other: LipschitzBound) -> LipschitzBound:
        both = self.assumptions + tuple(a for a in other.assumptions if a not in self.assumptions)
        seconds = self.seconds + (other.seconds if other is not self else 0.0)
        return LipschitzBound(
            value, self.kind, method, self.norm_in, self.norm_out, self.domain, both, seconds
        )  # fmt: skip

    def __str__(self) -> str:
        norms = "" if (self.norm_in, self.norm_out) == (2, 2) else f", l_{self.norm_in} to l_{self.norm_out}"
        where = "" if self.domain == EVERYWHERE else f", {self.domain}"
        return f"L {_SIGNS[self.kind]} {self.value:.6g} ({self.method}{norms}{where})"


def _with(bound: LipschitzBound, **changes: object) -> LipschitzBound:
    from dataclasses import replace

    return replace(bound, **changes)  # type: ignore[arg-type]
