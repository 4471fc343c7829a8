"""min over x, max over y in Y of Phi(x, y): who is x, who is y, and what each of them is paid."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor

from danskin.minmax.search import Payoff
from danskin.minmax.sets import Set


class Template(NamedTuple):
    """Who is who in min over x, max over y in Y of Phi(x, y), in words; classes carry one."""

    x: str
    y: str
    Y: str
    Phi: str


@dataclass(frozen=True)
class Problem:
    """One instance of the template, for any batch. x stands in the closures (a model's parameters).

    Args:
        payoff: (batch, y) -> (n,) values Phi(x, y), differentiable in x; what x minimises.
        feasible: batch -> the set Y.
        start: batch -> y0.
        adversary: batch -> the payoff f(y) that y maximises, where it differs from Phi (other loss, other
            precision, frozen parameters); None for Phi itself.
        guard: the context in which y moves, such as "parameters frozen".

    Lecture: row A1.
    """

    payoff: Callable[[Any, Tensor], Tensor]
    feasible: Callable[[Any], Set]
    start: Callable[[Any], Tensor]
    adversary: Callable[[Any], Payoff] | None = None
    guard: Callable[[], AbstractContextManager[Any]] = nullcontext

    def adversary_payoff(self, batch: Any) -> Payoff:
        """What y maximises."""
        if self.adversary is not None:
            return self.adversary(batch)
        return lambda y: self.payoff(batch, y)
