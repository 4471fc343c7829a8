"""Integral probability metrics under one interface."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

Witness = Callable[[Tensor], Tensor]


@runtime_checkable
class IPM(Protocol):
    r"""d_F(mu, nu) = sup over f in F of E_mu f - E_nu f; the adversary y is the function f.

    Samples are (n, ...) and (m, ...) points with optional weights, taken as the distributions themselves. Numbers are
    float64.

    Lecture: E5.
    """

    def value(self, x: Tensor, y: Tensor, a: Tensor | None = None, b: Tensor | None = None) -> Any:
        """The distance, a float64 scalar; or a `Bracket` where only bounds are known."""
        ...

    def witness(self, x: Tensor, y: Tensor, a: Tensor | None = None, b: Tensor | None = None) -> Witness:
        """A function of F, points (k, ...) to (k,), that attains the distance (or what was found of it)."""
        ...

    def lower_bound(self, x: Tensor, y: Tensor, a: Tensor | None = None, b: Tensor | None = None) -> float:
        """A number that the distance is certainly not below."""
        ...
